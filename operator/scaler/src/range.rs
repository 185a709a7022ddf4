//! Whether the owner's range keeps a pool from the size that it needs.
//!
//! What is needed goes up and down by chance. So a bound holds from when what is needed is beyond it for sure, until what is
//! needed has been within it for a while.

use std::time::Duration;

use crate::extremes::{Highest, Lowest};
use crate::size::Needs;
use crate::{Config, Limited};

/// For so long what is needed must be on one side of a bound, where it is not clear of chance.
const LASTING: Duration = Duration::from_mins(2);

/// What was needed of late, whatever is allowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Range {
    lowest: Lowest,
    highest: Highest,
    held_down: bool,
    held_up: bool,
}

impl Range {
    /// What holds the pool now, if anything does.
    pub(crate) fn look(&mut self, config: &Config, needs: &Needs, now: Duration) -> Option<Limited> {
        self.lowest.note(now, needs.now);
        self.highest.note(now, needs.now.max(needs.clear));
        let surely = needs.clear.max(self.lowest.over(LASTING, now));
        let at_most = self.highest.over(LASTING, now);
        let (least, most) = (config.min.min(config.max), config.max);
        self.held_down = surely > most || (self.held_down && at_most > most);
        // That there is one pod without any work is no limit of the owner's.
        self.held_up = at_most.max(1) < least || (self.held_up && surely.max(1) < least);
        if self.held_down {
            return Some(Limited::TooManyReplicas);
        }
        self.held_up.then_some(Limited::TooFewReplicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(config: &Config, needed: &[(u64, u32, u32)]) -> Vec<Option<Limited>> {
        let mut range = Range::default();
        let look = |(second, now, clear): &(u64, u32, u32)| {
            let needs = Needs { now: *now, clear: *clear, ..Needs::default() };
            range.look(config, &needs, Duration::from_secs(*second))
        };
        needed.iter().map(look).collect()
    }

    const MANY: Option<Limited> = Some(Limited::TooManyReplicas);
    const FEW: Option<Limited> = Some(Limited::TooFewReplicas);

    #[test]
    fn more_than_is_allowed_for_sure_is_told_at_once_and_until_it_has_been_less_for_long() {
        let config = Config { min: 1, max: 4, ..Config::default() };
        let seen = [(0, 4, 3), (2, 9, 7), (4, 4, 3), (123, 4, 3), (124, 4, 3)];
        assert_eq!(looks(&config, &seen), [None, MANY, MANY, None, None]);
    }

    #[test]
    fn what_goes_up_and_down_about_a_bound_is_told_once_at_most() {
        let config = Config { min: 3, max: 4, ..Config::default() };
        let about =
            |low: u32| -> Vec<_> { (0..900).map(|n| (2 * n, low + (n % 3 / 2) as u32, low)).collect() };
        for low in [2, 4] {
            let told = looks(&config, &about(low));
            let flips = told.windows(2).filter(|pair| matches!(pair, [a, b] if a != b)).count();
            assert!(flips <= 1, "{flips} about {low}");
        }
    }

    #[test]
    fn fewer_than_the_least_is_told_until_as_many_are_needed() {
        let config = Config { min: 3, max: 9, ..Config::default() };
        let seen = [(0, 2, 2), (60, 3, 2), (62, 3, 3), (64, 2, 2), (183, 2, 2), (184, 2, 2)];
        assert_eq!(looks(&config, &seen), [FEW, FEW, None, None, FEW, FEW]);
        let one = Config { min: 1, ..config };
        assert_eq!(looks(&one, &[(0, 0, 0)]), [None], "one pod is no limit");
    }
}
