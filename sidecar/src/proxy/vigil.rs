//! Watches the runners, and acts on what the [`Judge`] says: asks, ends what hangs, and tells [`Health`].
//!
//! [`Health`]: crate::health::Health

use std::sync::Arc;
use std::time::Duration;

use corral_limiter::ModelName;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Proxy;
use super::canary::{self, Heard, Question};
use super::judge::{Judge, Order, Why};
use super::residency::Need;
use crate::health::Engine;
use crate::metrics::Stall;

/// For how long everything in flight may wait for its head before a model is called loading.
const LOADING_AFTER: Duration = Duration::from_secs(5);

type Answers = JoinSet<(Need, Question, Heard)>;

/// Watches until it is dropped.
pub(crate) async fn watch(proxy: &Arc<Proxy>) {
    let bounds = proxy.settings.stall;
    let mut judge = Judge::new(bounds, Instant::now());
    let mut answers = Answers::new();
    loop {
        tokio::select! {
            () = sleep(bounds.tick()) => look(proxy, &mut judge, &mut answers),
            Some(answer) = answers.join_next() => {
                if let Ok((need, question, heard)) = answer {
                    hear(proxy, &mut judge, (&need, question), heard);
                }
            }
        }
    }
}

fn look(proxy: &Arc<Proxy>, judge: &mut Judge, answers: &mut Answers) {
    let now = Instant::now();
    let health = &proxy.core.health;
    let (runners, loading) = {
        let mut residency = proxy.residency.lock();
        (residency.runners(now), residency.all_wait_for_a_load(LOADING_AFTER, now))
    };
    health.set_loading(loading);
    if health.wedged() {
        proxy.residency.lock().end_all(None);
    }
    for order in judge.look(&runners, now) {
        match order {
            Order::Ask(need, question) => put(proxy, answers, need, question),
            Order::Convict(need, why) => convict(proxy, &need.model, why),
        }
    }
}

/// Puts a question. It stays open for as long as a load may take: whoever leaves Ollama's line before its turn is never
/// let go of.
fn put(proxy: &Arc<Proxy>, answers: &mut Answers, need: Need, question: Question) {
    tracing::debug!(model = %need.model, ?question, "asking whether the runner works");
    let proxy = Arc::clone(proxy);
    answers.spawn(async move {
        let heard = canary::ask(&proxy.upstream, &need, question, proxy.settings.hold_loading).await;
        (need, question, heard)
    });
}

fn convict(proxy: &Proxy, model: &ModelName, why: Why) {
    tracing::warn!(%model, ?why, "the runner has stopped: its requests are ended");
    let stall = match why {
        Why::Unanswering => Stall::Unanswering,
        Why::Silent => Stall::Silent,
    };
    proxy.core.metrics.engine_stalled(stall);
    // Before its slots come back: whoever gets one must not be sent to it.
    proxy.core.health.set_engine(Engine::Stalled);
    proxy.residency.lock().end_all(Some(model));
}

fn hear(proxy: &Proxy, judge: &mut Judge, (need, question): (&Need, Question), heard: Heard) {
    tracing::debug!(model = %need.model, ?question, ?heard, "asked whether the runner works");
    if judge.heard(need, question, heard) {
        tracing::info!(model = %need.model, "the runner works again");
        proxy.core.health.set_engine(Engine::Working);
    }
}
