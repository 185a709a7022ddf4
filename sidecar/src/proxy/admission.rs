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
//! ever free while somebody waits for it, and none is given to a client that has gone.

use std::convert::Infallible;
use std::sync::Arc;

use corral_limiter::queue::{Arrival, QueueRefusal, SlotQueue, WaiterId, Wish};
use corral_limiter::{BodyFacts, CommitError, HeadFacts, ModelName, Nanos, Oversized, Refusal, Ticket};
use hashbrown::HashMap;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::core::{Core, State};

/// Those who wait for a slot, and how to wake them.
#[derive(Debug, Default)]
pub(crate) struct Hall {
    last: u64,
    waiting: HashMap<WaiterId, oneshot::Sender<()>>,
}

/// Who arrived, and what rings when its slot is there, if it must wait.
type Arrived = (WaiterId, Option<(oneshot::Receiver<()>, Nanos)>);

impl Hall {
    fn arrive(
        &mut self,
        queue: &mut SlotQueue,
        model: &ModelName,
        now: Nanos,
    ) -> Result<Arrived, QueueRefusal> {
        self.last += 1;
        let id = WaiterId(self.last);
        let Arrival::Wait { deadline } = queue.arrive(id, Wish::slot(model), now)? else {
            return Ok((id, None));
        };
        let (wake, bell) = oneshot::channel();
        self.waiting.insert(id, wake);
        Ok((id, Some((bell, deadline))))
    }
}

impl State {
    /// Hands every free slot to who is next for it. One that leaves at this moment still holds its [`Slot`], and
    /// gives it back when it takes the lock.
    pub(crate) fn dispatch(&mut self, now: Nanos) {
        let Self { queue, hall, .. } = self;
        let present = |id| hall.waiting.get(&id).is_some_and(|wake| !wake.is_closed());
        for id in queue.dispatch(now, present) {
            if let Some(wake) = hall.waiting.remove(&id) {
                let _ = wake.send(());
            }
        }
    }
}

/// Why a request gets no slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Limits are exceeded.
    Limit(Refusal),
    /// It costs more than a limit ever lets one request use.
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

/// What a request has been charged. Dropped: given back, or kept if it was served.
struct Charge {
    core: Arc<Core>,
    ticket: Option<Ticket>,
    served: bool,
}

impl Charge {
    /// Decides every limit and then `arrival`, all or none, in one critical section.
    fn decide<T, E>(
        &mut self,
        body: BodyFacts<'_>,
        now: Nanos,
        arrival: impl FnOnce(&mut SlotQueue, &mut Hall) -> Result<T, E>,
    ) -> Result<T, CommitError<E>> {
        let mut state = self.core.lock();
        let State { limiter, queue, hall } = &mut *state;
        match self.ticket.as_mut() {
            Some(ticket) => limiter.commit(ticket, &body, now, || arrival(queue, hall)),
            None => arrival(queue, hall).map_err(CommitError::Arrival),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let now = self.core.clock().now();
        let limiter = &mut self.core.lock().limiter;
        if self.served {
            limiter.finish(ticket, None, now);
        } else {
            limiter.abandon(ticket, now);
        }
    }
}

/// A place in the queue, or a slot of Ollama. Dropped: it is left or given back, and who is next gets it.
struct Slot {
    core: Arc<Core>,
    id: WaiterId,
    /// Since when the slot is held; none while it is waited for.
    held_since: Option<Nanos>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let now = self.core.clock().now();
        let mut state = self.core.lock();
        if let Some(since) = self.held_since {
            state.queue.release(self.id, now);
            self.core.tally().slot_held(now.since(since));
        } else {
            state.hall.waiting.remove(&self.id);
            state.queue.leave(self.id);
        }
        state.dispatch(now);
    }
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
        Ok(Self { charge: Charge { core: Arc::clone(core), ticket: Some(ticket), served: false } })
    }

    /// The request itself is wrong: it is charged once where its head decides.
    pub(crate) fn bad_request(mut self) {
        if let Some(ticket) = self.charge.ticket.take() {
            let core = &self.charge.core;
            let now = core.clock().now();
            core.lock().limiter.bad_request(ticket, now);
        }
    }

    /// Decides every limit for a request that needs no slot.
    pub(crate) fn pass(mut self, model: Option<&ModelName>) -> Result<Passed, Denied> {
        let core = Arc::clone(&self.charge.core);
        let decided = self.charge.decide(
            BodyFacts { model, ..BodyFacts::default() },
            core.clock().now(),
            |_, _| Ok(()),
        );
        match decided {
            Ok(()) => {
                self.charge.served = true;
                Ok(Passed { _charge: self.charge })
            }
            Err(CommitError::Refused(refusal)) => {
                core.tally().policy_rejected();
                Err(Denied::Limit(refusal))
            }
            Err(CommitError::Oversized(oversized)) => Err(Denied::Oversized(oversized)),
            Err(CommitError::<Infallible>::Arrival(never)) => match never {},
        }
    }

    /// Decides every limit and the queue's arrival.
    pub(crate) fn queue(mut self, model: &ModelName) -> Result<Place, Denied> {
        let core = Arc::clone(&self.charge.core);
        core.tally().arrived();
        let now = core.clock().now();
        let body = BodyFacts { model: Some(model), ..BodyFacts::default() };
        let arrived = self.charge.decide(body, now, |queue, hall| hall.arrive(queue, model, now));
        match arrived {
            Ok(arrived) => Ok(Place::new(self.charge, model.clone(), arrived, now)),
            Err(CommitError::Refused(refusal)) => {
                core.tally().policy_rejected();
                Err(Denied::Limit(refusal))
            }
            Err(CommitError::Oversized(oversized)) => Err(Denied::Oversized(oversized)),
            Err(CommitError::Arrival(refusal)) => {
                core.tally().capacity_rejected();
                Err(Denied::Queue(refusal))
            }
        }
    }
}

