//! A request on its way: from its head to its end.

use corral_wire::{Action, Mode};

use super::Limiter;
use crate::{
    BodyFacts, CommitError, HeadFacts, Limit, Mismatch, ModelName, Nanos, Refusal, Terms, Ticket, Unit,
    Usage,
    judge::{Asked, Judge, Stop},
    reserve::{Held, Holding, Phase},
    state::{LimitState, Moment, Seen, Seens, Tally, Verdict},
};

/// How many tickets that were handed back are kept for the requests to come.
const MOST_TICKETS: usize = 64;

impl Limiter {
    /// Before the body is read: takes the concurrency guards that the head decides and looks at the rates that the
    /// head decides, charging nothing.
    ///
    /// The wait of a refusal is until the head passes. The body is not known yet: a limit that depends on it (on the
    /// model, on tokens, on the time of a slot) may refuse once more in [`Self::commit`], with a wait that then covers
    /// all.
    pub fn enter(&mut self, head: &HeadFacts, now: Nanos) -> Result<Ticket, Refusal> {
        let now = self.advance(now);
        let (moment, usage) = (Moment::Head, Usage::default());
        let mut ticket = self.new_ticket(head);
        let holding = &mut *ticket.0;
        let mut seens = self.seens.take().unwrap_or_default();
        let decided = self.decide(holding, (None, &usage), (moment, now), &mut seens);
        if decided.is_ok() {
            self.take_guards(&seens, &usage, (holding, moment));
        }
        self.seens = Some(seens);
        match decided.map_err(|stop| *stop) {
            // One request is never more than a limit holds.
            Ok(()) | Err(Stop::Oversized(_)) => Ok(ticket),
            Err(Stop::Refused(refusal)) => {
                self.keep(ticket);
                Err(self.counted(refusal))
            }
        }
    }

    /// With the body read: decides every limit, then asks `arrival` (the queue), then charges all, or nothing.
    ///
    /// Of what becomes of an exceeded limit, refusing comes first; then the longest delay is the ticket's, and limits
    /// that queue are asked when there is a slot. Whether it is deprioritized holds beside both. `arrival` is told these
    /// terms. A limit that delays is booked for when it alone would let the request start: one that another limit makes
    /// wait longer holds nobody up here.
    ///
    /// Call it once a ticket, and [`Self::standing`] after it for the headers. After an `Err` the ticket is empty: every
    /// guard is given back, and handing it back changes nothing.
    pub fn commit<T, E>(
        &mut self,
        ticket: &mut Ticket,
        body: &BodyFacts<'_>,
        now: Nanos,
        arrival: impl FnOnce(&Terms) -> Result<T, E>,
    ) -> Result<T, CommitError<E>> {
        let ticket = &mut *ticket.0;
        let now = self.advance(now);
        ticket.estimate = body.estimate;
        let mut seens = self.seens.take().unwrap_or_default();
        let arrived = match self.decide_body(ticket, body, now, &mut seens) {
            Ok(moment) => {
                ticket.terms = self.terms(&seens);
                arrival(&ticket.terms).map(|arrived| (arrived, moment)).map_err(CommitError::Arrival)
            }
            Err(stop) => Err(self.stopped(*stop)),
        };
        let committed = match arrived {
            Ok((arrived, moment)) => {
                self.take_all(&seens, (ticket, moment), now);
                self.take_rest(ticket, body, (moment, now));
                Ok(arrived)
            }
            Err(error) => {
                ticket.phase = Phase::Refused;
                self.give_back(&mut ticket.held, Real::Reserved, now);
                Err(error)
            }
        };
        self.seens = Some(seens);
        committed
    }

    #[cold]
    fn stopped<E>(&mut self, stop: Stop) -> CommitError<E> {
        match stop {
            Stop::Refused(refusal) => CommitError::Refused(self.counted(refusal)),
            Stop::Oversized(oversized) => {
                if let Some(place) = self.plan.as_ref().and_then(|plan| plan.place_of(&oversized.limit)) {
                    self.tally(place, |tally| tally.add_refused(oversized.unit, true));
                }
                CommitError::Oversized(oversized)
            }
        }
    }

