//! The limiter: the plan in force, how many pods share it, and the state of every limit.

use std::{mem, num::NonZeroU32, sync::Arc};

use corral_wire::Mode;

use crate::{
    BodyFacts, CommitError, HeadFacts, Limit, LimitInfo, ModelName, Nanos, Plan, Refusal, Standing, Terms,
    Ticket, Unit, Usage,
    judge::{Asked, Body, Judge, Seens},
    key::KeyHasher,
    reserve::{Held, Phase},
    state::{Births, LimitState, Seen, Tally},
};

/// What a limiter is made with, for life.
#[derive(Clone, Copy)]
pub struct LimiterSettings {
    /// Keys the hash of bucket keys. Random and secret, so that no client can pick keys that collide.
    pub hash_key: [u8; 16],
    /// The most buckets kept a limit; at least 1 (0 is taken as 1). Beyond it clients share 1,024 overflow buckets.
    pub keys_per_limit: usize,
}

/// Decides requests. All methods are to be called under one lock.
///
/// Times should not decrease; an earlier one than the latest is taken as the latest.
pub struct Limiter {
    hasher: KeyHasher,
    keys_per_limit: usize,
    plan: Option<Arc<Plan>>,
    divisor: NonZeroU32,
    /// One for each limit of the plan, in its order.
    states: Vec<LimitState>,
    births: Births,
    latest: Nanos,
}

/// What a change of plan did to the buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwapSummary {
    /// What begins with full buckets: limits that are new by name, or whose `per` or units changed. At most one extra
    /// burst each. Empty for the first plan.
    pub fresh: Vec<(Arc<LimitInfo>, Unit)>,
    /// Limits that are no more.
    pub gone: Vec<Arc<LimitInfo>>,
}

/// What one limit has done since it came into force, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStats {
    /// Which.
    pub limit: Arc<LimitInfo>,
    /// Whether it refuses or only counts.
    pub mode: Mode,
    /// Requests that it counted and that were admitted as a whole.
    pub admitted: u64,
    /// Requests refused in which it was exceeded; 0 for a shadow limit.
    pub refused: u64,
    /// Requests admitted that it, a shadow limit, would have refused.
    pub would_refuse: u64,
    /// Charges to an overflow bucket, which several clients share.
    pub overflowed: u64,
    /// Buckets and concurrency counts kept now.
    pub keys: usize,
}

impl Limiter {
    /// Without a plan: it admits everything, so whoever has no plan must not ask it.
    pub fn new(settings: LimiterSettings) -> Self {
        Self {
            hasher: KeyHasher::new(&settings.hash_key),
            keys_per_limit: settings.keys_per_limit,
            plan: None,
            divisor: NonZeroU32::MIN,
            states: Vec::new(),
            births: Births::default(),
            latest: Nanos::ZERO,
        }
    }

    /// The plan in force; none before the first.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }

    /// D in force.
    pub fn divisor(&self) -> NonZeroU32 {
        self.divisor
    }

    /// Puts a plan in force for a pool of `divisor` pods.
    ///
    /// Buckets and guards live on by (identity of the limit, unit, `per`, values); what is used of them is carried into
    /// the new rate. Work for each limit, not for each bucket.
    pub fn swap(&mut self, plan: Arc<Plan>, divisor: NonZeroU32, now: Nanos) -> SwapSummary {
        let now = self.advance(now);
        let before = self.plan.take();
        let mut old = mem::take(&mut self.states);
        let mut summary = SwapSummary::default();
        self.divisor = divisor;
        for limit in plan.limits() {
            let mut state = LimitState::default();
            if let Some(before) = &before {
                state = take_state(before, &mut old, limit);
                summary.add_fresh(limit, &state);
            }
            let state = self.carried(state, limit, now);
            self.states.push(state);
        }
        summary.gone = before.map(|before| gone(&before, &plan)).unwrap_or_default();
        self.plan = Some(plan);
        summary
    }

    /// Changes among how many pods `scope: Pool` limits are shared.
    pub fn set_divisor(&mut self, divisor: NonZeroU32, now: Nanos) {
        if let Some(plan) = self.plan.clone() {
            self.swap(plan, divisor, now);
        }
        self.divisor = divisor;
    }

