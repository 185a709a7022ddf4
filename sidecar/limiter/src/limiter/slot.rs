//! A request that waits for a slot: what its limits say when there is one.

use corral_wire::{Action, Mode};

use super::{Limiter, passage::holder};
use crate::{
    Blocked, BucketId, Limit, Nanos, Refusal, Ticket, Unit,
    judge::{Asked, Judge},
    meter::Meter,
    reserve::{Held, Holding},
    state::{Exceeded, Moment, Seen, Seens, Tally, Verdict},
};

impl Limiter {
    /// It waits no more, for it has a slot: what counts only those that wait is given back. A second call changes
    /// nothing.
    pub fn started(&mut self, ticket: &mut Ticket) {
        let ticket = &mut *ticket.0;
        let waiting = |held: &Held| matches!(held.unit, Unit::Queued | Unit::QueuedTokens);
        for held in ticket.held.iter().filter(|held| waiting(held)) {
            if let Some(state) = holder(&mut self.states, held) {
                state.release(held);
            }
        }
        ticket.held.retain(|held| !waiting(held));
    }

    /// A slot is there for a request that [`Ticket::is_pending`]: takes all that its limits must let it have, or nothing,
    /// and says what is in its way.
    pub fn dispatch(&mut self, ticket: &mut Ticket, now: Nanos) -> Result<(), Blocked> {
        let ticket = &mut *ticket.0;
        if !ticket.is_pending {
            return Ok(());
        }
        let now = self.advance(now);
        let at = (Moment::Slot, now);
        let seens = self.look_pending(ticket, at);
        if let Some(blocked) = self.blocked(&seens, ticket, at) {
            return Err(blocked);
        }
        let usage = ticket.estimate;
        self.take_guards(&seens, &usage, (ticket, Moment::Slot));
        for seen in seens.iter() {
            if let Some(state) = self.states.get_mut(seen.place) {
                state.charge(seen, ticket, Nanos::ZERO, now);
                Tally::add(&mut state.tally.admitted);
            }
        }
        ticket.is_pending = false;
        Ok(())
    }

    /// Whether a request that [`Ticket::is_pending`] would take from a bucket when it is dispatched.
    pub fn draws_on(&self, ticket: &Ticket, bucket: BucketId, now: Nanos) -> bool {
        let seens = self.look_pending(&ticket.0, (Moment::Slot, now.max(self.latest)));
        seens.iter().any(|seen| {
            let meters = self.states.get(seen.place).map_or(&[][..], |state| state.meters(seen.scale));
            let mut looks = seen.looks.iter().filter_map(|looked| Some((meters.get(looked.meter)?, looked)));
            looks.any(|(meter, looked)| {
                meter.birth == bucket.birth && Meter::bucket(seen.key, looked.look.place) == bucket.key
            })
        })
    }

    /// What to refuse a request with that [`Ticket::is_pending`] and has waited until [`Ticket::deadline`]: the limits
    /// that hold it up and let nobody wait longer. None when it is not they that hold it up. It still holds all it had:
    /// hand it to [`Self::abandon`].
    pub fn overdue(&mut self, ticket: &Ticket, now: Nanos) -> Option<Refusal> {
        let ticket = &*ticket.0;
        if !ticket.is_pending {
            return None;
        }
        let now = self.advance(now);
        let mut seens = self.look_pending(ticket, (Moment::Slot, now));
        let waited = now.since(ticket.since);
        let judge = self.judge()?;
        let limits = judge.plan.limits();
        seens.retain(|seen| {
            let longest = limits.get(seen.place).and_then(Limit::max_wait);
            longest.is_some_and(|longest| waited >= longest)
        });
        let traits = judge.plan.traits(&ticket.head);
        let asked = &Asked {
            head: &ticket.head,
            traits: &traits,
            model: ticket.model.as_ref(),
            usage: &ticket.estimate,
            held: &ticket.held,
            moment: Moment::Slot,
            now,
        };
        let refusal = judge.accusation(&seens, asked)?;
        Some(self.counted(refusal))
    }

    /// The limits that are asked when there is a slot.
    fn look_pending(&self, ticket: &Holding, at: (Moment, Nanos)) -> Seens {
        let queues = |limit: &Limit| limit.action() == Action::Queue;
        let look = |judge: Judge<'_>, asked: &Asked<'_>| judge.look_where(Mode::Enforce, asked, queues);
        self.with_asked(ticket, &ticket.estimate, at, look).unwrap_or_default()
    }

    /// What is most in the way of a request that is to have a slot.
    fn blocked(&self, seens: &Seens, ticket: &Holding, at: (Moment, Nanos)) -> Option<Blocked> {
        let plan = self.plan.as_deref()?;
        let mut most: Option<(&Seen, Exceeded)> = None;
        let mut guarded = false;
        for seen in seens.iter().filter(|seen| seen.verdict == Verdict::Refuse) {
            let (limit, state) = (plan.limits().get(seen.place)?, self.states.get(seen.place)?);
            for exceeded in state.exceeded(limit, seen, (&ticket.estimate, &ticket.held), at) {
                guarded |= exceeded.wait.is_none();
                if most.is_none_or(|(_, most)| exceeded.wait > most.wait) {
                    most = Some((seen, exceeded));
                }
            }
        }
        let (seen, Exceeded { unit, wait, birth, bucket, .. }) = most?;
        let limit = plan.limits().get(seen.place)?.info().clone();
        let bucket = (!guarded).then_some(BucketId { birth, key: bucket });
        Some(Blocked { limit, unit, wait, bucket })
    }
}