    /// What is left to do for one that every enforced limit lets in.
    fn take_rest(&mut self, ticket: &mut Holding, body: &BodyFacts<'_>, at: (Moment, Nanos)) {
        (ticket.since, ticket.phase) = (at.1, Phase::Committed);
        if ticket.is_pending || self.plan.as_ref().is_some_and(|plan| plan.looks_twice()) {
            ticket.model = body.model.cloned();
            self.take_shadow(ticket, at);
            self.count_exempt(ticket);
        }
    }

    /// A 400, 413 or 415 of ours before the commit: charges the request limits that the head decides, each once and
    /// only where it still fits, and gives the guards back. After a commit it is [`Self::finish`].
    pub fn bad_request(&mut self, mut ticket: Ticket, now: Nanos) {
        let now = self.advance(now);
        if ticket.0.phase == Phase::Entered {
            for mode in [Mode::Enforce, Mode::Shadow] {
                let mut seens = self.look(mode, &ticket.0, &Usage::default(), (Moment::Head, now));
                seens.retain(|seen| seen.looks.iter().all(|looked| looked.look.wait == Nanos::ZERO));
                for seen in seens.iter() {
                    if let Some(state) = self.states.get_mut(seen.place) {
                        state.charge(seen, &mut ticket.0, Nanos::ZERO, now);
                    }
                }
            }
        }
        self.give_back(&mut ticket.0.held, Real::Reserved, now);
        self.keep(ticket);
    }

    /// It left before it was served: what it was charged and has not leaked back is given back, and so are the guards.
    pub fn abandon(&mut self, mut ticket: Ticket, now: Nanos) {
        let now = self.advance(now);
        self.give_back(&mut ticket.0.held, Real::Nothing, now);
        self.keep(ticket);
    }

    /// Tokens of the answer have come, so many in all: what goes beyond what was reserved is charged now.
    pub fn progress(&mut self, ticket: &mut Ticket, output: u64, now: Nanos) {
        let ticket = &mut *ticket.0;
        let now = self.advance(now);
        let sofar = Usage { output, ..ticket.estimate };
        let states = &mut self.states;
        ticket.held.retain_mut(|held| {
            let counted = matches!(held.unit, Unit::Tokens | Unit::OutputTokens);
            let more = sofar.permits(held.unit).saturating_sub(held.amount);
            if !counted || more == 0 {
                return true;
            }
            let Some(charge) = held.charge.take() else { return true };
            let state = holder(states, held);
            let meter = state.and_then(|state| state.meter_of(held.birth));
            held.charge = meter.and_then(|meter| meter.extend(held.key, charge, more, now));
            held.amount = held.amount.saturating_add(more);
            held.charge.is_some()
        });
    }

    /// It was served: charges are settled to what it really cost, or stand where that is not known; guards are given
    /// back.
    pub fn finish(&mut self, mut ticket: Ticket, cost: Option<Usage>, now: Nanos) {
        let now = self.advance(now);
        self.give_back(&mut ticket.0.held, cost.map_or(Real::Reserved, Real::Known), now);
        self.keep(ticket);
    }

    fn new_ticket(&mut self, head: &HeadFacts) -> Ticket {
        match self.tickets.pop() {
            Some(ticket) => ticket.renewed(head),
            None => Ticket(Box::new(Holding::new(head.clone()))),
        }
    }

    fn keep(&mut self, ticket: Ticket) {
        if self.tickets.len() < MOST_TICKETS {
            self.tickets.extend(ticket.emptied());
        }
    }

    #[inline]
    fn decide(
        &self,
        ticket: &mut Holding,
        (model, usage): (Option<&ModelName>, &Usage),
        (moment, now): (Moment, Nanos),
        seens: &mut Seens,
    ) -> Result<(), Box<Stop>> {
        seens.clear();
        let Some(judge) = self.judge() else { return Ok(()) };
        let Holding { head, held, keys, keys_of, .. } = ticket;
        if *keys_of != self.generation {
            *keys_of = self.generation;
            keys.clear();
        }
        let traits = judge.plan.traits(head);
        judge.decide(&Asked { head, traits: &traits, model, usage, held, moment, now }, (seens, keys))
    }

    fn look(&self, mode: Mode, ticket: &Holding, usage: &Usage, at: (Moment, Nanos)) -> Seens {
        self.with_asked(ticket, usage, at, |judge, asked| judge.look(mode, asked)).unwrap_or_default()
    }

