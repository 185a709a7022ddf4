//! A place in the queue, and the slot that it turns into.

use std::sync::Arc;

use corral_limiter::fifo::WaiterId;
use corral_limiter::{ModelName, Nanos, Terms, Usage};
use tokio::time::{sleep_until, timeout_at};

use super::Denied;
use super::charge::Charge;
use super::hall::{Arrived, Bell};
use crate::core::Core;

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
            state.hall.leave(self.id);
            state.queue.leave(self.id);
        }
        if let Some(ticket) = state.hall.take_back(self.id) {
            state.limiter.abandon(ticket, now);
        }
        state.dispatch(now);
    }
}

/// A request that was admitted and has, or waits for, its slot. Dropped: it left unserved.
pub(crate) struct Place {
    // Dropped in this order: first the slot finds its next owner.
    slot: Slot,
    charge: Charge,
    model: ModelName,
    terms: Terms,
    arrived_at: Nanos,
    arrived: Arrived,
}

impl Place {
    pub(super) fn new(
        charge: Charge,
        model: ModelName,
        (id, terms, arrived): (WaiterId, Terms, Arrived),
        now: Nanos,
    ) -> Self {
        let core = Arc::clone(&charge.core);
        let slot = Slot { core, id, held_since: None };
        let mut place = Self { slot, charge, model, terms, arrived_at: now, arrived };
        place.look(now);
        place
    }

    /// Notes a slot that is there, and has who waits asked whether one is.
    fn look(&mut self, now: Nanos) {
        match self.arrived {
            Arrived::Started => self.slot.held_since = Some(now),
            Arrived::Waits(_) => self.slot.core.lock().dispatch(now),
            Arrived::Booked(_) => {}
        }
    }

    /// Waits for the slot.
    pub(crate) async fn slot(mut self) -> Result<Permit, Denied> {
        let waits = !matches!(self.arrived, Arrived::Started);
        if let Arrived::Booked(from) = self.arrived {
            sleep_until(self.slot.core.clock().instant(from)).await;
            self.join();
        }
        if let Arrived::Waits(bell) = std::mem::replace(&mut self.arrived, Arrived::Started) {
            match self.rung(bell).await {
                Ok(now) => self.slot.held_since = Some(now),
                Err(now) => return Err(self.time_out(now)),
            }
        }
        // Who has not waited holds nothing that is for those who wait.
        if waits {
            self.charge.start(self.slot.id);
        }
        let waited = self.slot.held_since.unwrap_or(self.arrived_at).since(self.arrived_at);
        if self.terms.hold_up() {
            self.slot.core.metrics.limit_wait(waited.into());
        }
        Ok(Permit { slot: self.slot, charge: self.charge, waited })
    }

    /// The delay is over: it comes to the queue.
    fn join(&mut self) {
        let now = self.slot.core.clock().now();
        {
            let mut state = self.slot.core.lock();
            let crate::core::State { queue, hall, .. } = &mut *state;
            self.arrived = hall.join(queue, (self.slot.id, &self.model), &self.terms, now);
        }
        self.look(now);
    }

    /// When the slot came, or when it had been waited for in vain.
    async fn rung(&self, mut bell: Bell) -> Result<Nanos, Nanos> {
        let clock = self.slot.core.clock();
        let rung = timeout_at(clock.instant(bell.deadline), &mut bell.rings).await.is_ok();
        let now = clock.now();
        // The slot may have come at the very moment of the deadline.
        if rung || bell.rings.try_recv().is_ok() { Ok(now) } else { Err(now) }
    }

    /// Leaves first: it does not wait behind itself when it comes again.
    fn time_out(self, now: Nanos) -> Denied {
        let Self { slot, mut charge, model, arrived_at, .. } = self;
        let overdue = charge.overdue(slot.id, now);
        drop(slot);
        if let Some(refusal) = overdue {
            charge.core.tally().policy_rejected();
            return Denied::Limit(refusal);
        }
        charge.core.tally().capacity_rejected();
        let waited = now.since(arrived_at);
        let estimated_wait = charge.core.lock().queue.estimate(&model).unwrap_or(waited);
        Denied::TimedOut { waited, estimated_wait }
    }
}

/// The right to send one request to Ollama. Dropped: the slot goes to who is next.
pub(crate) struct Permit {
    slot: Slot,
    charge: Charge,
    waited: Nanos,
}

impl Permit {
    /// How long it was waited for.
    pub(crate) fn waited(&self) -> Nanos {
        self.waited
    }

    /// For how long it has been held.
    pub(crate) fn held(&self) -> Nanos {
        let now = self.charge.core.clock().now();
        self.slot.held_since.map_or(Nanos::ZERO, |since| now.since(since))
    }

    /// The answer has so many tokens by now.
    pub(crate) fn progress(&mut self, output: u64) {
        self.charge.progress(output);
    }

    /// Ollama has worked on the request, and on so many tokens: that is what it is charged.
    pub(crate) fn settle(&mut self, input: u64, output: u64) {
        self.charge.settle(Usage { input, output, slot: self.held() });
    }
}
