//! What limits have done, for metrics.

use std::sync::Arc;

use corral_wire::Mode;

use super::Limiter;
use crate::{Limit, LimitInfo, Unit, state::LimitState};

/// What one limit has done since it came into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStats {
    /// Which.
    pub limit: Arc<LimitInfo>,
    /// Whether it refuses or only counts.
    pub mode: Mode,
    /// Requests that it counted and that were admitted as a whole.
    pub admitted: u64,
    /// Requests refused in which it was exceeded; 0 for a shadow limit.
    pub refused: u64,
    /// Requests admitted that it, a shadow limit, would have refused.
    pub would_refuse: u64,
    /// Requests that it told to start later.
    pub delayed: u64,
    /// Requests that it made wait in the queue, for it would not have let them start when they came.
    pub queued: u64,
    /// Requests that it let run only when nobody else wanted the slot; it did not count them.
    pub deprioritized: u64,
    /// Requests admitted that it would have counted, were their clients not exempt.
    pub exempt: u64,
    /// Charges to an overflow bucket, which several clients share.
    pub overflowed: u64,
    /// Buckets and counts of what is there at one time, kept now.
    pub keys: usize,
    /// What is in force of its numbers, in thousandths: 1000 but for an adaptive limit.
    pub adaptive_milli: u32,
    /// The same by unit, where that makes sense.
    pub units: Vec<UnitStats>,
}

/// What one unit of a limit has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitStats {
    /// Which.
    pub unit: Unit,
    /// Requests refused in which this was exceeded.
    pub refused: u64,
}

impl Limiter {
    /// What each limit in force has done, in the order of the plan.
    pub fn stats(&self) -> Vec<LimitStats> {
        let limits = self.plan.iter().flat_map(|plan| plan.limits());
        limits.zip(&self.states).map(|(limit, state)| stats(limit, state)).collect()
    }
}

fn stats(limit: &Limit, state: &LimitState) -> LimitStats {
    let tally = &state.tally;
    let info = limit.info();
    let units = info.units().map(|unit| UnitStats { unit, refused: tally.refused_of(unit) });
    LimitStats {
        limit: info.clone(),
        mode: limit.mode(),
        admitted: tally.admitted,
        refused: tally.refused,
        would_refuse: tally.would_refuse,
        delayed: tally.delayed,
        queued: tally.queued,
        deprioritized: tally.deprioritized,
        exempt: tally.exempt,
        overflowed: tally.overflowed,
        keys: state.keys(),
        adaptive_milli: state.adaptive_milli(),
        units: units.collect(),
    }
}