    pub(super) fn with_asked<T>(
        &self,
        ticket: &Holding,
        usage: &Usage,
        (moment, now): (Moment, Nanos),
        ask: impl FnOnce(Judge<'_>, &Asked<'_>) -> T,
    ) -> Option<T> {
        let judge = self.judge()?;
        let Holding { head, held, model, .. } = ticket;
        let traits = judge.plan.traits(head);
        let model = model.as_ref();
        Some(ask(judge, &Asked { head, traits: &traits, model, usage, held, moment, now }))
    }

    /// Decides with the body; if that makes it wait, once more with what counts those that wait.
    fn decide_body(
        &self,
        ticket: &mut Holding,
        body: &BodyFacts<'_>,
        now: Nanos,
        seens: &mut Seens,
    ) -> Result<Moment, Box<Stop>> {
        let (moment, said) = (Moment::Body { waits: body.waits }, (body.model, &body.estimate));
        self.decide(ticket, said, (moment, now), seens)?;
        let delays = |verdict| matches!(verdict, Verdict::Delay(_) | Verdict::Later { fits: false });
        if body.waits || !seens.iter().any(|seen| delays(seen.verdict)) {
            return Ok(moment);
        }
        let moment = Moment::Body { waits: true };
        self.decide(ticket, said, (moment, now), seens)?;
        Ok(moment)
    }

    /// On what terms a request is let in that the limits see like this, none of which refuses it.
    fn terms(&self, seens: &[Seen]) -> Terms {
        let mut terms = Terms::default();
        for seen in seens {
            match seen.verdict {
                Verdict::Admit | Verdict::Refuse => {}
                Verdict::Delay(wait) => terms.delay = terms.delay.max(wait),
                Verdict::Deprioritize => terms.is_deprioritized = true,
                Verdict::Later { .. } => {
                    let limit = self.plan.as_ref().and_then(|plan| plan.limits().get(seen.place));
                    let longest = limit.and_then(Limit::max_wait).unwrap_or(Nanos::ZERO);
                    let so_far = terms.asks_again_for.unwrap_or(longest);
                    terms.asks_again_for = Some(so_far.min(longest));
                }
            }
        }
        terms
    }

    pub(super) fn take_guards(
        &mut self,
        seens: &[Seen],
        usage: &Usage,
        (ticket, moment): (&mut Holding, Moment),
    ) {
        let Some(plan) = &self.plan else { return };
        for seen in seens {
            if let (Some(limit), Some(state)) =
                (plan.limits().get(seen.place), self.states.get_mut(seen.place))
            {
                state.take_guards(limit, seen, usage, (ticket, moment));
            }
        }
    }

    fn take_all(&mut self, seens: &[Seen], (ticket, moment): (&mut Holding, Moment), now: Nanos) {
        for seen in seens {
            match seen.verdict {
                Verdict::Admit | Verdict::Delay(_) => self.take_one(seen, (ticket, moment), now),
                Verdict::Later { fits } => self.leave_for_later(seen, ticket, fits),
                Verdict::Deprioritize => {
                    self.tally(seen.place, |tally| Tally::add(&mut tally.deprioritized));
                }
                Verdict::Refuse => {}
            }
        }
    }

    fn take_one(&mut self, seen: &Seen, (ticket, moment): (&mut Holding, Moment), now: Nanos) {
        let usage = ticket.estimate;
        self.take_guards(std::slice::from_ref(seen), &usage, (ticket, moment));
        if let Some(state) = self.states.get_mut(seen.place) {
            let is_delayed = matches!(seen.verdict, Verdict::Delay(_));
            let delay = if is_delayed { ticket.terms.delay } else { Nanos::ZERO };
            state.charge(seen, ticket, delay, now);
            Tally::add(&mut state.tally.admitted);
            if is_delayed {
                Tally::add(&mut state.tally.delayed);
            }
        }
    }

    fn leave_for_later(&mut self, seen: &Seen, ticket: &mut Holding, fits: bool) {
        ticket.is_pending = true;
        if !fits {
            self.tally(seen.place, |tally| Tally::add(&mut tally.queued));
        }
    }

