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

    /// Ollama has said what a model is.
    fn shown(&self, core: &Core, model: &ModelName, shown: Shown) {
        tracing::debug!(%model, ?shown, "asked how many slots it has");
        let slots = self.kinds.lock().shown(model, shown, Instant::now());
        core.set_cap(model, slots);
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
                    models.shown(&proxy.core, &model, shown);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use corral_limiter::LimiterSettings;
    use corral_limiter::queue::{Priority, Runner, Slots, WaiterId, Wish};

    use super::*;
    use crate::core::CoreSettings;
    use crate::health::Health;
    use crate::metrics::Metrics;

    fn core() -> Core {
        let settings = CoreSettings {
            limiter: LimiterSettings { hash_key: [1; 16], keys_per_limit: 100 },
            slots: Slots { per_model: 4, models: 3 },
        };
        Core::new(settings, Arc::new(Health::new()), Arc::new(Metrics::new()))
    }

    fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    /// Starts as many requests of a model as may run at one time.
    fn slots(core: &Core, name: &str, first: u64) -> u32 {
        let runner = Runner::of(&model(name));
        let mut state = core.lock();
        let mut started = 0;
        while state.queue.starts_at_once(&runner, Priority::Medium, core.clock().now()) && started < 100 {
            let id = WaiterId(first + u64::from(started));
            state.queue.arrive(id, Wish::slot(&runner), core.clock().now()).unwrap();
            state.queue.loaded(&runner, core.clock().now());
            started += 1;
        }
        started
    }

    fn listed(models: &[&str]) -> Listed {
        let entry = |name: &&str| serde_json::json!({ "name": name, "expires_at": "2999-01-01T00:00:00Z" });
        let models: Vec<_> = models.iter().map(entry).collect();
        serde_json::from_value(serde_json::json!({ "models": models })).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_has_one_slot_until_ollama_has_said_what_it_is() {
        let (core, models) = (core(), Models::default());
        for name in ["new", "one", "all", "mute"] {
            models.used(&core, &model(name));
        }
        for (name, shown) in [("one", Shown::OneSlot), ("all", Shown::AllSlots), ("mute", Shown::Nothing)] {
            models.shown(&core, &model(name), shown);
        }
        let all = ["new", "one", "all", "mute"].map(|name| {
            let core = &core;
            core.lock().queue.set_slots(Slots { per_model: 4, models: 9 });
            slots(core, name, name.bytes().map(u64::from).sum::<u64>() * 1000)
        });
        assert_eq!(all, [1, 1, 4, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_forgotten_has_as_many_slots_as_others_again() {
        let (core, models) = (core(), Models::default());
        for n in 0..1000 {
            models.used(&core, &model(&format!("m{n}")));
        }
        assert_eq!((slots(&core, "m0", 0), slots(&core, "m999", 1000)), (4, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn eight_answers_that_waited_inside_take_one_slot() {
        let (core, models) = (core(), Models::default());
        let second = Duration::from_secs(1);
        let times = Times { total: second * 3, load: Duration::ZERO, work: second };
        for _ in 0..8 {
            let sent = Sent { at: Instant::now(), alone: false };
            models.answered(&core, &model("m"), times, sent);
        }
        assert_eq!(slots(&core, "m", 0), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_models_are_loaded_once_ollama_has_thrown_one_out_and_all_again_when_they_fit() {
        let (core, models) = (core(), Models::default());
        let most = || core.lock().queue.slots();
        models.seen(&core, &listed(&["a", "b"]));
        assert_eq!(most(), Slots { per_model: 4, models: 3 });
        models.seen(&core, &listed(&["b", "c"]));
        assert_eq!(most(), Slots { per_model: 4, models: 2 });
        models.seen(&core, &listed(&["a", "b", "c"]));
        assert_eq!(most(), Slots { per_model: 4, models: 3 });
    }
}
