//! The limiter: the plan in force, how many pods share it, and the state of every limit.

mod explain;
mod passage;
mod place;
mod slot;
mod stats;
mod stranger;
mod wall;

use std::{mem, num::NonZeroU32, sync::Arc};

pub use self::{
    explain::{Explained, Would},
    place::Place,
    stats::{LimitStats, UnitStats},
};
use crate::{
    HeadFacts, Limit, LimitInfo, ModelName, Nanos, Plan, Standing, Ticket, Unit, Usage,
    judge::{Asked, Judge},
    key::KeyHasher,
    meter::Wall,
    state::{Births, Carrier, LimitState, Moment, Seens},
};

/// What a limiter is made with, for life.
#[derive(Clone, Copy)]
pub struct LimiterSettings {
    /// Keys the hash of bucket keys. Random and secret, so that no client can pick keys that collide.
    pub hash_key: [u8; 16],
    /// The most buckets kept a limit, unit and scale; at least 1 (0 is taken as 1). Beyond it clients share 1,024
    /// overflow buckets.
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
    wall: Wall,
    /// How many plans have been put in force.
    generation: u64,
    /// When windows of the clock or adaptive limits must next be looked after.
    chores: Nanos,
    /// What requests note things in while they are decided: kept, so that none has to ask for memory.
    seens: Option<Box<Seens>>,
    tickets: Vec<Ticket>,
}

/// What a change of plan did to the buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwapSummary {
    /// What begins with full buckets: limits that are new by name, or whose `per`, algorithm, units or reset changed. At
    /// most one extra burst each. Empty for the first plan.
    pub fresh: Vec<(Arc<LimitInfo>, Unit)>,
    /// Limits that are no more.
    pub gone: Vec<Arc<LimitInfo>>,
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
            wall: Wall { at: Nanos::ZERO, unix: 0 },
            generation: 0,
            chores: Nanos::ZERO,
            seens: None,
            tickets: Vec::new(),
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
    /// Buckets and guards live on by (identity of the limit, unit, algorithm, `per`, values); what is used of them is
    /// carried into the new rate. So do those of a tier whose scale changes; a client that comes to a tier of another
    /// scale starts fresh there. Work for each limit, not for each bucket.
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
            let mut carrier = Carrier {
                births: &mut self.births,
                pods: divisor,
                keys: self.keys_per_limit,
                wall: self.wall,
                now,
            };
            self.states.push(LimitState::carried(state, limit, &mut carrier));
        }
        summary.gone = before.map(|before| gone(&before, &plan)).unwrap_or_default();
        self.plan = Some(plan);
        self.generation = self.generation.saturating_add(1);
        self.do_chores(now);
        summary
    }

    /// Changes among how many pods `scope: Pool` limits are shared.
    pub fn set_divisor(&mut self, divisor: NonZeroU32, now: Nanos) {
        if let Some(plan) = self.plan.clone() {
            self.swap(plan, divisor, now);
        }
        self.divisor = divisor;
    }

    /// How the client stands with every enforced limit that matches, scarcest first: of two the one with the smaller
    /// part left, then the one that takes longer to fill. Limits that need a model are left out when there is none.
    /// A header takes the first eight.
    pub fn standing(&self, head: &HeadFacts, model: Option<&ModelName>, now: Nanos) -> Vec<Standing> {
        let Some(judge) = self.judge() else { return Vec::new() };
        let traits = judge.plan.traits(head);
        judge.standing(&Asked {
            head,
            traits: &traits,
            model,
            usage: &Usage::default(),
            held: &[],
            moment: Moment::Body { waits: false },
            now: now.max(self.latest),
        })
    }

    #[inline]
    fn advance(&mut self, now: Nanos) -> Nanos {
        self.latest = self.latest.max(now);
        if self.latest >= self.chores {
            self.do_chores(self.latest);
        }
        self.latest
    }

    #[inline]
    fn judge(&self) -> Option<Judge<'_>> {
        let Self { states, divisor, hasher, .. } = self;
        self.plan.as_deref().map(|plan| Judge { plan, states, divisor: *divisor, hasher })
    }
}

impl SwapSummary {
    fn add_fresh(&mut self, limit: &Limit, state: &LimitState) {
        let info = limit.info();
        self.fresh.extend(
            info.units().filter(|unit| !state.goes_on(limit, *unit)).map(|unit| (info.clone(), unit)),
        );
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