/// A request that was admitted and needs no slot. Dropped: it is over.
pub(crate) struct Passed {
    _charge: Charge,
}

/// A request that was admitted and has, or waits for, its slot. Dropped: it left unserved.
pub(crate) struct Place {
    // Dropped in this order: first the slot finds its next owner.
    slot: Slot,
    charge: Charge,
    model: ModelName,
    arrived: Nanos,
    /// Rings when the slot is there, and until when to wait for it; none when it is there already.
    bell: Option<(oneshot::Receiver<()>, Nanos)>,
}

impl Place {
    fn new(charge: Charge, model: ModelName, (id, bell): Arrived, now: Nanos) -> Self {
        let core = Arc::clone(&charge.core);
        let held_since = bell.is_none().then_some(now);
        if bell.is_some() {
            core.lock().dispatch(now);
        }
        Self { slot: Slot { core, id, held_since }, charge, model, arrived: now, bell }
    }

    /// Waits for the slot.
    pub(crate) async fn slot(mut self) -> Result<Permit, Denied> {
        let core = Arc::clone(&self.charge.core);
        if let Some((mut bell, deadline)) = self.bell.take() {
            let rung = timeout_at(core.clock().instant(deadline), &mut bell).await.is_ok();
            let now = core.clock().now();
            // The slot may have come at the very moment of the deadline.
            if !rung && bell.try_recv().is_err() {
                return Err(self.time_out(now));
            }
            self.slot.held_since = Some(now);
        }
        let waited = self.slot.held_since.unwrap_or(self.arrived).since(self.arrived);
        Ok(Permit { _slot: self.slot, charge: self.charge, waited })
    }

    /// Leaves first: it does not wait behind itself when it comes again.
    fn time_out(self, now: Nanos) -> Denied {
        let Self { slot, charge, model, arrived, .. } = self;
        drop(slot);
        charge.core.tally().capacity_rejected();
        let waited = now.since(arrived);
        let estimated_wait = charge.core.lock().queue.estimate(&model).unwrap_or(waited);
        Denied::TimedOut { waited, estimated_wait }
    }
}

/// The right to send one request to Ollama. Dropped: the slot goes to who is next.
pub(crate) struct Permit {
    _slot: Slot,
    charge: Charge,
    waited: Nanos,
}

impl Permit {
    /// How long it was waited for.
    pub(crate) fn waited(&self) -> Nanos {
        self.waited
    }

    /// Ollama has worked on the request: what it was charged stands.
    pub(crate) fn serve(&mut self) {
        self.charge.served = true;
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
