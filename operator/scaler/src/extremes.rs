//! The highest and the lowest of a number over the last while.
//!
//! Only what can still become the answer is kept, so each holds at most one entry for each value that was seen.

use std::collections::VecDeque;
use std::time::Duration;

/// The highest of the numbers noted within a window.
#[derive(Debug, Clone, Default)]
pub(crate) struct Highest(VecDeque<(Duration, u32)>);

impl Highest {
    /// Forgets all but this.
    pub(crate) fn begin(&mut self, now: Duration, value: u32) {
        self.0.clear();
        self.0.push_back((now, value));
    }

    pub(crate) fn note(&mut self, now: Duration, value: u32) {
        while self.0.back().is_some_and(|(_, earlier)| *earlier <= value) {
            self.0.pop_back();
        }
        self.0.push_back((now, value));
    }

    /// The highest of what was noted less than `window` ago, and of the latest note.
    pub(crate) fn over(&mut self, window: Duration, now: Duration) -> u32 {
        while self.0.len() > 1 && self.0.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= window) {
            self.0.pop_front();
        }
        self.0.front().map_or(0, |(_, value)| *value)
    }
}

/// The lowest that a number has been for all of a window.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lowest {
    since: Option<Duration>,
    /// Values with when each was followed by another; the latest holds on.
    values: VecDeque<(u32, Option<Duration>)>,
}

impl Lowest {
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Takes the number as it is from now on.
    pub(crate) fn note(&mut self, now: Duration, value: u32) {
        self.since.get_or_insert(now);
        if let Some((_, end)) = self.values.back_mut() {
            *end = Some(now);
        }
        while self.values.back().is_some_and(|(earlier, _)| *earlier >= value) {
            self.values.pop_back();
        }
        self.values.push_back((value, None));
    }

    /// The least that it has been since `window` ago; 0 where it has not been known for so long.
    pub(crate) fn over(&mut self, window: Duration, now: Duration) -> u32 {
        let is_before = |at: Duration| now.saturating_sub(at) >= window;
        while self.values.front().is_some_and(|(_, end)| end.is_some_and(is_before)) {
            self.values.pop_front();
        }
        if !self.since.is_some_and(is_before) {
            return 0;
        }
        self.values.front().map_or(0, |(value, _)| *value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_mins(1);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lowest(notes: &[(u64, u32)], now: u64) -> u32 {
        let mut lowest = Lowest::default();
        for (second, value) in notes {
            lowest.note(at(*second), *value);
        }
        lowest.over(WINDOW, at(now))
    }

    #[test]
    fn the_lowest_counts_once_it_is_known_for_all_of_the_window() {
        assert_eq!(lowest(&[(0, 5)], 59), 0);
        assert_eq!(lowest(&[(0, 5)], 60), 5);
        assert_eq!(lowest(&[(0, 5), (30, 9)], 89), 5);
        assert_eq!(lowest(&[(0, 5), (30, 9)], 90), 9);
        assert_eq!(lowest(&[(0, 5), (30, 9), (31, 2)], 60), 2);
        assert_eq!(lowest(&[(0, 9), (10, 5), (59, 7)], 61), 5);
        assert_eq!(lowest(&[], 60), 0);
    }

    proptest! {
        #[test]
        fn the_highest_is_what_a_list_of_all_would_say(
            notes in prop::collection::vec((0..40u64, 0..9u32), 1..60), window in 0..120u64,
        ) {
            let (mut highest, mut all, mut now) = (Highest::default(), Vec::new(), 0);
            for (after, value) in notes {
                now += after;
                highest.note(at(now), value);
                all.push((now, value));
                let within = all.iter().filter(|(then, _)| now - then < window).map(|(_, value)| *value);
                prop_assert_eq!(highest.over(at(window), at(now)), within.chain([value]).max().unwrap());
                prop_assert!(highest.0.len() <= 9);
            }
        }

        #[test]
        fn the_lowest_is_what_a_list_of_all_would_say(notes in prop::collection::vec((0..40u64, 0..9u32), 1..60)) {
            let (mut lowest, mut all, mut now) = (Lowest::default(), Vec::<(u64, u32)>::new(), 0);
            for (after, value) in notes {
                now += after;
                lowest.note(at(now), value);
                all.push((now, value));
                // A value holds until the next.
                let ends = all.iter().skip(1).map(|(end, _)| *end).chain([u64::MAX]);
                let held = all.iter().zip(ends).filter(|(_, end)| now < 60 || *end > now - 60);
                let known = all[0].0 + 60 <= now;
                let least = held.map(|((_, value), _)| *value).min().filter(|_| known);
                prop_assert_eq!(lowest.over(WINDOW, at(now)), least.unwrap_or(0));
                prop_assert!(lowest.values.len() <= 9);
            }
        }
    }
}
