//! The models of this Ollama: how many slots each really has, which are loaded, how many fit, and how they bear what they
//! are sent. What is found out is told to the queue.

mod fit;
mod hidden;
mod kinds;
mod show;

use std::sync::Arc;

use corral_limiter::ModelName;
use corral_limiter::queue::Strain;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::fit::{Fit, Loaded};
use self::hidden::HiddenWaits;
use self::kinds::{Kinds, Shown, Used};
use super::Proxy;
use super::ps::Listed;
use crate::core::Core;

pub(crate) use self::hidden::{Sent, Times};

/// The most questions that Ollama is asked at one time.
const AT_ONCE: usize = 4;

/// What is known of the models.
#[derive(Debug, Default)]
pub(crate) struct Models {
    kinds: Mutex<Kinds>,
    /// There is a model to be asked about.
    wanted: Notify,
    hidden: Mutex<HiddenWaits>,
    fit: Mutex<Fit>,
}

impl Models {
    /// A request for a model is about to queue. The first one of a model does not wait until Ollama has said what it is.
    pub(crate) fn used(&self, core: &Core, model: &ModelName) {
        let Used { is_new, is_wanted, forgotten } = self.kinds.lock().used(model, Instant::now());
        if let Some(forgotten) = forgotten {
            core.set_cap(&forgotten, None);
        }
        if is_new {
            core.set_cap(model, Some(1));
        }
        if is_wanted {
            self.wanted.notify_one();
        }
    }

    /// An answer is complete that tells its times.
    pub(crate) fn answered(&self, core: &Core, model: &ModelName, times: Times, sent: Sent) {
        if self.hidden.lock().answered(model, times, sent, Instant::now()) {
            tracing::info!(%model, "requests wait inside Ollama: fewer are sent to it for a while");
            core.strain(model, Strain::HiddenWait);
        }
    }

    /// Ollama has listed what it has loaded.
    pub(crate) fn seen(&self, core: &Core, listed: &Listed) {
        let now = Instant::now();
        let mut loaded = Vec::new();
        for (model, digest, stays_until) in listed.models() {
            self.kinds.lock().loaded(&model, digest, now);
            loaded.push(Loaded { model, stays_until });
        }
        let names: Vec<ModelName> = loaded.iter().map(|one| one.model.clone()).collect();
        // First: who is loaded beyond that number has to go.
        core.fit_models(|may| self.fit.lock().look(loaded, may, (now, Timestamp::now())));
        core.seen_loaded(&names);
    }

    /// What Ollama has loaded was not looked at for a while.
    pub(crate) fn lose_sight(&self) {
        self.fit.lock().lose_sight();
    }
}

/// Asks about models as they come to be used, until it is dropped.
pub(crate) async fn watch(proxy: &Arc<Proxy>) {
    let models = &proxy.models;
    let mut asking = JoinSet::new();
    loop {
        while asking.len() < AT_ONCE
            && let Some(model) = models.kinds.lock().next()
        {
            let proxy = Arc::clone(proxy);
            asking.spawn(async move { (show::ask(&proxy.upstream, &model).await, model) });
        }
        tokio::select! {
            () = models.wanted.notified() => {}
            Some(answer) = asking.join_next() => {
                if let Ok((shown, model)) = answer {
                    hear(proxy, &model, shown);
                }
            }
        }
    }
}

fn hear(proxy: &Proxy, model: &ModelName, shown: Shown) {
    tracing::debug!(%model, ?shown, "asked how many slots it has");
    let slots = proxy.models.kinds.lock().shown(model, shown, Instant::now());
    proxy.core.set_cap(model, slots);
}
