//! What the pods of a pool have to do, summed. Pure.

use std::time::Duration;

use corral_wire::{Counters, Report};

/// A pool is in use for so long after its last request: longer than those who look now and then leave between two looks.
pub const RECENT: Duration = Duration::from_mins(1);

/// What the pods of a pool have to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolLoad {
    /// Requests that wait for a slot, as pods said within the last 10 s; those that end are asked too.
    pub queued: u32,
    /// Requests that hold a slot, by the same word.
    pub in_flight: u32,
    /// Pods that are ready, by Kubernetes' word.
    pub ready: u32,
    /// Those of them that said nothing within the last 10 s.
    pub silent: u32,
    /// Whether requests came within the last minute.
    pub recent: bool,
}

impl PoolLoad {
    /// Counts a pod in: whether Kubernetes calls it ready, and what it said last, unless that is long ago.
    pub(super) fn and(self, ready: bool, said: Option<&Report>) -> Self {
        let gauges = said.map(|report| report.gauges).unwrap_or_default();
        let is = u32::from;
        Self {
            queued: self.queued.saturating_add(gauges.queued),
            in_flight: self.in_flight.saturating_add(gauges.in_flight),
            ready: self.ready.saturating_add(is(ready)),
            silent: self.silent.saturating_add(is(ready && said.is_none())),
            recent: self.recent,
        }
    }
}

/// Whether requests came between two reports of a pod. What limits refuse is no use of the pool; of a life that was not heard of
/// before all counts as new.
pub(super) fn came(before: Option<&Report>, now: &Report) -> bool {
    let known = before.filter(|before| before.epoch == now.epoch);
    taken(&now.counters) > known.map_or(0, |before| taken(&before.counters))
}

fn taken(counters: &Counters) -> u64 {
    counters.arrivals.saturating_sub(counters.policy_rejects)
}
