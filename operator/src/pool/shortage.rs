//! How many pods of a pool are missing for want of a node, and not for a moment only.
//!
//! In a rollout that fills every GPU a new pod finds no room until an old one has gone, and some seconds longer until the
//! scheduler tries again. Were it counted as missing at once, the rollout could take the next old pod too, and so on until
//! nobody serves. So a shortage counts once it has lasted: what counts is the least that was seen over [`WINDOW`].

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use corral_wire::PoolRef;
use parking_lot::Mutex;

/// Above the 10 s after which the scheduler tries a pod again at the latest.
pub const WINDOW: Duration = Duration::from_secs(15);

/// The shortages of all pools, as this leader has seen them. What was before its time counts as none.
#[derive(Debug, Default)]
pub struct Shortages(Mutex<HashMap<PoolRef, Shortage>>);

/// What was seen: when, and how many. Each is more than the one before, so there are few.
#[derive(Debug)]
struct Shortage(VecDeque<(Duration, u32)>);

impl Shortages {
    /// Takes how many pods of a pool are short now, and gives how many have been for all of the window.
    pub fn lasting(&self, pool: &PoolRef, short: u32, now: Duration) -> u32 {
        let mut all = self.0.lock();
        all.entry(pool.clone()).or_insert_with(|| Shortage::unknown(now)).take(short, now)
    }

    /// When more may count than now, if nothing else happens.
    pub fn look_again(&self, pool: &PoolRef, now: Duration) -> Option<Duration> {
        let (since, _) = *self.0.lock().get(pool)?.0.get(1)?;
        Some((since + WINDOW).saturating_sub(now))
    }

    /// Drops what is known of pools that are gone.
    pub fn retain(&self, keep: impl Fn(&PoolRef) -> bool) {
        self.0.lock().retain(|pool, _| keep(pool));
    }
}

impl Shortage {
    fn unknown(now: Duration) -> Self {
        Self(VecDeque::from([(now, 0)]))
    }

    fn take(&mut self, short: u32, now: Duration) -> u32 {
        // What was more than now no longer matters: the least counts.
        while self.0.back().is_some_and(|(_, more)| *more > short) {
            self.0.pop_back();
        }
        if self.0.back().is_none_or(|(_, less)| *less < short) {
            self.0.push_back((now, short));
        }
        while self.0.get(1).is_some_and(|(since, _)| *since + WINDOW <= now) {
            self.0.pop_front();
        }
        self.0.front().map_or(0, |(_, least)| *least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> PoolRef {
        PoolRef { namespace: "llm".to_owned(), name: "chat".to_owned() }
    }

    /// What counts at the last of these seconds, with what was short at each.
    fn counted(seen: &[(u64, u32)]) -> u32 {
        let shortages = Shortages::default();
        seen.iter()
            .map(|(at, short)| shortages.lasting(&pool(), *short, Duration::from_secs(*at)))
            .last()
            .unwrap()
    }

    #[test]
    fn a_pod_counts_once_it_was_missing_for_all_of_the_window() {
        assert_eq!(counted(&[(0, 1)]), 0);
        assert_eq!(counted(&[(0, 1), (14, 1)]), 0);
        assert_eq!(counted(&[(0, 1), (15, 1)]), 1);
        assert_eq!(counted(&[(0, 0), (100, 2), (114, 2)]), 0);
        assert_eq!(counted(&[(0, 0), (100, 2), (115, 2)]), 2);
    }

    #[test]
    fn one_that_found_room_in_between_begins_anew() {
        assert_eq!(counted(&[(0, 1), (10, 0), (12, 1), (20, 1)]), 0);
        assert_eq!(counted(&[(0, 1), (10, 0), (12, 1), (27, 1)]), 1);
    }

    #[test]
    fn more_for_a_moment_leaves_what_lasts_as_it_is() {
        assert_eq!(counted(&[(0, 1), (20, 1), (30, 2)]), 1);
        assert_eq!(counted(&[(0, 1), (20, 1), (30, 2), (31, 1), (60, 1)]), 1);
        assert_eq!(counted(&[(0, 1), (20, 1), (30, 2), (45, 2)]), 2);
        assert_eq!(counted(&[(0, 2), (20, 2), (21, 0)]), 0, "less counts at once");
    }

    #[test]
    fn it_says_when_to_look_again() {
        let (shortages, at) = (Shortages::default(), Duration::from_secs);
        assert_eq!(shortages.look_again(&pool(), at(0)), None);
        shortages.lasting(&pool(), 0, at(0));
        assert_eq!(shortages.look_again(&pool(), at(1)), None);
        shortages.lasting(&pool(), 1, at(5));
        assert_eq!(shortages.look_again(&pool(), at(8)), Some(at(12)));
        shortages.lasting(&pool(), 1, at(20));
        assert_eq!(shortages.look_again(&pool(), at(20)), None);
        shortages.retain(|_| false);
        assert_eq!(shortages.lasting(&pool(), 1, at(40)), 0);
    }
}
