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
//! ever free while somebody waits for it, and none is given to a client that has gone. Who is next is for
//! [`corral_limiter::queue::FairQueue`] to say; who has to go for another, or would be served too late, is told at once.
//! A limit may let a request in only
//! later (it books its place now), only where nobody else wants the slot, or ask to be asked again once a slot is there.

mod charge;
mod hall;
mod place;
mod shedding;
mod want;

use std::sync::Arc;

use corral_limiter::queue::{Band, Shed, WaiterId};
use corral_limiter::{BodyFacts, CommitError, HeadFacts, ModelName, Nanos, Oversized, Refusal, Usage};
use tokio::time::sleep_until;

use self::charge::Charge;
use self::hall::Arrived;
pub(crate) use self::hall::{Hall, recall};
use self::place::Decided;
pub(crate) use self::place::{Permit, Place};
use self::shedding::Came;
pub(crate) use self::shedding::{Shedding, WaitBound};
pub(crate) use self::want::Want;
use crate::core::Core;

/// Why a request gets no slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Limits are exceeded.
    Limit(Refusal),
    /// A limit will never admit it.
    Oversized(Oversized),
    /// The queue does not keep it, on arrival or any more.
    Shed(Shedding),
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
        let ticket = entered.inspect_err(|_| core.tally().turned_away(head.endpoint))?;
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
        let decided = self.charge.decide(body, None, now, |queue, _, id, (claim, terms)| match terms.delay {
            Nanos::ZERO => Ok(Arrived::Started),
            delay => queue.book(id, claim.flow, 0).map(|()| Arrived::Booked(now.plus(delay))),
        });
        let shedding = |shed| Shedding::plain(shed, Nanos::ZERO);
        let Decided { id, terms, arrived, .. } = decided.map_err(|error| denied(error, shedding))?;
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
    pub(crate) fn queue(mut self, want: Want, estimate: Usage) -> Result<Place, Denied> {
        let core = Arc::clone(&self.charge.core);
        let now = core.clock().now();
        let body = BodyFacts { model: Some(&want.runner.model), estimate, ..BodyFacts::default() };
        let mut came = None;
        let decided = self.charge.decide(body, Some(&want.runner), now, |queue, hall, id, (claim, terms)| {
            came = Some(want::band(claim, terms));
            hall.arrive(queue, (id, &want), (claim, terms), now)
        });
        core.tally().decided(&decided, want.is_retry);
        let decided = decided.map_err(|error| {
            let came = Came { at: now, band: came.unwrap_or(Band::Standard), due: want.due };
            denied(error, |shed| Shedding::new(shed, Nanos::ZERO, &came))
        })?;
        self.charge.reserve(estimate);
        Ok(Place::new(self.charge, Box::new(want), decided, now))
    }
}

impl Entered {
    /// The same, and waits for the slot.
    pub(crate) async fn slot(self, want: Want, estimate: Usage) -> Result<Permit, Denied> {
        self.queue(want, estimate)?.slot().await
    }
}

fn denied(error: CommitError<Shed>, shedding: impl FnOnce(Shed) -> Shedding) -> Denied {
    match error {
        CommitError::Refused(refusal) => Denied::Limit(refusal),
        CommitError::Oversized(oversized) => Denied::Oversized(oversized),
        CommitError::Arrival(shed) => Denied::Shed(shedding(shed)),
    }
}

/// A booked place that is given up when this is dropped.
struct Booked<'a> {
    core: &'a Core,
    id: WaiterId,
}

impl Drop for Booked<'_> {
    fn drop(&mut self) {
        self.core.lock().queue.leave(self.id, self.core.clock().now());
    }
}

/// A request that was admitted and needs no slot. Dropped: it is over.
pub(crate) struct Passed {
    _charge: Charge,
}

#[cfg(test)]
mod action_tests;
#[cfg(test)]
mod count_tests;
#[cfg(test)]
mod fair_tests;
#[cfg(test)]
mod tests;
