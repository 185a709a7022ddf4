//! Down: to the most that was needed of late, in steps with time between them.
//!
//! What a load needs may be needed again, and is kept for the whole window. What was made beyond that, for what waited or
//! for a sudden rise, has nothing to do once that is served, and goes sooner.

use std::time::Duration;

use crate::Down;
use crate::extremes::Highest;

/// What was needed of late, and when the last step was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Descent {
    needed: Highest,
    usual: Highest,
    stepped: Option<Duration>,
}

impl Descent {
    /// Begins anew, where so many are all that is known to have been needed.
    pub(crate) fn begin(&mut self, now: Duration, needed: u32) {
        self.needed.begin(now, needed);
        self.usual.begin(now, needed);
        self.stepped = None;
    }

    /// Takes what is needed now, and how much of it may be needed again.
    pub(crate) fn note(&mut self, now: Duration, needed: u32, usual: u32) {
        self.needed.note(now, needed);
        self.usual.note(now, usual);
    }

    /// The most that may be needed again of what was within the window, and the most that was needed at all within `beyond`.
    pub(crate) fn target(&mut self, down: &Down, beyond: Duration, now: Duration) -> u32 {
        self.usual.over(down.window, now).max(self.needed.over(down.window.min(beyond), now))
    }

    /// How many there should be on the way from `current` to fewer: one step, if it is time for it.
    pub(crate) fn step(&mut self, down: &Down, current: u32, target: u32, now: Duration) -> u32 {
        if target >= current
            || self.stepped.is_some_and(|at| is_too_soon(now.saturating_sub(at), down.period))
        {
            return current;
        }
        self.stepped = Some(now);
        let share = u64::from(current) * u64::from(down.max_percent.min(100)) / 100;
        current.saturating_sub(u32::try_from(share).unwrap_or(current).max(1)).max(target)
    }
}

/// Asked twice at one moment there is one step, whatever the period.
fn is_too_soon(passed: Duration, period: Duration) -> bool {
    passed < period.max(Duration::from_nanos(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The sizes at each of these seconds on the way to `target`.
    fn steps(down: Down, from: u32, target: u32, seconds: &[u64]) -> Vec<u32> {
        let (mut descent, mut current) = (Descent::default(), from);
        let step = |second: &u64| {
            current = descent.step(&down, current, target, at(*second));
            current
        };
        seconds.iter().map(step).collect()
    }

    #[test]
    fn a_quarter_goes_each_half_minute_whatever_the_rhythm() {
        assert_eq!(steps(Down::default(), 100, 1, &[0, 2, 29, 30, 31, 60]), [75, 75, 75, 57, 57, 43]);
        assert_eq!(steps(Down::default(), 100, 1, &[0, 30, 60]), [75, 57, 43]);
    }

    #[test]
    fn one_may_always_go_and_none_goes_too_far() {
        assert_eq!(steps(Down::default(), 3, 1, &[0, 30, 60]), [2, 1, 1]);
        assert_eq!(steps(Down::default(), 100, 90, &[0]), [90]);
        let all = Down { max_percent: 100, period: Duration::ZERO, ..Down::default() };
        assert_eq!(steps(all, 100, 0, &[0]), [0]);
    }

    #[test]
    fn without_a_period_there_is_one_step_a_moment() {
        let quick = Down { period: Duration::ZERO, ..Down::default() };
        assert_eq!(steps(quick, 100, 1, &[0, 0, 1]), [75, 75, 57]);
    }

    #[test]
    fn what_was_needed_within_the_window_counts() {
        let mut descent = Descent::default();
        descent.begin(at(0), 9);
        descent.note(at(1), 2, 2);
        assert_eq!(descent.target(&Down::default(), at(60), at(299)), 9);
        assert_eq!(descent.target(&Down::default(), at(60), at(300)), 2);
    }

    #[test]
    fn what_was_made_for_what_waited_is_kept_for_less() {
        let mut descent = Descent::default();
        descent.begin(at(0), 1);
        descent.note(at(1), 20, 9);
        descent.note(at(50), 2, 2);
        let mut target = |beyond, now| descent.target(&Down::default(), at(beyond), at(now));
        assert_eq!([target(60, 60), target(60, 61), target(60, 300), target(60, 301)], [20, 9, 9, 2]);
        descent.note(at(400), 20, 9);
        descent.note(at(401), 2, 2);
        let brief = Down { window: at(30), ..Down::default() };
        assert_eq!(
            [429, 430].map(|now| descent.target(&brief, at(240), at(now))),
            [20, 2],
            "never beyond the window"
        );
    }
}
