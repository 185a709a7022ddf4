//! What a drain still has to do, as pods tell it: told often, and yet the same as long as nothing happens.

use std::time::Duration;

use corral_wire::Report;

/// The most pods of a pool that are named with what they drain, or have off the GPU.
pub const MOST_NAMED: usize = 16;
/// By how much the end of a drain must differ from what was told before: less is the way that a report took.
const SLACK: Duration = Duration::from_secs(2);

/// A pod that drains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draining {
    /// Its name.
    pub pod: String,
    /// Requests that run or wait there.
    pub requests: u32,
    /// When the drain ends at the latest, on the exchange's clock.
    pub until: Duration,
}

/// When a drain ends by a report heard at `now`, given what was told `before`; none without a drain that has an end.
pub(super) fn until(before: Option<Duration>, now: Duration, report: &Report) -> Option<Duration> {
    if !report.draining {
        return None;
    }
    let end = now.saturating_add(Duration::from_millis(report.drain_left_ms?));
    Some(before.filter(|before| before.abs_diff(end) < SLACK).unwrap_or(end))
}

/// Requests that run or wait.
pub(super) fn requests(report: &Report) -> u32 {
    report.gauges.in_flight.saturating_add(report.gauges.queued)
}

#[cfg(test)]
mod tests {
    use corral_wire::{Counters, Gauges, PoolRef, Relief, ServePermission};

    use super::*;

    fn report(draining: bool, drain_left_ms: Option<u64>) -> Report {
        Report {
            pool: PoolRef { namespace: "llm".into(), name: "chat".into() },
            plan_versions: vec![1],
            plan: None,
            plan_error: None,
            divisor: 1,
            serve: ServePermission::Granted,
            able_to_serve: true,
            ready: true,
            reason: String::new(),
            relief: Relief::Unneeded,
            retiring: false,
            draining,
            drain_left_ms,
            off_gpu: Vec::new(),
            models: Vec::new(),
            epoch: 1,
            counters: Counters::default(),
            gauges: Gauges { in_flight: 2, queued: 1, ..Gauges::default() },
        }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_way_that_a_report_took_does_not_move_the_end_of_a_drain() {
        let first = until(None, at(1000), &report(true, Some(300_000)));
        assert_eq!(first, Some(at(301_000)));
        assert_eq!(until(first, at(3400), &report(true, Some(298_000))), first);
        assert_eq!(until(first, at(3400), &report(true, Some(200_000))), Some(at(203_400)));
    }

    #[test]
    fn without_a_drain_there_is_no_end_of_one() {
        assert_eq!(until(None, at(0), &report(false, None)), None);
        assert_eq!(until(Some(at(9)), at(0), &report(false, Some(5))), None);
        assert_eq!(until(Some(at(9)), at(0), &report(true, None)), None);
    }

    #[test]
    fn what_waits_is_drained_as_well_as_what_runs() {
        assert_eq!(requests(&report(true, None)), 3);
    }
}
