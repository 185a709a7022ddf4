//! Down: to the most that was needed of late, in steps with time between them.
//!
//! What a load needs may be needed again, and is kept for the whole window. What was made beyond that, for what waited or
//! for a sudden rise, has nothing to do once that is served, and goes sooner; unless it was missed: then what it was made
//! for comes again and again, and it is kept for the window too.

use std::time::Duration;

use crate::Down;
use crate::extremes::Highest;

/// How many pods are needed at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// In all.
    pub(crate) all: u32,
    /// Without what waits and what is sudden.
    pub(crate) usual: u32,
}

/// What was needed of late, and when the last step was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Descent {
    all: Highest,
    usual: Highest,
    /// How large the pool was.
    sizes: Highest,
    /// When more than the usual was last needed.
    beyond: Option<Duration>,
    /// When that was last needed by a pool that had been larger within the window.
    missed: Option<Duration>,
    stepped: Option<Duration>,
}

impl Descent {
    /// Begins anew, where so many are all that is known to have been needed.
    pub(crate) fn begin(&mut self, now: Duration, needed: u32) {
        self.all.begin(now, needed);
        self.usual.begin(now, needed);
        self.sizes.begin(now, needed);
        (self.beyond, self.missed, self.stepped) = (None, None, None);
    }

    /// Takes what is needed now of a pool that has `current`.
    pub(crate) fn note(&mut self, down: &Down, need: Need, current: u32, now: Duration) {
        if need.all > need.usual {
            let had_more = need.all > current && self.sizes.over(down.window, now) > current;
            if had_more || is_within(self.missed, down.window, now) {
                self.missed = Some(now);
            }
            self.beyond = Some(now);
        }
        self.all.note(now, need.all);
        self.usual.note(now, need.usual);
        self.sizes.note(now, current);
    }

    /// The most that was needed within the window. What was beyond the usual counts for `beyond` after it was last needed.
    pub(crate) fn target(&mut self, down: &Down, beyond: Duration, now: Duration) -> u32 {
        let (all, usual) = (self.all.over(down.window, now), self.usual.over(down.window, now));
        let counts = is_within(self.beyond, beyond, now) || is_within(self.missed, down.window, now);
        if counts { all } else { usual }
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

fn is_within(at: Option<Duration>, length: Duration, now: Duration) -> bool {
    at.is_some_and(|at| now.saturating_sub(at) < length)
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

    fn note(descent: &mut Descent, second: u64, (all, usual): (u32, u32), current: u32) {
        descent.note(&Down::default(), Need { all, usual }, current, at(second));
    }

    /// What it is to shrink to at each of these seconds, where what was beyond the usual counts for a minute.
    fn targets<const N: usize>(descent: &mut Descent, seconds: [u64; N]) -> [u32; N] {
        seconds.map(|second| descent.target(&Down::default(), at(60), at(second)))
    }

    #[test]
    fn what_was_needed_within_the_window_counts() {
        let mut descent = Descent::default();
        descent.begin(at(0), 9);
        note(&mut descent, 1, (2, 2), 9);
        assert_eq!(targets(&mut descent, [1, 299, 300]), [9, 9, 2]);
    }

    #[test]
    fn what_was_made_for_what_waited_counts_for_a_while_after_none_does() {
        let mut descent = Descent::default();
        note(&mut descent, 0, (20, 9), 1);
        note(&mut descent, 100, (12, 9), 20);
        note(&mut descent, 102, (2, 2), 20);
        assert_eq!(targets(&mut descent, [102, 159, 160, 399, 400]), [20, 20, 9, 9, 2]);
    }

    #[test]
    fn what_was_missed_is_kept_for_the_window_for_as_long_as_it_is_needed_again() {
        let mut descent = Descent::default();
        note(&mut descent, 0, (20, 9), 1);
        note(&mut descent, 2, (2, 2), 20);
        assert_eq!(targets(&mut descent, [60]), [9]);
        note(&mut descent, 120, (20, 9), 9);
        note(&mut descent, 122, (2, 2), 20);
        assert_eq!(targets(&mut descent, [200, 400]), [20, 20]);
        note(&mut descent, 410, (21, 9), 20);
        note(&mut descent, 412, (2, 2), 21);
        assert_eq!(targets(&mut descent, [709, 710]), [21, 2]);
    }

    #[test]
    fn nothing_counts_for_longer_than_the_window() {
        let (mut descent, brief) = (Descent::default(), Down { window: at(30), ..Down::default() });
        descent.note(&brief, Need { all: 20, usual: 9 }, 1, at(0));
        descent.note(&brief, Need { all: 2, usual: 2 }, 20, at(2));
        let targets = [29, 30].map(|second| descent.target(&brief, at(240), at(second)));
        assert_eq!(targets, [20, 2]);
    }
}
