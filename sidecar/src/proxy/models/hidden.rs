//! The time that requests wait inside Ollama although they had a slot: the sign that it has fewer slots than are used.
//!
//! Ollama's own API tells, in the last line of an answer, how long the whole took, and how long it took to find a runner,
//! to read the prompt and to write the answer. What is left is the wait for a slot of the runner, and some overhead. How
//! much overhead a model has is seen on requests that found nobody else of their model inside: those cannot have waited. So
//! a model that is always run twice for an answer, as some are that think, does not look as if it waited.
//!
//! The answers of `/v1/*` tell no times, and those of embeddings not how long the work took: of those the wait is not
//! known.

use std::collections::VecDeque;
use std::time::Duration;

use corral_limiter::ModelName;
use hashbrown::HashMap;
use tokio::time::Instant;

use super::super::trouble::median;

/// Models that are remembered; of more the one seen longest ago is forgotten.
const MOST_MODELS: usize = 64;
/// Of so many answers the median is taken: one alone may have been unlucky.
const ANSWERS: usize = 8;
/// A shorter wait is none.
const SHORTEST: Duration = Duration::from_millis(250);
/// Nor is one that is a smaller part of the work: one in so many.
const PART: u32 = 20;

/// What the last line of an answer says of its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) total: Duration,
    /// Until it had a runner.
    pub(crate) load: Duration,
    /// Reading the prompt, and writing the answer.
    pub(crate) work: Duration,
}

impl Times {
    /// What none of the others explains.
    fn unexplained(&self) -> Duration {
        self.total.saturating_sub(self.load).saturating_sub(self.work)
    }
}

/// How a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    /// No other request of its model was inside Ollama then.
    pub(crate) alone: bool,
}

/// What each model's latest answers tell.
#[derive(Debug, Default)]
pub(super) struct HiddenWaits {
    models: HashMap<ModelName, Waits>,
    seen: u64,
}

#[derive(Debug, Default)]
struct Waits {
    /// What was unexplained of those that found nobody else there.
    overhead: VecDeque<Duration>,
    latest: VecDeque<Times>,
    /// When the latest sign was given. Who was sent before it tells of how things were.
    told: Option<Instant>,
    seen: u64,
}

impl HiddenWaits {
    /// An answer is complete. Whether the latest ones of its model have waited in Ollama.
    pub(super) fn answered(&mut self, model: &ModelName, times: Times, sent: Sent, now: Instant) -> bool {
        self.waits(model).answered(times, sent, now)
    }

    fn waits(&mut self, model: &ModelName) -> &mut Waits {
        if !self.models.contains_key(model) && self.models.len() >= MOST_MODELS {
            self.forget_oldest();
        }
        self.seen += 1;
        let waits = self.models.entry(model.clone()).or_default();
        waits.seen = self.seen;
        waits
    }

    fn forget_oldest(&mut self) {
        let oldest = self.models.iter().min_by_key(|(_, waits)| waits.seen).map(|(model, _)| model.clone());
        if let Some(model) = oldest {
            self.models.remove(&model);
        }
    }
}

impl Waits {
    fn answered(&mut self, times: Times, sent: Sent, now: Instant) -> bool {
        if sent.alone {
            push(&mut self.overhead, times.unexplained());
        }
        if self.told.is_some_and(|told| sent.at < told) {
            return false;
        }
        push(&mut self.latest, times);
        if self.latest.len() < ANSWERS || !self.have_waited() {
            return false;
        }
        self.latest.clear();
        self.told = Some(now);
        true
    }

    fn have_waited(&self) -> bool {
        let unexplained = median(self.latest.iter().map(Times::unexplained));
        let work = median(self.latest.iter().map(|times| times.work));
        let overhead = median(self.overhead.iter().copied());
        unexplained.saturating_sub(overhead) > SHORTEST.max(work / PART)
    }
}

fn push<T>(latest: &mut VecDeque<T>, one: T) {
    if latest.len() == ANSWERS {
        latest.pop_front();
    }
    latest.push_back(one);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn times(load: u64, work: u64, unexplained: u64) -> Times {
        Times { total: millis(load + work + unexplained), load: millis(load), work: millis(work) }
    }

    struct Scene {
        waits: HiddenWaits,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self { waits: HiddenWaits::default(), now: Instant::now() }
        }

        fn hear(&mut self, times: Times, alone: bool) -> bool {
            self.now += millis(100);
            let sent = Sent { at: self.now - millis(50), alone };
            self.waits.answered(&model("m"), times, sent, self.now)
        }

        /// After how many equal answers there is a sign, of twenty.
        fn sign_after(&mut self, times: Times) -> Option<usize> {
            (1..=20).find(|_| self.hear(times, false))
        }
    }

    #[tokio::test]
    async fn only_a_wait_of_most_of_the_latest_answers_is_a_sign() {
        assert_eq!(Scene::new().sign_after(times(0, 1000, 300)), Some(8));
        assert_eq!(Scene::new().sign_after(times(0, 1000, 240)), None, "too short to tell");
        assert_eq!(Scene::new().sign_after(times(0, 10_000, 450)), None, "a small part of the work");
        assert_eq!(Scene::new().sign_after(times(0, 10_000, 550)), Some(8));
        assert_eq!(Scene::new().sign_after(times(9000, 1000, 0)), None, "a load is no wait");
        let mut scene = Scene::new();
        let few = (0..40).map(|n| scene.hear(times(0, 1000, if n % 4 == 0 { 9000 } else { 0 }), false));
        assert!(!few.collect::<Vec<_>>().contains(&true), "some were unlucky");
    }

    #[tokio::test]
    async fn what_a_request_alone_does_not_explain_is_overhead() {
        let mut scene = Scene::new();
        assert!(!(0..20).any(|_| scene.hear(times(0, 1000, 800), true)));
        assert_eq!(scene.sign_after(times(0, 1000, 900)), None);
        let mut scene = Scene::new();
        (0..8).for_each(|_| assert!(!scene.hear(times(0, 1000, 100), true)));
        assert!(scene.sign_after(times(0, 1000, 400)).is_some());
    }

    #[tokio::test]
    async fn who_was_sent_before_a_sign_says_nothing_of_what_became_of_it() {
        let mut scene = Scene::new();
        assert_eq!(scene.sign_after(times(0, 1000, 2000)), Some(8));
        let before = scene.now - millis(1);
        for _ in 0..30 {
            scene.now += millis(100);
            let sent = Sent { at: before, alone: false };
            assert!(!scene.waits.answered(&model("m"), times(0, 1000, 2000), sent, scene.now));
        }
        assert_eq!(scene.sign_after(times(0, 1000, 2000)), Some(8), "eight that were sent after it");
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let mut scene = Scene::new();
        for n in 0..1000 {
            let sent = Sent { at: scene.now, alone: n % 2 == 0 };
            scene.waits.answered(&model(&format!("m{n}")), times(0, 1, 0), sent, scene.now);
        }
        assert_eq!(scene.waits.models.len(), MOST_MODELS);
        (0..100).for_each(|_| assert!(!scene.hear(times(0, 1, 0), true)));
        assert!(
            scene
                .waits
                .models
                .values()
                .all(|one| one.latest.len() <= ANSWERS && one.overhead.len() <= ANSWERS)
        );
    }
}
