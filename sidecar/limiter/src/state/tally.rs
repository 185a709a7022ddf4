//! What a limit has done.

use crate::Unit;

/// Counts of decisions; each only grows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    pub(crate) would_refuse: u64,
    pub(crate) delayed: u64,
    pub(crate) queued: u64,
    pub(crate) deprioritized: u64,
    pub(crate) exempt: u64,
    pub(crate) overflowed: u64,
    /// Refusals in which a unit was exceeded, in the order of units.
    refused_of: [u64; Unit::ALL.len()],
}

impl Tally {
    /// One more.
    pub(crate) fn add(count: &mut u64) {
        *count = count.saturating_add(1);
    }

    /// A refusal in which a unit was exceeded: of one more request, or one more unit of the same.
    pub(crate) fn add_refused(&mut self, unit: Unit, is_new: bool) {
        self.refused = self.refused.saturating_add(u64::from(is_new));
        if let Some(count) = self.refused_of.get_mut(unit as usize) {
            Self::add(count);
        }
    }

    pub(crate) fn refused_of(&self, unit: Unit) -> u64 {
        self.refused_of.get(unit as usize).copied().unwrap_or(0)
    }
}
