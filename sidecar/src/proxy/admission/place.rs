//! A place in the queue, and the slot that it turns into.

use std::sync::Arc;

use corral_limiter::queue::{Band, Shed, ShedReason, WaiterId};
use corral_limiter::{Nanos, Place as Claim, Terms, Usage};
use corral_wire::CostModel;
use tokio::time::{sleep_until, timeout_at};

use super::Denied;
use super::charge::Charge;
use super::hall::{Arrived, Given, Wait};
use super::shedding::{Came, Shedding};
use super::want::{self, Want};
use crate::core::{Core, State};
use crate::metrics::WaitEnd;
use crate::proxy::tokens;

/// A place in the queue, or a slot of Ollama. Dropped: it is left or given back, and who is next gets it.
struct Slot {
    core: Arc<Core>,
    id: WaiterId,
    /// Since when the slot is held; none while it is waited for.
    held_since: Option<Nanos>,
    /// In what it is told what it really costs, and the tokens worked on so far: of the prompt, and of the answer.
    cost_model: CostModel,
    tokens: (u64, u64),
    /// Ollama has worked on the request since the slot is held, so how long that takes is learned.
    has_worked: bool,
    /// Since when it waits, and in which band; none once the end of that is counted.
    waits: Option<(Nanos, Band)>,
}

impl Slot {
    /// What it has really cost since the slot is held.
    fn cost(&self, now: Nanos) -> u64 {
        match self.cost_model {
            CostModel::SlotTime => self.held(now).0,
            CostModel::Tokens => tokens::cost(self.tokens.0, self.tokens.1),
        }
    }

    fn held(&self, now: Nanos) -> Nanos {
        self.held_since.map_or(Nanos::ZERO, |since| now.since(since))
    }

    /// Its wait is over; counted once.
    fn waited(&mut self, end: WaitEnd, now: Nanos) -> Nanos {
        let Some((since, band)) = self.waits.take() else { return Nanos::ZERO };
        let waited = now.since(since);
        self.core.metrics.queue.waited(band, end, waited.into());
        waited
    }

    /// Waits for the slot, or the word that it gets none.
    async fn wait(&mut self, mut wait: Wait) -> Result<(), Shed> {
        let deadline = self.core.clock().instant(wait.deadline);
        let in_time = timeout_at(deadline, &mut wait.cell).await.ok().flatten();
        match in_time.map_or_else(|| self.time_out(&mut wait), Ok)? {
            Given::Slot(since) => {
                self.held_since = Some(since);
                Ok(())
            }
            Given::Shed(shed) => Err(shed),
        }
    }

    /// It has waited as long as it may, if nothing came at that very moment.
    fn time_out(&mut self, wait: &mut Wait) -> Result<Given, Shed> {
        let now = self.core.clock().now();
        let mut state = self.core.lock();
        let Some(shed) = state.queue.time_out(self.id) else {
            drop(state);
            return wait.cell.take().ok_or(Shed {
                reason: ShedReason::TimedOut,
                estimated_wait: Nanos::from_secs(1),
                position: 0,
                max_wait: Nanos::ZERO,
            });
        };
        state.hall.leave(self.id);
        state.dispatch(now);
        Err(shed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let now = self.core.clock().now();
        let held = self.held(now);
        {
            let mut state = self.core.lock();
            match (self.held_since, self.has_worked) {
                (Some(_), true) => state.queue.release(self.id, self.cost(now), now),
                (Some(_), false) => state.queue.fail(self.id, self.cost(now), now),
                (None, _) => {
                    state.hall.leave(self.id);
                    state.queue.leave(self.id, now);
                }
            }
            if let Some(ticket) = state.hall.take_back(self.id) {
                state.limiter.abandon(ticket, now);
            }
            state.dispatch(now);
        }
        self.core.tally().slot_held(held);
        if self.held_since.is_some() {
            self.core.tally().released();
        }
        self.waited(WaitEnd::Cancelled, now);
    }
}

/// A request that was admitted and has, or waits for, its slot. Dropped: it left unserved.
pub(crate) struct Place {
    // Dropped in this order: first the slot finds its next owner.
    slot: Slot,
    charge: Charge,
    want: Box<Want>,
    claim: Claim,
    terms: Terms,
    arrived_at: Nanos,
    arrived: Arrived,
}

/// What was decided of a request on its arrival.
pub(super) struct Decided {
    pub(super) id: WaiterId,
    pub(super) claim: Claim,
    pub(super) terms: Terms,
    pub(super) arrived: Arrived,
}

impl Place {
    pub(super) fn new(charge: Charge, want: Box<Want>, decided: Decided, now: Nanos) -> Self {
        let Decided { id, claim, terms, arrived } = decided;
        let slot = Slot {
            core: Arc::clone(&charge.core),
            id,
            held_since: matches!(arrived, Arrived::Started).then_some(now),
            cost_model: want.cost_model,
            tokens: (0, 0),
            has_worked: false,
            waits: Some((now, want::band(claim, &terms))),
        };
        Self { slot, charge, want, claim, terms, arrived_at: now, arrived }
    }

    /// Waits for the slot.
    pub(crate) async fn slot(mut self) -> Result<Permit, Denied> {
        let waits = !matches!(self.arrived, Arrived::Started);
        if let Arrived::Booked(from) = self.arrived {
            sleep_until(self.slot.core.clock().instant(from)).await;
            self.join();
        }
        if let Arrived::Waits(wait) = std::mem::replace(&mut self.arrived, Arrived::Started)
            && let Err(shed) = self.slot.wait(wait).await
        {
            return Err(self.shed(shed));
        }
        // Who has not waited holds nothing that is for those who wait.
        if waits {
            self.charge.start(self.slot.id);
        }
        let waited = self.slot.waited(WaitEnd::Started, self.slot.held_since.unwrap_or(self.arrived_at));
        if self.terms.hold_up() {
            self.slot.core.metrics.limit_wait(waited.into());
        }
        let Self { slot, charge, want, .. } = self;
        Ok(Permit { slot, charge, want, waited, held_before: Nanos::ZERO, tokens_before: (0, 0) })
    }