    /// Before the body is read: takes the concurrency guards that the head decides and looks at the rates that the
    /// head decides, charging nothing.
    ///
    /// The wait of a refusal is until the head passes. The model is not known yet: a limit that depends on it may
    /// refuse once more in [`Self::commit`], with a wait that then covers all.
    pub fn enter(&mut self, head: &HeadFacts, now: Nanos) -> Result<Ticket, Refusal> {
        let now = self.advance(now);
        let mut ticket = Ticket::new(head.clone());
        let asked = Asked { head, body: Body::Unread, now };
        match self.judge().map(|judge| judge.enforced(asked, &[])) {
            None => {}
            Some(Ok(seens)) => self.take_guards(&seens, &mut ticket),
            Some(Err(refusal)) => return Err(self.counted(refusal)),
        }
        Ok(ticket)
    }

    /// With the body read: decides every limit, then asks `arrival` (the queue), then charges all, or nothing.
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
        let now = self.advance(now);
        let head = ticket.head.clone();
        let asked = Asked { head: &head, body: Body::Read(body.model), now };
        let judged =
            self.judge().map_or_else(|| Ok(Seens::new()), |judge| judge.enforced(asked, &ticket.held));
        let arrived = match judged {
            Ok(seens) => {
                arrival(&Terms::default()).map(|arrived| (arrived, seens)).map_err(CommitError::Arrival)
            }
            Err(refusal) => Err(CommitError::Refused(self.counted(refusal))),
        };
        match arrived {
            Ok((arrived, seens)) => {
                self.take_all(&seens, ticket, now);
                self.take_shadow(asked, ticket);
                ticket.phase = Phase::Committed;
                Ok(arrived)
            }
            Err(error) => {
                ticket.phase = Phase::Refused;
                self.give_back(mem::take(&mut ticket.held), false, now);
                Err(error)
            }
        }
    }

    /// A 400, 413 or 415 of ours before the commit: charges the request limits that the head decides, each once and
    /// only where it still fits, and gives the guards back. After a commit it is [`Self::finish`].
    pub fn bad_request(&mut self, ticket: Ticket, now: Nanos) {
        let now = self.advance(now);
        if ticket.phase == Phase::Entered {
            let asked = Asked { head: &ticket.head, body: Body::Unread, now };
            for mode in [Mode::Enforce, Mode::Shadow] {
                let seens = self.judge().map(|judge| judge.look(mode, asked, &ticket.held));
                seens.unwrap_or_default().iter().for_each(|seen| self.charge_if_it_fits(seen, now));
            }
        }
        self.give_back(ticket.held, false, now);
    }

    /// It left before it was served: what it was charged and has not leaked back is given back, and so are the guards.
    pub fn abandon(&mut self, ticket: Ticket, now: Nanos) {
        let now = self.advance(now);
        self.give_back(ticket.held, true, now);
    }

    /// A slot is there for a request that [`Ticket::is_pending`]: takes what its limits let it have, or says until when
    /// it must wait at least.
    pub fn dispatch(&mut self, _ticket: &mut Ticket, _now: Nanos) -> Result<(), Nanos> {
        Ok(())
    }

    /// Tokens of the answer have come, so many in all: what goes beyond what was reserved is charged now.
    pub fn progress(&mut self, _ticket: &mut Ticket, _output: u64, _now: Nanos) {}

    /// It was served: charges are settled to what it really cost, or stand where that is not known; guards are given
    /// back.
    pub fn finish(&mut self, ticket: Ticket, _cost: Option<Usage>, now: Nanos) {
        let now = self.advance(now);
        self.give_back(ticket.held, false, now);
    }

    /// How the client stands with every enforced limit that matches, scarcest first: of two the one with the smaller
    /// part left, then the one that takes longer to fill. Limits that need a model are left out when there is none.
    /// A header takes the first eight.
    pub fn standing(&self, head: &HeadFacts, model: Option<&ModelName>, now: Nanos) -> Vec<Standing> {
        let body = model.map_or(Body::Unread, |model| Body::Read(Some(model)));
        let asked = Asked { head, body, now: now.max(self.latest) };
        self.judge().map(|judge| judge.standing(asked)).unwrap_or_default()
    }

    /// What each limit in force has done, in the order of the plan.
    pub fn stats(&self) -> Vec<LimitStats> {
        let limits = self.plan.iter().flat_map(|plan| plan.limits());
        limits.zip(&self.states).map(|(limit, state)| stats(limit, state)).collect()
    }

    fn advance(&mut self, now: Nanos) -> Nanos {
        self.latest = self.latest.max(now);
        self.latest
    }

    fn judge(&self) -> Option<Judge<'_>> {
        let Self { states, divisor, hasher, .. } = self;
        self.plan.as_deref().map(|plan| Judge { plan, states, divisor: *divisor, hasher })
    }

    fn carried(&mut self, state: LimitState, limit: &Limit, now: Nanos) -> LimitState {
        LimitState::carried(state, limit, self.divisor, (self.keys_per_limit, now), &mut self.births)
    }

    fn take_guards(&mut self, seens: &[Seen], ticket: &mut Ticket) {
        for seen in seens {
            ticket.held.extend(self.states.get_mut(seen.place).and_then(|state| state.take_guard(seen)));
        }
    }

    fn take_all(&mut self, seens: &[Seen], ticket: &mut Ticket, now: Nanos) {
        self.take_guards(seens, ticket);
        for seen in seens {
            if let Some(state) = self.states.get_mut(seen.place) {
                ticket.held.extend(state.charge(seen, now));
                add_one(&mut state.tally.admitted);
            }
        }
    }

    /// Each shadow limit alone, now that all enforced ones admit: it is charged if it fits, and else only counts.
    fn take_shadow(&mut self, asked: Asked<'_>, ticket: &mut Ticket) {
        let seens =
            self.judge().map(|judge| judge.look(Mode::Shadow, asked, &ticket.held)).unwrap_or_default();
        for seen in seens {
            let Some(state) = self.states.get_mut(seen.place) else { continue };
            if state.fits(&seen, asked.now) {
                self.take_all(&[seen], ticket, asked.now);
            } else {
                add_one(&mut state.tally.would_refuse);
                ticket.would_refuse.extend(self.info(seen.place));
            }
        }
    }

    fn charge_if_it_fits(&mut self, seen: &Seen, now: Nanos) {
        if let Some(state) = self.states.get_mut(seen.place)
            && state.wait(seen, now) == Nanos::ZERO
        {
            state.charge(seen, now);
        }
    }

    fn give_back(&mut self, held: impl IntoIterator<Item = Held>, charges_too: bool, now: Nanos) {
        for held in held {
            // The place is right unless the plan has changed since.
            let at_place = self.states.get(held.place).is_some_and(|state| state.bore(&held));
            let state = if at_place {
                self.states.get_mut(held.place)
            } else {
                self.states.iter_mut().find(|state| state.bore(&held))
            };
            if let Some(state) = state {
                state.take_back(held, charges_too, now);
            }
        }
    }

    #[cold]
    fn counted(&mut self, refusal: Refusal) -> Refusal {
        let mut last = None;
        for violation in &refusal.violations {
            let place = self.plan.as_ref().and_then(|plan| plan.place_of(&violation.limit));
            if let Some(state) = place.filter(|_| place != last).and_then(|place| self.states.get_mut(place))
            {
                add_one(&mut state.tally.refused);
            }
            last = place;
        }
        refusal
    }

    fn info(&self, place: usize) -> Option<Arc<LimitInfo>> {
        self.plan.as_ref()?.limits().get(place).map(|limit| limit.info().clone())
    }
}

