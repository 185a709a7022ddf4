//! N: how many pods a load needs, by work or by a plain target.
//!
//! Work is what keeps slots busy: the rate times the time that a request holds a slot. What waits is worked off within T,
//! a part of the time that a pod takes to start, on top of what comes meanwhile; it is not taken for a load that lasts.
//! So after a sudden rise the pool is above what it will need by the factor (1 + L/T) at most, however long pods take to
//! start, and however short answers are. A request that takes longer than T is served by one slot all the same.

use std::time::Duration;

use crate::counters::count;
use crate::{Preset, Sizing};

/// What waits is never to be worked off in less, in seconds.
const SHORTEST_DRAIN: f64 = 30.0;

/// T, in seconds, with pods that take so long to start.
pub(crate) fn drain_seconds(preset: Preset, startup: f64) -> f64 {
    (preset.part() * startup).max(SHORTEST_DRAIN)
}

/// By what work is turned into pods.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// S, in seconds.
    pub(crate) service: f64,
    /// P.
    pub(crate) slots: f64,
    /// ρ, above 0.
    pub(crate) utilization: f64,
    /// T, in seconds.
    pub(crate) drain: f64,
    /// Q.
    pub(crate) backlog: f64,
}

impl Work {
    /// How many pods it takes with so many new requests a second.
    pub(crate) fn pods(&self, rate: f64) -> u32 {
        self.pods_for(rate * self.service)
    }

    /// How many pods it takes with so many slots busy with what comes.
    pub(crate) fn pods_for(&self, busy: f64) -> u32 {
        ceil(self.steady(busy).max(self.with_backlog(busy)))
    }

    /// Whether what waits asks for more pods than what comes.
    pub(crate) fn is_backlog(&self, rate: f64) -> bool {
        let busy = rate * self.service;
        ceil(self.with_backlog(busy)) > ceil(self.steady(busy))
    }

    fn steady(&self, busy: f64) -> f64 {
        busy / (self.slots * self.utilization)
    }

    fn with_backlog(&self, busy: f64) -> f64 {
        (busy + self.backlog * (self.service / self.drain).min(1.0)) / self.slots
    }
}

/// What plain targets look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) ready: u32,
    pub(crate) backlog: u64,
    pub(crate) in_flight: u64,
    pub(crate) oldest_wait_ms: u64,
    pub(crate) tokens_per_second: f64,
}

impl Totals {
    /// How many pods a plain target makes of it; none where the pool is sized by work.
    pub(crate) fn pods(&self, sizing: Sizing) -> Option<u32> {
        let each = |total: f64, target: u32| ceil(total / f64::from(target.max(1)));
        Some(match sizing {
            Sizing::Work { .. } => return None,
            Sizing::QueuePerReplica(target) => each(count(self.backlog), target),
            Sizing::InFlightPerReplica(target) => {
                each(count(self.backlog.saturating_add(self.in_flight)), target)
            }
            Sizing::TokensPerSecond(target) => each(self.tokens_per_second, target),
            Sizing::OldestWait(target) => self.by_wait(target),
        })
    }

    /// The pods that are ready, times how far the wait is from its target. Those that start have not helped yet, so they
    /// are not multiplied too, and one step is no more than double, or four.
    fn by_wait(&self, target: Duration) -> u32 {
        let ratio = count(self.oldest_wait_ms) / (target.as_secs_f64() * 1000.0).max(1.0);
        let ready = self.ready.max(1);
        let most = ready.saturating_mul(2).max(ready.saturating_add(4));
        ceil(f64::from(ready) * ratio).min(most)
    }
}

/// Whole pods. What is above by less than a billionth is an error of reckoning.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` stays within the bounds")]
fn ceil(pods: f64) -> u32 {
    (pods - 1e-9).ceil() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORK: Work = Work { service: 8.0, slots: 4.0, utilization: 0.75, drain: 60.0, backlog: 0.0 };

    #[test]
    fn steady_load_leaves_slots_free() {
        assert_eq!(WORK.pods(40.0), 107);
        assert_eq!(WORK.pods(0.375), 1);
        assert_eq!(WORK.pods(0.376), 2);
        assert_eq!(WORK.pods(0.0), 0);
    }

    #[test]
    fn what_waits_is_worked_off_in_its_time() {
        let waiting = |backlog| Work { backlog, ..WORK };
        assert_eq!(waiting(600.0).pods(0.0), 20);
        assert_eq!(waiting(600.0).pods(2.0), 24);
        assert!(waiting(600.0).is_backlog(2.0) && !waiting(20.0).is_backlog(2.0));
        assert_eq!(waiting(20.0).pods(2.0), 6, "the slack of the steady load does for a little");
    }

    #[test]
    fn a_request_longer_than_the_time_to_drain_takes_one_slot() {
        let long = Work { service: 600.0, backlog: 8.0, ..WORK };
        assert_eq!(long.pods(0.0), 2);
    }

    #[test]
    fn what_waits_after_a_start_makes_at_most_its_bound() {
        // All of what came while pods started waits: λL requests. The bound is ρ(1 + L/T) of the steady need.
        for (startup, preset, most) in
            [(60.0, Preset::Economy, 1.5), (240.0, Preset::Balanced, 2.25), (240.0, Preset::Fast, 3.75)]
        {
            let drain = drain_seconds(preset, startup);
            let work = Work { backlog: 40.0 * startup, drain, ..WORK };
            assert!(f64::from(work.pods(40.0)) <= most * 107.0 + 1.0, "{preset:?}: {}", work.pods(40.0));
        }
    }

    #[test]
    fn plain_targets_divide() {
        let totals =
            Totals { ready: 3, backlog: 21, in_flight: 12, oldest_wait_ms: 20_000, tokens_per_second: 101.0 };
        assert_eq!(totals.pods(Sizing::QueuePerReplica(5)), Some(5));
        assert_eq!(totals.pods(Sizing::InFlightPerReplica(5)), Some(7));
        assert_eq!(totals.pods(Sizing::TokensPerSecond(50)), Some(3));
        assert_eq!(totals.pods(Sizing::OldestWait(Duration::from_secs(10))), Some(6));
        assert_eq!(totals.pods(Sizing::OldestWait(Duration::from_secs(30))), Some(2));
        assert_eq!(totals.pods(Sizing::default()), None);
    }

    #[test]
    fn a_wait_does_not_multiply_pods_that_start() {
        let totals = |ready| Totals {
            ready,
            backlog: 9,
            in_flight: 4,
            oldest_wait_ms: 3_600_000,
            tokens_per_second: 0.0,
        };
        let pods = |ready| totals(ready).pods(Sizing::OldestWait(Duration::from_secs(1)));
        assert_eq!((pods(0), pods(1), pods(10)), (Some(5), Some(5), Some(20)));
    }

    proptest! {
        #[test]
        fn more_load_never_needs_fewer_pods(
            service in 0.001..3600.0f64, slots in 1..64u32, backlog in 0..10_000u32,
            rate in 0.0..1e6f64, more in 1.0..9.0f64,
        ) {
            let work = Work { service, slots: f64::from(slots), backlog: f64::from(backlog), ..WORK };
            let pods = work.pods(rate);
            let waiting = Work { backlog: work.backlog * more, ..work };
            let larger = Work { slots: work.slots * more, ..work };
            prop_assert!(work.pods(rate * more) >= pods && waiting.pods(rate) >= pods && larger.pods(rate) <= pods);
        }
    }
}
