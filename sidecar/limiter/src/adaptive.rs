//! How much of its numbers a limit that adapts itself has left, by the signs of how Ollama fares.
//!
//! AIMD (Chiu and Jain, 1989), as TCP has it, with an increase by a part instead of a fixed step. Trouble halves it, once
//! an epoch however often it is told; each 30 s without trouble raises it by a tenth, so that it is back from the half
//! after 8 steps. It never leaves the range from its least part to the whole: limits adapt downwards from what the
//! policy says, and back. Without samples nothing changes: who has none does not call [`Aimd::tick`], and the time
//! without is not made up for.

use crate::Nanos;

/// The whole, in thousandths.
const WHOLE: u32 = 1000;
/// How long there must be no trouble before each step up.
const QUIET: Nanos = Nanos::from_secs(30);

/// The part of its numbers that a limit has, in thousandths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aimd {
    least: u32,
    milli: u32,
    /// The latest cut.
    cut: Option<Nanos>,
    /// The latest trouble or step up.
    last: Nanos,
}

impl Aimd {
    /// At the whole, and never below `min_milli`, which counts as 1 to 1000.
    pub fn new(min_milli: u32) -> Self {
        Self { least: min_milli.clamp(1, WHOLE), milli: WHOLE, cut: None, last: Nanos::ZERO }
    }

    /// Something went wrong: halves it, unless the last cut is less than `epoch` ago, and in any case puts off the next
    /// step up. Says whether it changed.
    pub fn trouble(&mut self, now: Nanos, epoch: Nanos) -> bool {
        self.last = now;
        if self.cut.is_some_and(|cut| now.since(cut) < epoch) {
            return false;
        }
        self.cut = Some(now);
        self.change((self.milli / 2).max(self.least))
    }

    /// Samples say that all is well: one step up if there was neither trouble nor a step for 30 s. Says whether it
    /// changed.
    pub fn tick(&mut self, now: Nanos) -> bool {
        if self.milli == WHOLE || now.since(self.last) < QUIET {
            return false;
        }
        self.last = now;
        self.change(self.milli.saturating_mul(11).div_ceil(10).min(WHOLE))
    }

    /// Goes on with another least part: at once where it is below that.
    pub fn set_least(&mut self, min_milli: u32) -> bool {
        self.least = min_milli.clamp(1, WHOLE);
        self.change(self.milli.max(self.least))
    }

    /// The part that is left, in thousandths: `min_milli` to 1000.
    pub fn milli(&self) -> u32 {
        self.milli
    }

    fn change(&mut self, to: u32) -> bool {
        let changed = to != self.milli;
        self.milli = to;
        changed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: Nanos = Nanos::from_secs(1);

    fn at(seconds: u64) -> Nanos {
        Nanos::from_secs(seconds)
    }

    #[test]
    fn ten_troubles_at_once_cut_once() {
        let mut part = Aimd::new(100);
        assert!(part.trouble(at(100), EPOCH));
        assert!((0..9).all(|_| !part.trouble(at(100), EPOCH)));
        assert_eq!(part.milli(), 500);
        assert!(part.trouble(at(101), EPOCH));
        assert_eq!(part.milli(), 250);
    }

    #[test]
    fn it_comes_back_from_the_half_in_eight_steps_of_thirty_seconds() {
        let mut part = Aimd::new(1);
        part.trouble(at(0), EPOCH);
        assert!(!part.tick(Nanos(at(30).0 - 1)));
        let steps: Vec<_> = (1..=9).map(|step| (part.tick(at(30 * step)), part.milli())).collect();
        let milli: Vec<_> = steps.iter().map(|(_, milli)| *milli).collect();
        assert_eq!(milli, [550, 605, 666, 733, 807, 888, 977, 1000, 1000]);
        assert!(!steps[8].0);
    }

    #[test]
    fn trouble_within_an_epoch_still_puts_off_the_next_step() {
        let mut part = Aimd::new(1);
        part.trouble(at(0), at(60));
        part.trouble(at(20), at(60));
        assert!(!part.tick(at(30)));
        assert!(part.tick(at(50)));
    }

    #[test]
    fn time_without_samples_is_not_made_up_for() {
        let mut part = Aimd::new(1);
        part.trouble(at(0), EPOCH);
        part.tick(at(3600));
        assert_eq!(part.milli(), 550);
        assert!(!part.tick(at(3601)));
    }

    #[test]
    fn the_least_part_of_one_thousandth_still_grows() {
        let mut part = Aimd::new(0);
        (0..20).for_each(|second| {
            part.trouble(at(second), EPOCH);
        });
        assert_eq!(part.milli(), 1);
        assert!(part.tick(at(60)));
        assert_eq!(part.milli(), 2);
    }

    #[test]
    fn a_larger_least_part_acts_at_once() {
        let mut part = Aimd::new(1);
        part.trouble(at(0), EPOCH);
        assert!(part.set_least(700));
        assert_eq!(part.milli(), 700);
    }

    proptest! {
        #[test]
        fn it_stays_in_its_range_and_only_trouble_lowers_it_by_at_most_half(
            least in 0..2000u32, acts in prop::collection::vec((0..100u64, any::<bool>()), 1..200),
        ) {
            let mut part = Aimd::new(least);
            let mut now = 0;
            for (after, is_trouble) in acts {
                now += after;
                let before = part.milli();
                let changed = if is_trouble { part.trouble(at(now), EPOCH) } else { part.tick(at(now)) };
                let milli = part.milli();
                prop_assert_eq!(changed, milli != before);
                prop_assert!((least.clamp(1, 1000)..=1000).contains(&milli));
                let expected = if is_trouble { before / 2..=before } else { before..=before + before / 10 + 1 };
                prop_assert!(expected.contains(&milli));
            }
        }

        #[test]
        fn no_two_steps_up_come_within_thirty_seconds(ticks in prop::collection::vec(0..20u64, 1..100)) {
            let mut part = Aimd::new(1);
            part.trouble(at(0), EPOCH);
            let (mut now, mut last) = (0, 0);
            for after in ticks {
                now += after;
                if part.tick(at(now)) {
                    prop_assert!(now >= last + 30);
                    last = now;
                }
            }
        }
    }
}