impl SwapSummary {
    fn add_fresh(&mut self, limit: &Limit, state: &LimitState) {
        let info = limit.info();
        if info.rate.is_some() && state.store().is_none() {
            self.fresh.push((info.clone(), Unit::Requests));
        }
        if info.concurrency.is_some() && !state.has_guards() {
            self.fresh.push((info.clone(), Unit::Concurrency));
        }
    }
}

/// The limits of one plan that another does not have.
fn gone(before: &Plan, after: &Plan) -> Vec<Arc<LimitInfo>> {
    let infos = before.limits().iter().map(Limit::info);
    infos.filter(|info| after.place_of(info).is_none()).cloned().collect()
}

/// Takes the state of a limit out of those of the plan before: whole if its buckets are for the same.
fn take_state(before: &Plan, old: &mut [LimitState], limit: &Limit) -> LimitState {
    let place = before.place_of(limit.info());
    let was = place.and_then(|place| before.limits().get(place));
    let Some(state) = place.and_then(|place| old.get_mut(place)) else {
        return LimitState::default();
    };
    let state = mem::take(state);
    if was.is_some_and(|was| was.per() == limit.per()) { state } else { state.emptied() }
}

fn stats(limit: &Limit, state: &LimitState) -> LimitStats {
    let Tally { admitted, refused, would_refuse, overflowed } = state.tally;
    let (limit, mode, keys) = (limit.info().clone(), limit.mode(), state.keys());
    LimitStats { limit, mode, admitted, refused, would_refuse, overflowed, keys }
}

fn add_one(count: &mut u64) {
    *count = count.saturating_add(1);
}
