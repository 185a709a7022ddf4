//! How many models fit into Ollama at one time, where that turns out to be fewer than it may hold.
//!
//! How many it may hold is set. How many fit hangs on the models, and only Ollama knows: it throws one out when the next
//! does not fit beside it. That is seen from outside as a model that is gone before its time, while another is there that
//! was not. Then so many fit as are there now; which is believed for ten minutes, or until more are seen at one time,
//! since smaller ones may be asked for then.
//!
//! A client that has a model unloaded just when another is loaded looks the same. What that costs is that for ten minutes
//! one model gives way to another that would have fitted beside it.
//!
//! No clock here, and no I/O: times are handed in.

use std::time::Duration;

use corral_limiter::ModelName;
use jiff::Timestamp;
use tokio::time::Instant;

/// How long it is believed that fewer fit.
const BELIEVED: Duration = Duration::from_mins(10);

/// A model that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) model: ModelName,
    /// Until when it stays if nobody uses it; none if that cannot be read.
    pub(super) stays_until: Option<Timestamp>,
}

/// What was seen of loaded models.
#[derive(Debug, Default)]
pub(super) struct Fit {
    before: Vec<Loaded>,
    fewer: Option<Fewer>,
}

#[derive(Debug, Clone, Copy)]
struct Fewer {
    fit: u32,
    until: Instant,
}

impl Fit {
    /// These are loaded now, and so many models may be, at least one. Returns how many fit, as far as was seen.
    pub(super) fn look(&mut self, loaded: Vec<Loaded>, may: u32, (now, wall): (Instant, Timestamp)) -> u32 {
        let count = u32::try_from(loaded.len()).unwrap_or(u32::MAX).max(1);
        if self.one_was_thrown_out(&loaded, wall) {
            self.fewer = Some(Fewer { fit: count, until: now + BELIEVED });
        }
        self.fewer = self.fewer.filter(|fewer| now < fewer.until && count <= fewer.fit);
        self.before = loaded;
        self.fewer.map_or(may, |fewer| fewer.fit.min(may))
    }

    /// Nothing is known of what is loaded any more.
    pub(super) fn lose_sight(&mut self) {
        self.before.clear();
    }

    fn one_was_thrown_out(&self, loaded: &[Loaded], wall: Timestamp) -> bool {
        let is_in = |all: &[Loaded], model: &ModelName| all.iter().any(|one| one.model == *model);
        let was_to_stay = |one: &&Loaded| one.stays_until.is_some_and(|until| until > wall);
        let gone = self.before.iter().filter(was_to_stay).any(|one| !is_in(loaded, &one.model));
        gone && loaded.iter().any(|one| !is_in(&self.before, &one.model))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        fit: Fit,
        may: u32,
        start: Instant,
        now: Instant,
    }

    impl Scene {
        fn new(may: u32) -> Self {
            let now = Instant::now();
            Self { fit: Fit::default(), may, start: now, now }
        }

        fn wall(&self, seconds: i64) -> Timestamp {
            Timestamp::from_second(seconds + i64::try_from((self.now - self.start).as_secs()).unwrap())
                .unwrap()
        }

        /// Ten seconds later these are loaded, and stay for so long.
        fn look(&mut self, models: &[&str], stay_secs: i64) -> u32 {
            self.now += Duration::from_secs(10);
            let stays_until = Some(self.wall(stay_secs));
            let loaded =
                models.iter().map(|name| Loaded { model: ModelName::parse(name).unwrap(), stays_until });
            let at = (self.now, self.wall(0));
            self.fit.look(loaded.collect(), self.may, at)
        }
    }

    #[tokio::test]
    async fn one_that_is_thrown_out_for_another_shows_how_many_fit() {
        let mut scene = Scene::new(3);
        assert_eq!(scene.look(&["a"], 300), 3);
        assert_eq!(scene.look(&["a", "b"], 300), 3);
        assert_eq!(scene.look(&["b", "c"], 300), 2);
        assert_eq!(scene.look(&["d"], 300), 1, "a large one");
        assert_eq!(scene.look(&["e", "a"], 300), 2, "it made room for two");
        assert_eq!(scene.look(&["e", "a", "b"], 300), 3, "more than that were seen: all may be tried again");
    }

    #[tokio::test]
    async fn who_leaves_at_its_time_or_for_nobody_shows_nothing() {
        let mut scene = Scene::new(3);
        scene.look(&["a", "b"], 5);
        assert_eq!(scene.look(&["b", "c"], 300), 3, "it was its time");
        assert_eq!(scene.look(&["b"], 300), 3, "a client had it unloaded");
        let mut full = Scene::new(2);
        full.look(&["a", "b"], 300);
        assert_eq!(full.look(&["b", "c"], 300), 2, "it may hold no more");
    }

    #[tokio::test]
    async fn it_is_believed_for_ten_minutes() {
        let mut scene = Scene::new(3);
        scene.look(&["a", "b"], 300);
        assert_eq!(scene.look(&["b", "c"], 300), 2);
        let later: Vec<u32> = (0..60).map(|_| scene.look(&["b", "c"], 300)).collect();
        assert_eq!((later[58], later[59]), (2, 3));
    }

    #[tokio::test]
    async fn a_new_number_of_the_plan_counts_in_place_of_the_old_one() {
        let mut scene = Scene::new(3);
        scene.look(&["a", "b"], 300);
        assert_eq!(scene.look(&["b", "c"], 300), 2);
        scene.may = 4;
        assert_eq!(scene.look(&["b", "c"], 300), 2, "that fewer fit is still so");
        scene.may = 1;
        assert_eq!(scene.look(&["b"], 300), 1);
        scene.may = 5;
        assert_eq!(scene.look(&["b"], 300), 2);
    }

    #[tokio::test]
    async fn after_a_break_nobody_is_missed() {
        let mut scene = Scene::new(3);
        scene.look(&["a", "b"], 300);
        scene.fit.lose_sight();
        assert_eq!(scene.look(&["c"], 300), 3);
        assert_eq!(scene.look(&[], 300), 3);
    }
}
