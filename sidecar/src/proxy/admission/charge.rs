//! What a request has been charged, and what of it stands when it is over.

use std::sync::Arc;

use corral_limiter::queue::{SlotQueue, WaiterId, Wish};
use corral_limiter::{BodyFacts, CommitError, Nanos, Refusal, Terms, Ticket, Usage};

use super::hall::{Arrived, Hall, SOONEST};
use tokio::time::sleep_until;

use crate::core::{Core, State};

/// A request that needs no slot and waits for another to end is asked again after this.
const LOOK_AGAIN: Nanos = Nanos::from_millis(50);

/// What a request has been charged. Dropped: given back, or settled if it was served.
pub(super) struct Charge {
    pub(super) core: Arc<Core>,
    ticket: Option<Ticket>,
    served: bool,
    cost: Option<Usage>,
}

impl Charge {
    pub(super) fn new(core: &Arc<Core>, ticket: Ticket) -> Self {
        Self { core: Arc::clone(core), ticket: Some(ticket), served: false, cost: None }
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
        let waits = body.model.is_some_and(|model| !queue.starts_at_once(Wish::slot(model)));
        let body = BodyFacts { waits, ..body };
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

    /// It has its slot: takes back what the hall has kept, and waits no more.
    pub(super) fn start(&mut self, id: WaiterId) {
        let mut state = self.core.lock();
        if self.ticket.is_none() {
            self.ticket = state.hall.take_back(id);
        }
        if let Some(ticket) = &mut self.ticket {
            state.limiter.started(ticket);
        }
    }

    /// Waits until the limits let it have what they were left to be asked for; for a request that needs no slot.
    pub(super) async fn wait_for_limits(&mut self, id: WaiterId) -> Result<(), Refusal> {
        self.start(id);
        loop {
            let Some(ticket) = &mut self.ticket else { return Ok(()) };
            let (clock, deadline) = (*self.core.clock(), ticket.deadline());
            let now = clock.now();
            let Err(blocked) = self.core.lock().limiter.dispatch(ticket, now) else {
                return Ok(());
            };
            let overdue = || self.core.lock().limiter.overdue(ticket, now);
            if let Some(refusal) = deadline.filter(|deadline| *deadline <= now).and_then(|_| overdue()) {
                self.core.tally().policy_rejected();
                return Err(refusal);
            }
            let again = now.plus(blocked.wait.unwrap_or(LOOK_AGAIN).max(SOONEST));
            sleep_until(clock.instant(deadline.map_or(again, |deadline| deadline.max(now.plus(SOONEST)).min(again)))).await;
        }
    }

    /// It has waited in vain: takes back what the hall has kept, and says which limits held it up, if it was they.
    pub(super) fn overdue(&mut self, id: WaiterId, now: Nanos) -> Option<Refusal> {
        let mut state = self.core.lock();
        let ticket = state.hall.take_back(id)?;
        let refusal = state.limiter.overdue(&ticket, now);
        self.ticket = Some(ticket);
        refusal
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
