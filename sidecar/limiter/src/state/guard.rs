//! What a limit counts at one time.

use corral_wire::Action;

use super::{Exceeded, Moment, Seen};
use crate::{Unit, Usage, algo::concurrency::Guards, key::BucketKey, reserve::Held};

/// What is counted at one time.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) unit: Unit,
    pub(super) birth: u64,
    pub(super) counts: Guards,
    /// How much this pod allows.
    pub(crate) allowed: u64,
}

impl Guard {
    pub(crate) fn used(&self, key: BucketKey) -> u64 {
        self.counts.amount(key)
    }

    /// Whether what a request would add is more than there is room for. What is more than is ever allowed is let in
    /// when nothing else is held.
    pub(super) fn lacks(&self, key: BucketKey, usage: &Usage) -> bool {
        let asked = usage.permits(self.unit).min(self.allowed);
        self.used(key).saturating_add(asked) > self.allowed
    }

    pub(super) fn exceeded(&self, key: BucketKey, usage: &Usage) -> Exceeded {
        Exceeded {
            unit: self.unit,
            used: self.used(key),
            allowed: self.allowed,
            asked: usage.permits(self.unit),
            wait: None,
            birth: self.birth,
            bucket: key,
            overflowed: false,
        }
    }

    pub(super) fn held(&self, seen: &Seen, usage: &Usage) -> Held {
        let amount = usage.permits(self.unit);
        Held { place: seen.place, birth: self.birth, key: seen.key, unit: self.unit, amount, charge: None }
    }
}

/// Whether a guard is taken at a moment. A limit that queues counts what runs, so it is taken with the slot; one that
/// deprioritizes is asked once, with all of its numbers.
pub(super) fn is_due(action: Action, unit: Unit, moment: Moment) -> bool {
    match (unit, moment) {
        (Unit::Concurrency, Moment::Head) => action == Action::Reject,
        (Unit::Concurrency, Moment::Body { .. }) => action != Action::Queue,
        (Unit::Concurrency, Moment::Slot) => action == Action::Queue,
        (_, Moment::Body { waits }) => waits,
        (_, Moment::Head | Moment::Slot) => false,
    }
}
