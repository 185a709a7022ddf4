//! What a request asks of the queue.

use corral_limiter::queue::{Band, Due, FlowKey, Priority, Runner, Wish};
use corral_limiter::{Nanos, Place as Claim, Terms};
use corral_wire::CostModel;

/// What a request asks of the queue, but for what its limits and its client have to say.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    /// A slot of this.
    pub(crate) runner: Runner,
    /// What it will probably cost, by the pool's cost model.
    pub(crate) cost: u64,
    /// That cost model: what it really costs is told in the same.
    pub(crate) cost_model: CostModel,
    /// For how long it will probably hold its slot, whatever the cost model.
    pub(crate) slot_time: Nanos,
    /// Bytes of its body.
    pub(crate) bytes: u64,
    /// When its client gives up, if it says so.
    pub(crate) due: Option<Due>,
    /// It says that it asks once more for what was refused before.
    pub(crate) is_retry: bool,
}

/// A claim of somebody of whom nothing is known.
pub(super) const NO_CLAIM: Claim = Claim { flow: FlowKey(0), weight: 1, priority: Priority::Medium };

impl Want {
    /// The same with the claim of its client, on the terms on which its limits let it in.
    pub(super) fn wish(&self, claim: Claim, terms: &Terms) -> Wish<'_> {
        Wish {
            runner: &self.runner,
            flow: claim.flow,
            weight: claim.weight,
            priority: priority(claim, terms),
            cost: self.cost,
            bytes: self.bytes,
            is_pending: terms.asks_again_for.is_some(),
            max_wait: terms.asks_again_for,
            due: self.due,
        }
    }
}

/// In which band it is served.
pub(super) fn band(claim: Claim, terms: &Terms) -> Band {
    priority(claim, terms).band()
}

fn priority(claim: Claim, terms: &Terms) -> Priority {
    if terms.is_deprioritized { Priority::Spare } else { claim.priority }
}