    /// The delay is over: it comes to the queue.
    fn join(&mut self) {
        let now = self.slot.core.clock().now();
        let mut state = self.slot.core.lock();
        let State { queue, hall, .. } = &mut *state;
        self.arrived = hall.join(queue, (self.slot.id, &self.want), (self.claim, &self.terms), now);
        match self.arrived {
            Arrived::Started => self.slot.held_since = Some(now),
            Arrived::Waits(_) | Arrived::Booked(_) => state.dispatch(now),
        }
    }

    /// It gets no slot. What it was charged is given back when it is dropped.
    fn shed(mut self, shed: Shed) -> Denied {
        let now = self.slot.core.clock().now();
        let overdue = match shed.reason {
            ShedReason::TimedOut => self.charge.overdue(self.slot.id, now),
            _ => None,
        };
        if let Some(refusal) = overdue {
            self.slot.waited(WaitEnd::Limited, now);
            self.slot.core.tally().policy_rejected();
            return Denied::Limit(refusal);
        }
        let waited = self.slot.waited(WaitEnd::Shed(shed.reason), now);
        self.slot.core.tally().capacity_rejected();
        let came =
            Came { at: self.arrived_at, band: want::band(self.claim, &self.terms), due: self.want.due };
        Denied::Shed(Shedding::new(shed, waited, &came))
    }
}

/// The right to send one request to Ollama. Dropped: the slot goes to who is next.
pub(crate) struct Permit {
    slot: Slot,
    charge: Charge,
    want: Box<Want>,
    waited: Nanos,
    /// For how long slots were held that were given back since.
    held_before: Nanos,
    /// The tokens worked on in those.
    tokens_before: (u64, u64),
}

impl Permit {
    /// How long it was waited for.
    pub(crate) fn waited(&self) -> Nanos {
        self.waited
    }

    /// For how long it has been held.
    pub(crate) fn held(&self) -> Nanos {
        self.held_before.plus(self.slot.held(self.slot.core.clock().now()))
    }

    /// Its answer has begun: what it is a slot of is loaded.
    pub(crate) fn loaded(&self) {
        self.slot.core.loaded(&self.want.runner);
    }

    /// Ollama has worked on so many tokens by now, of the prompt and of the answer.
    pub(crate) fn progress(&mut self, input: u64, output: u64) {
        self.slot.tokens = self.since_then(input, output);
        let now = self.slot.core.clock().now();
        let mut state = self.slot.core.lock();
        state.queue.progress(self.slot.id, self.slot.cost(now));
        self.charge.progress(&mut state.limiter, output, now);
    }

    /// Of all tokens so far, those of the slot that is held.
    fn since_then(&self, input: u64, output: u64) -> (u64, u64) {
        let (input_before, output_before) = self.tokens_before;
        (input.saturating_sub(input_before), output.saturating_sub(output_before))
    }

    /// Ollama has worked on the request, and on so many tokens: that is what it is charged.
    pub(crate) fn settle(&mut self, input: u64, output: u64) {
        self.slot.tokens = self.since_then(input, output);
        self.slot.has_worked = input > 0 || output > 0;
        self.charge.settle(Usage { input, output, slot: self.held() });
    }

    /// Gives the slot back after so many tokens, and waits at the head of its client's line for another one, which will
    /// probably cost so much: a piece of a large request, or a second try. What limits have charged stays as it is.
    pub(crate) async fn again(mut self, spent: (u64, u64), next: u64) -> Result<Self, Denied> {
        let now = self.slot.core.clock().now();
        self.slot.tokens = spent;
        let held = self.slot.held(now);
        let slot_time = match self.want.cost_model {
            CostModel::SlotTime => Nanos(next),
            CostModel::Tokens => self.want.slot_time,
        };
        let arrived = {
            let mut state = self.slot.core.lock();
            let arrival = state.queue.again(self.slot.id, self.slot.cost(now), next, now);
            let arrived = state.hall.seat(self.slot.id, slot_time, arrival);
            state.dispatch(now);
            arrived
        };
        self.held_before = self.held_before.plus(held);
        let (input, output) = self.tokens_before;
        self.tokens_before = (input.saturating_add(spent.0), output.saturating_add(spent.1));
        self.slot.core.tally().slot_held(held);
        (self.slot.tokens, self.slot.has_worked) = ((0, 0), false);
        self.slot.held_since = None;
        match arrived {
            Arrived::Waits(wait) => self.wait_again(wait, now).await,
            Arrived::Started | Arrived::Booked(_) => {
                self.slot.held_since = Some(now);
                Ok(self)
            }
        }
    }

    async fn wait_again(mut self, wait: Wait, from: Nanos) -> Result<Self, Denied> {
        match self.slot.wait(wait).await {
            Ok(()) => {
                let until = self.slot.held_since.unwrap_or(from);
                self.waited = self.waited.plus(until.since(from));
                Ok(self)
            }
            Err(shed) => {
                let core = &self.slot.core;
                core.tally().capacity_rejected();
                let waited = core.clock().now().since(from);
                Err(Denied::Shed(Shedding::plain(shed, waited)))
            }
        }
    }
}
