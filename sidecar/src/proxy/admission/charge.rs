//! What a request has been charged, and what of it stands when it is over.

use std::sync::Arc;

use corral_limiter::queue::{FairQueue, Runner, WaiterId};
use corral_limiter::{BodyFacts, CommitError, Limiter, Nanos, Place as Claim, Refusal, Terms, Ticket, Usage};
use tokio::time::sleep_until;

use super::hall::{Arrived, Hall, SOONEST};
use super::place::Decided;
use super::want::NO_CLAIM;
use crate::core::{Core, State};

/// A request that needs no slot and waits for another to end is asked again after this.
const LOOK_AGAIN: Nanos = Nanos::from_millis(50);

/// What a request has been charged. Dropped: its fate is carried out.
pub(super) struct Charge {
    pub(super) core: Arc<Core>,
    ticket: Option<Ticket>,
    /// What was reserved for it beside itself, once it is admitted.
    reserved: Usage,
    fate: Fate,
}

/// What becomes of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is given back: the request was not served.
    GivenBack,
    /// It stands as it is.
    Stands,
    /// It is settled to what the request really cost.
    Settled(Usage),
}

impl Charge {
    pub(super) fn new(core: &Arc<Core>, ticket: Ticket) -> Self {
        let (core, reserved) = (Arc::clone(core), Usage::default());
        Self { core, ticket: Some(ticket), reserved, fate: Fate::GivenBack }
    }

    /// Decides every limit and then `arrival`, all or none, in one critical section, for a request that needs a slot of
    /// this, if any. Of one whose limits are asked again the hall keeps what it holds.
    pub(super) fn decide<E>(
        &mut self,
        body: BodyFacts<'_>,
        slot: Option<&Runner>,
        now: Nanos,
        arrival: impl FnOnce(&mut FairQueue, &mut Hall, WaiterId, (Claim, &Terms)) -> Result<Arrived, E>,
    ) -> Result<Decided, CommitError<E>> {
        let mut state = self.core.lock();
        let State { limiter, queue, hall } = &mut *state;
        let id = hall.next_id();
        let claim = self.ticket.as_ref().map_or(NO_CLAIM, |ticket| limiter.place(ticket.head()));
        let waits = slot.is_some_and(|runner| !queue.starts_at_once(runner, claim.priority, now));
        let body = BodyFacts { waits, ..body };
        let (terms, arrived) = match self.ticket.as_mut() {
            None => {
                let terms = Terms::default();
                let arrived = arrival(queue, hall, id, (claim, &terms)).map_err(CommitError::Arrival)?;
                (terms, arrived)
            }
            Some(ticket) => limiter.commit(ticket, &body, now, |terms| {
                arrival(queue, hall, id, (claim, terms)).map(|arrived| (*terms, arrived))
            })?,
        };
        if terms.asks_again_for.is_some()
            && let Some(ticket) = self.ticket.take()
        {
            hall.keep(id, ticket);
        }
        if matches!(arrived, Arrived::Waits(_)) {
            state.dispatch(now);
        }
        Ok(Decided { id, claim, terms, arrived })
    }

    /// Takes back what the hall has kept.
    pub(super) fn take_back(&mut self, id: WaiterId) {
        if self.ticket.is_none() {
            self.ticket = self.core.lock().hall.take_back(id);
        }
    }

    /// It waits no more: takes back what the hall has kept, and gives back what counts only those that wait.
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
    pub(super) async fn wait_for_limits(&mut self) -> Result<(), Refusal> {
        loop {
            let Some(ticket) = &mut self.ticket else { return Ok(()) };
            let (clock, deadline) = (*self.core.clock(), ticket.deadline());
            let now = clock.now();
            let Err(blocked) = self.core.lock().limiter.dispatch(ticket, now) else {
                return Ok(());
            };
            let overdue = || self.core.lock().limiter.overdue(ticket, now);
            if let Some(refusal) = deadline.filter(|deadline| *deadline <= now).and_then(|_| overdue()) {
                return Err(refusal);
            }
            let again = now.plus(blocked.wait.unwrap_or(LOOK_AGAIN).max(SOONEST));
            let latest = deadline.map_or(again, |deadline| deadline.max(now.plus(SOONEST)));
            sleep_until(clock.instant(again.min(latest))).await;
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

    /// It is admitted, and so much was reserved for it.
    pub(super) fn reserve(&mut self, estimate: Usage) {
        self.reserved = estimate;
        self.core.metrics.tokens.reserved(estimate);
    }

    /// What it was charged stands.
    pub(super) fn stand(&mut self) {
        self.fate = Fate::Stands;
    }

    /// Ollama has worked on it, and this is what it really cost.
    pub(super) fn settle(&mut self, cost: Usage) {
        self.fate = Fate::Settled(cost);
    }

    /// So many tokens of its answer have come: what goes beyond what was reserved is charged now.
    pub(super) fn progress(&mut self, limiter: &mut Limiter, output: u64, now: Nanos) {
        if let Some(ticket) = &mut self.ticket {
            limiter.progress(ticket, output, now);
        }
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
            // The hall had kept it, and gave it back when this one left.
            return self.core.metrics.tokens.settled(self.reserved, Usage::default());
        };
        let cost = match self.fate {
            Fate::GivenBack => Usage::default(),
            Fate::Stands => self.reserved,
            Fate::Settled(cost) => cost,
        };
        self.core.settled(ticket.head(), self.reserved, cost);
        let now = self.core.clock().now();
        let mut state = self.core.lock();
        match self.fate {
            Fate::GivenBack => state.limiter.abandon(ticket, now),
            Fate::Stands => state.limiter.finish(ticket, None, now),
            Fate::Settled(cost) => state.limiter.finish(ticket, Some(cost), now),
        }
        // Somebody may have waited for just what was given back.
        if state.hall.somebody_asks() {
            state.dispatch(now);
        }
    }
}
