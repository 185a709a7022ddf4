//! A sudden rise: seen in six seconds, where the window by which a pool is sized takes a minute.
//!
//! Two questions are asked of what came. Whether it is real: by chance alone so many do not come to a pool that is large
//! enough, and fewer than six are never sudden. And how much it is: at least, but for chance. After it the pool does not
//! shrink until the minute has seen it all.

use std::time::Duration;

use crate::counters::count;
use crate::need::Work;
use crate::rate::{STABLE, Window};

/// Fewer requests are never a rise.
const FEWEST: f64 = 6.0;
/// How far above what the pool is made for the requests must be, in standard deviations.
const REAL: f64 = 4.0;
/// What is taken off the rate for chance, in standard deviations.
const CHANCE: f64 = 1.0;

/// Whether there was a sudden rise of late.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Panic {
    until: Option<Duration>,
}

/// What a sudden rise is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sudden {
    /// What came within six seconds.
    pub(crate) window: Window,
    pub(crate) work: Work,
    /// How many pods the pool has been made for.
    pub(crate) current: u32,
    /// Requests that run.
    pub(crate) in_flight: u64,
    /// How long a pod takes to start, in seconds.
    pub(crate) startup: f64,
}

impl Sudden {
    /// How many pods the rise needs, if it is one.
    fn pods(&self) -> Option<u32> {
        let needed = self.needed();
        let current = f64::from(self.current);
        let is_much = f64::from(needed) >= (current * 1.2).max(current + 1.0);
        (self.is_real() && is_much).then_some(needed)
    }

    fn is_real(&self) -> bool {
        let served = f64::from(self.current) * self.work.slots * self.work.utilization / self.work.service;
        let (usual, wanted) = (served * self.window.seconds, self.window.wanted());
        // Roots of counts vary alike, also where there are so few that the counts themselves are far from normal.
        wanted >= FEWEST && 2.0 * (wanted.sqrt() - usual.sqrt()) > REAL
    }

    /// Six seconds say little about an hour: of answers that take longer than a pod to start only so many are reckoned
    /// with as come until it has, beside those that run.
    fn needed(&self) -> u32 {
        let rate = self.window.rate_but_chance(CHANCE);
        let until_known = self.startup.max(STABLE.as_secs_f64());
        let busy = (rate * self.work.service).min(count(self.in_flight) + rate * until_known);
        self.work.pods_for(busy)
    }
}

impl Panic {
    /// How many pods a sudden rise needs, if there is one. In its minute all that it turns out to be counts.
    pub(crate) fn look(&mut self, sudden: &Sudden, now: Duration) -> Option<u32> {
        if let Some(pods) = sudden.pods() {
            self.until = Some(now.saturating_add(STABLE));
            return Some(pods);
        }
        self.holds(now).then(|| sudden.needed())
    }

    /// Whether one is not a minute ago.
    pub(crate) fn holds(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Flow;

    fn sudden(current: u32, arrivals: f64) -> Sudden {
        Sudden {
            window: Window { flow: Flow { arrivals, ..Flow::default() }, refused: 0.0, seconds: 6.0 },
            work: Work { service: 8.0, slots: 4.0, utilization: 0.75, drain: 60.0, backlog: 0.0 },
            current,
            in_flight: 0,
            startup: 120.0,
        }
    }

    #[test]
    fn a_step_to_twenty_times_is_seen_for_what_it_is() {
        let pods = sudden(6, 240.0).pods().unwrap();
        assert!((96..=107).contains(&pods), "{pods}");
    }

    #[test]
    fn chance_is_no_panic() {
        assert_eq!(sudden(1, 5.0).pods(), None);
        assert_eq!(sudden(1, 8.0).pods(), None);
        assert_eq!(sudden(6, 27.0).pods(), None);
        let mut long = sudden(17, 7.0);
        long.work.service = 200.0;
        assert_eq!(long.pods(), None, "of one and a half seven are rare, but not so rare that no day has it");
        assert_eq!(sudden(107, 290.0).pods(), None);
        assert_eq!(sudden(0, 1.0).pods(), None);
    }

    #[test]
    fn a_few_long_answers_are_not_taken_for_a_flood() {
        let mut long = sudden(1, 12.0);
        long.work.service = 3600.0;
        long.work.slots = 1.0;
        let pods = long.pods().unwrap();
        assert!(pods < 240, "in two minutes some 170 come, in an hour 5,000: {pods}");
    }

    #[test]
    fn it_holds_for_a_minute_after_the_last() {
        let (mut panic, at) = (Panic::default(), Duration::from_secs);
        assert!(!panic.holds(at(0)));
        assert!(panic.look(&sudden(1, 100.0), at(10)).is_some());
        assert!(
            panic.look(&sudden(90, 240.0), at(20)).is_some_and(|pods| pods > 90),
            "it was larger than it looked"
        );
        assert!(panic.holds(at(69)) && !panic.holds(at(70)));
        assert!(panic.look(&sudden(90, 240.0), at(70)).is_none());
    }
}