    /// Each shadow limit alone, now that all enforced ones admit: it is charged if it fits, and else only counts.
    fn take_shadow(&mut self, ticket: &mut Holding, (moment, now): (Moment, Nanos)) {
        if !self.plan.as_ref().is_some_and(|plan| plan.has_shadow()) {
            return;
        }
        let seens = self.look(Mode::Shadow, ticket, &ticket.estimate, (moment, now));
        for seen in seens.iter() {
            let is_oversized = self
                .with_asked(ticket, &ticket.estimate, (moment, now), |judge, asked| {
                    judge.oversized(seen, asked)
                })
                .flatten()
                .is_some();
            match seen.verdict {
                Verdict::Admit | Verdict::Delay(_) if !is_oversized => {
                    self.take_shadow_one(seen, ticket, (moment, now));
                }
                _ => {
                    self.tally(seen.place, |tally| Tally::add(&mut tally.would_refuse));
                    let limit = self.plan.as_ref().and_then(|plan| plan.limits().get(seen.place));
                    ticket.would_refuse.extend(limit.map(|limit| limit.info().clone()));
                }
            }
        }
    }

    fn take_shadow_one(&mut self, seen: &Seen, ticket: &mut Holding, (moment, now): (Moment, Nanos)) {
        let limit = self.plan.as_ref().and_then(|plan| plan.limits().get(seen.place));
        let queues = limit.is_some_and(|limit| limit.action() == Action::Queue);
        let moment = if queues { Moment::Slot } else { moment };
        let (delay, own) =
            (ticket.terms.delay, if let Verdict::Delay(wait) = seen.verdict { wait } else { Nanos::ZERO });
        ticket.terms.delay = own;
        self.take_one(seen, (ticket, moment), now);
        ticket.terms.delay = delay;
    }

    fn count_exempt(&mut self, ticket: &Holding) {
        let Some(plan) = self.plan.as_deref().filter(|plan| plan.has_exemptions()) else { return };
        let traits = plan.traits(&ticket.head);
        let covering = |mode| plan.covering(ticket.head.endpoint, mode);
        for (covering, limit) in covering(Mode::Enforce).chain(covering(Mode::Shadow)) {
            let is_exempt = limit.covers_model(ticket.model.as_ref())
                && limit.covers_head(&ticket.head, &traits) == Err(Mismatch::Exempt);
            if let Some(state) = self.states.get_mut(covering.place).filter(|_| is_exempt) {
                Tally::add(&mut state.tally.exempt);
            }
        }
    }

    fn give_back(&mut self, all: &mut Vec<Held>, real: Real, now: Nanos) {
        for mut held in all.drain(..) {
            if held.charge.is_some() && matches!(real, Real::Reserved) {
                continue;
            }
            let Some(state) = holder(&mut self.states, &held) else { continue };
            let Some(charge) = held.charge.take() else {
                state.release(&held);
                continue;
            };
            let real = match real {
                Real::Reserved => continue,
                Real::Nothing => 0,
                Real::Known(usage) => usage.permits(held.unit),
            };
            if let Some(meter) = state.meter_of(held.birth).filter(|_| real != held.amount) {
                meter.settle(held.key, charge, (held.amount, real), now);
            }
        }
    }

    #[cold]
    pub(super) fn counted(&mut self, refusal: Refusal) -> Refusal {
        let mut last = None;
        for violation in &refusal.violations {
            let place = self.plan.as_ref().and_then(|plan| plan.place_of(&violation.limit));
            if let Some(state) = place.and_then(|place| self.states.get_mut(place)) {
                state.tally.add_refused(violation.unit, place != last);
            }
            last = place;
        }
        refusal
    }

    fn tally(&mut self, place: usize, count: impl FnOnce(&mut Tally)) {
        if let Some(state) = self.states.get_mut(place) {
            count(&mut state.tally);
        }
    }
}

/// What a request really cost.
#[derive(Clone, Copy)]
enum Real {
    Reserved,
    Nothing,
    Known(Usage),
}

/// The limit that gave what is held. The place is right unless the plan has changed since.
pub(super) fn holder<'a>(states: &'a mut [LimitState], held: &Held) -> Option<&'a mut LimitState> {
    let at_place = states.get(held.place).is_some_and(|state| state.bore(held.birth));
    if at_place {
        return states.get_mut(held.place);
    }
    states.iter_mut().find(|state| state.bore(held.birth))
}
