//! From the head of a request to a slot of Ollama, and back: what a request holds while it lives.
//!
//! Each step is a value that gives back what it holds when it is dropped, so a client may leave at any moment:
//!
//! ```text
//! Entered ── pass ──▶ Passed (metadata)
//!    └────── queue ─▶ Place ── slot().await ─▶ Permit (a slot of Ollama)
//! ```
//!
//! Slots are handed over, not signalled: whoever gives one back picks the next under the same lock, so no slot is
//! ever free while somebody waits for it, and none is given to a client that has gone. A limit may let a request in only
//! later (it books its place now), only where nobody else wants the slot, or ask to be asked again once a slot is there.

mod charge;
mod hall;
mod place;

use std::sync::Arc;

use corral_limiter::fifo::QueueRefusal;
use corral_limiter::{BodyFacts, CommitError, HeadFacts, ModelName, Nanos, Oversized, Refusal, Usage};
use tokio::time::sleep_until;

use self::charge::Charge;
use self::hall::Arrived;
pub(crate) use self::hall::{Hall, recall};
pub(crate) use self::place::{Permit, Place};
use crate::core::Core;

/// Why a request gets no slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Limits are exceeded.
    Limit(Refusal),
    /// A limit will never admit it.
    Oversized(Oversized),
    /// The queue is full, or would take too long.
    Queue(QueueRefusal),
    /// It waited as long as it may.
    TimedOut {
        /// How long that was.
        waited: Nanos,
        /// How long it would wait if it came again now, by what was learned of its model; as long as it did, where
        /// nothing was. An estimate.
        estimated_wait: Nanos,
    },
}

/// A request whose head has passed. Dropped: it left.
pub(crate) struct Entered {
    charge: Charge,
}

impl Entered {
    /// Takes the guards that the head decides, and looks at its rates.
    pub(crate) fn enter(core: &Arc<Core>, head: &HeadFacts) -> Result<Self, Refusal> {
        let now = core.clock().now();
        let entered = core.lock().limiter.enter(head, now);
        let ticket = entered.inspect_err(|_| core.tally().policy_rejected())?;
        Ok(Self { charge: Charge::new(core, ticket) })
    }

    /// The request itself is wrong: it is charged once where its head decides.
    pub(crate) fn bad_request(self) {
        self.charge.bad_request();
    }

    /// Decides every limit for a request that needs no slot, and waits as long as they say.
    pub(crate) async fn pass(mut self, model: Option<&ModelName>) -> Result<Passed, Denied> {
        let core = Arc::clone(&self.charge.core);
        let now = core.clock().now();
        let body = BodyFacts { model, ..BodyFacts::default() };
        let decided = self.charge.decide(body, None, now, |queue, _, id, terms| match terms.delay {
            Nanos::ZERO => Ok(Arrived::Started),
            delay => queue.book(id).map(|()| Arrived::Booked(now.plus(delay))),
        });
        let (id, terms, arrived) = decided.map_err(|error| denied(&core, error))?;
        if terms.hold_up() {
            self.charge.take_back(id);
            let _booked = Booked { core: &core, id };
            if let Arrived::Booked(from) = arrived {
                sleep_until(core.clock().instant(from)).await;
            }
            self.charge.wait_for_limits().await.map_err(Denied::Limit)?;
            self.charge.start(id);
        }
        self.charge.stand();
        Ok(Passed { _charge: self.charge })
    }

    /// Decides every limit, by what the request will probably cost, and the queue's arrival.
    pub(crate) fn queue(mut self, model: &ModelName, estimate: Usage) -> Result<Place, Denied> {
        let core = Arc::clone(&self.charge.core);
        core.tally().arrived();
        let now = core.clock().now();
        let arrive =
            |queue: &mut _, hall: &mut Hall, id, terms: &_| hall.arrive(queue, (id, model), terms, now);
        let body = BodyFacts { model: Some(model), estimate, ..BodyFacts::default() };
        let arrived =
            self.charge.decide(body, Some(model), now, arrive).map_err(|error| denied(&core, error))?;
        self.charge.reserve(estimate);
        Ok(Place::new(self.charge, model.clone(), arrived, now))
    }
}

fn denied(core: &Core, error: CommitError<QueueRefusal>) -> Denied {
    match error {
        CommitError::Refused(refusal) => {
            core.tally().policy_rejected();
            Denied::Limit(refusal)
        }
        CommitError::Oversized(oversized) => {
            core.tally().policy_rejected();
            Denied::Oversized(oversized)
        }
        CommitError::Arrival(refusal) => {
            core.tally().capacity_rejected();
            Denied::Queue(refusal)
        }
    }
}

/// A booked place that is given up when this is dropped.
struct Booked<'a> {
    core: &'a Core,
    id: corral_limiter::fifo::WaiterId,
}

impl Drop for Booked<'_> {
    fn drop(&mut self) {
        self.core.lock().queue.leave(self.id);
    }
}

/// A request that was admitted and needs no slot. Dropped: it is over.
pub(crate) struct Passed {
    _charge: Charge,
}

#[cfg(test)]
mod action_tests;
#[cfg(test)]
mod tests;
