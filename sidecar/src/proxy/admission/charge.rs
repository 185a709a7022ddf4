//! What a request has been charged, and what of it stands when it is over.

use std::sync::Arc;

use corral_limiter::queue::{SlotQueue, WaiterId};
use corral_limiter::{BodyFacts, CommitError, Nanos, Terms, Ticket, Usage};

use super::hall::{Arrived, Hall};
use crate::core::{Core, State};

/// What a request has been charged. Dropped: given back, or settled if it was served.
pub(super) struct Charge {
    pub(super) core: Arc<Core>,
    ticket: Option<Ticket>,
    /// What was reserved for it beside itself, once it is admitted.
    reserved: Usage,
    served: bool,
    cost: Option<Usage>,
}

impl Charge {
    pub(super) fn new(core: &Arc<Core>, ticket: Ticket) -> Self {
        let reserved = Usage::default();
        Self { core: Arc::clone(core), ticket: Some(ticket), reserved, served: false, cost: None }
    }

    /// Decides every limit and then `arrival`, all or none, in one critical section. Of one whose limits are asked again
    /// the hall keeps what it holds.
    pub(super) fn decide<E>(
        &mut self,
        body: BodyFacts<'_>,
        now: Nanos,
        arrival: impl FnOnce(&mut SlotQueue, &mut Hall, WaiterId, &Terms) -> Result<Arrived, E>,
    ) -> Result<(WaiterId, Terms, Arrived), CommitError<E>> {
        let mut state = self.core.lock();
        let State { limiter, queue, hall } = &mut *state;
        let id = hall.next_id();
        let Some(ticket) = self.ticket.as_mut() else {
            let terms = Terms::default();
            let arrived = arrival(queue, hall, id, &terms).map_err(CommitError::Arrival)?;
            return Ok((id, terms, arrived));
        };
        let (terms, arrived) = limiter.commit(ticket, &body, now, |terms| {
            arrival(queue, hall, id, terms).map(|arrived| (*terms, arrived))
        })?;
        if terms.asks_again_for.is_some()
            && let Some(ticket) = self.ticket.take()
        {
            hall.keep(id, ticket);
        }
        Ok((id, terms, arrived))
    }

    /// It is admitted, and this is reserved for it.
    pub(super) fn reserve(&mut self, estimate: Usage) {
        self.reserved = estimate;
        self.core.metrics.tokens.reserved(estimate);
    }

    /// Takes back what the hall has kept.
    pub(super) fn take_back(&mut self, id: WaiterId) {
        if self.ticket.is_none() {
            self.ticket = self.core.lock().hall.take_back(id);
        }
    }

    /// Ollama has worked on it: what it was charged stands.
    pub(super) fn serve(&mut self) {
        self.served = true;
    }

    /// So many tokens of its answer have come: what goes beyond what was reserved is charged now.
    pub(super) fn progress(&mut self, output: u64) {
        if let Some(ticket) = &mut self.ticket {
            let now = self.core.clock().now();
            self.core.lock().limiter.progress(ticket, output, now);
        }
    }

    /// What it really cost; it is settled to that when it is over.
    pub(super) fn cost(&mut self, cost: Usage) {
        self.cost = Some(cost);
    }

    /// The request itself is wrong: it is charged once where its head decides.
    pub(super) fn bad_request(mut self) {
        if let Some(ticket) = self.ticket.take() {
            let now = self.core.clock().now();
            self.core.lock().limiter.bad_request(ticket, now);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let cost = if self.served { self.cost.unwrap_or(self.reserved) } else { Usage::default() };
        self.core.settled(self.reserved, cost);
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let now = self.core.clock().now();
        let mut state = self.core.lock();
        if self.served {
            state.limiter.finish(ticket, self.cost, now);
        } else {
            state.limiter.abandon(ticket, now);
        }
        // Somebody may have waited for just what was given back.
        if state.hall.somebody_asks() {
            state.dispatch(now);
        }
    }
}
