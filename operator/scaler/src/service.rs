//! S: for how long a request holds its slot.
//!
//! The time that slots were held, over the requests that gave one back in it, whatever became of them: what fails at once
//! and whose client leaves has come as well, and takes no more of a slot than that. With long answers the first to end are
//! the shortest, so it is at least what all that ran have run for, those that still run taken for ended now.

use std::time::Duration;

use crate::counters::Flow;
use crate::rate::Window;

/// From so many answers on they are believed.
const ENOUGH: f64 = 20.0;
/// From so many on they tell of what comes now, if that is another thing.
const FEWEST: f64 = 6.0;
/// By so much what comes now must differ to be another thing.
const OTHER: f64 = 4.0;
/// What is believed of an answer, in seconds.
const LEAST: f64 = 0.001;
const MOST: f64 = 3600.0;

/// What has been learned.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Service {
    learned: Option<f64>,
    tokens: Option<f64>,
}

impl Service {
    /// Learns from what happened in the last ten minutes.
    pub(crate) fn learn(&mut self, lately: &Flow) {
        if lately.finished >= ENOUGH {
            self.learned = Some(lately.slot_seconds / lately.finished);
            self.tokens = Some(lately.tokens / lately.finished);
        }
    }

    /// Learns, where nothing is known yet, from what each pod has done since it began: a pool was there before whoever
    /// looks at it now. What no request can have taken says nothing.
    pub(crate) fn recall(&mut self, lives: impl Iterator<Item = Flow>) {
        if self.learned.is_some() {
            return;
        }
        let mut all = Flow::default();
        for life in lives.filter(|life| life.slot_seconds <= life.finished * MOST) {
            all.add(&life, 1.0);
        }
        self.learn(&all);
    }

    /// In seconds, as it was last known; before, those that have ended count by what they took, and the others, that run or
    /// wait, by what is `expected`. Or longer, by what so many that run now have run for.
    pub(crate) fn seconds(&self, lately: &Flow, (running, waiting): (f64, f64), expected: Duration) -> f64 {
        let expected = expected.as_secs_f64();
        let open = (running + waiting).max(1.0);
        let mixed = (lately.slot_seconds + open * expected) / (lately.finished + open);
        let known = self.learned.unwrap_or(mixed);
        let at_least = lately.running_seconds / (lately.finished + running).max(ENOUGH);
        known.max(at_least).clamp(LEAST, MOST)
    }

    /// In seconds, of what comes now: as `known`, unless it is of quite another kind, such as requests that all fail at
    /// once, or real ones after those. What has ended is known; of what is still there the rest is taken to be as ever.
    pub(crate) fn of_now(known: f64, came: &Window, running: f64) -> f64 {
        let Flow { finished, slot_seconds, running_seconds, .. } = came.flow;
        let open = (came.wanted() - finished).max(0.0);
        let ran = running_seconds / (finished + running).max(1.0);
        let seconds = (slot_seconds + open * known) / (finished + open).max(1.0);
        if finished >= FEWEST && seconds.max(ran) * OTHER < known {
            return seconds.max(ran).max(LEAST);
        }
        let at_least = running_seconds / (finished + running).max(ENOUGH);
        if at_least > known * OTHER { at_least.min(MOST) } else { known }
    }

    /// Tokens of an answer, once enough were seen.
    pub(crate) fn tokens(&self) -> Option<f64> {
        self.tokens
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "these are exact")]

    use super::*;

    const EXPECTED: Duration = Duration::from_secs(10);

    fn flow(finished: f64, slot_seconds: f64, running_seconds: f64) -> Flow {
        Flow { finished, slot_seconds, running_seconds, ..Flow::default() }
    }

    fn seconds(seen: &[Flow]) -> f64 {
        let mut service = Service::default();
        for flow in seen {
            service.learn(flow);
        }
        service.seconds(seen.last().unwrap(), (20.0, 0.0), EXPECTED)
    }

    #[test]
    fn what_is_expected_holds_for_those_that_have_not_ended_until_twenty_have() {
        assert_eq!(seconds(&[flow(0.0, 0.0, 0.0)]), 10.0);
        assert_eq!(seconds(&[flow(5.0, 0.0, 0.0)]), 8.0);
        assert_eq!(seconds(&[flow(20.0, 60.0, 0.0)]), 3.0);
    }

    #[test]
    fn what_pods_did_before_they_were_looked_at_is_known_until_something_newer_is() {
        let recalled = |lives: &[Flow], lately: Flow| {
            let mut service = Service::default();
            service.learn(&lately);
            service.recall(lives.iter().copied());
            service.seconds(&lately, (0.0, 0.0), EXPECTED)
        };
        let lives = [flow(300.0, 30.0, 0.0), flow(100.0, 170.0, 0.0), flow(1.0, 1e9, 0.0)];
        assert_eq!(recalled(&lives, Flow::default()), 0.5);
        assert_eq!(recalled(&lives, flow(20.0, 60.0, 0.0)), 3.0);
        assert_eq!(recalled(&[flow(19.0, 1.0, 0.0)], Flow::default()), 10.0);
    }

    #[test]
    fn what_was_learned_outlives_a_quiet_night() {
        assert_eq!(seconds(&[flow(100.0, 3000.0, 0.0), flow(0.0, 0.0, 0.0)]), 30.0);
    }

    #[test]
    fn long_answers_that_none_has_completed_of_show_in_time() {
        assert_eq!(seconds(&[flow(0.0, 0.0, 4000.0)]), 200.0);
        assert_eq!(seconds(&[flow(20.0, 20.0, 4000.0)]), 100.0);
    }

    #[test]
    fn what_has_only_begun_makes_nothing_longer() {
        // A hundred of 8 s each are done, and twenty have run for half of that.
        assert_eq!(seconds(&[flow(100.0, 800.0, 880.0)]), 8.0);
    }

    #[test]
    fn requests_of_quite_another_kind_show_at_once() {
        let now = |arrivals, finished, slot_seconds, running_seconds| {
            let flow = Flow { arrivals, finished, slot_seconds, running_seconds, ..Flow::default() };
            Service::of_now(8.0, &Window { flow, refused: 0.0, seconds: 60.0 }, 0.0)
        };
        assert_eq!(now(100.0, 100.0, 0.5, 0.5), 0.005, "they fail");
        assert_eq!(now(100.0, 100.0, 300.0, 300.0), 8.0, "shorter by chance");
        assert_eq!(now(100.0, 30.0, 10.0, 300.0), 8.0, "the short ones of a rise are the first to end");
        assert_eq!(now(5.0, 5.0, 0.1, 0.1), 8.0, "too few");
        assert_eq!(now(20.0, 10.0, 100.0, 2000.0), 100.0, "long ones, after what failed");
    }

    #[test]
    fn no_number_is_beyond_belief() {
        assert_eq!(seconds(&[flow(20.0, 0.0, 0.0)]), LEAST);
        assert_eq!(seconds(&[flow(20.0, 1e12, 0.0)]), MOST);
        let mut service = Service::default();
        service.learn(&Flow::default());
        assert_eq!(service.seconds(&Flow::default(), (0.0, 0.0), Duration::MAX), MOST);
    }
}
