//! The seam between the data path and the control side: one lock around the limits and the queue.
//!
//! A decision about a request, a new plan, a new divisor and a slot that comes back are each one critical section, so
//! no request ever sees half a plan and no slot is counted twice. Nothing here waits or does I/O.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use corral_limiter::queue::{BandGauges, FairQueue, ModelGauges, QueueLoad, Runner, Slots, Strain};
use corral_limiter::{
    BodyFacts, Explained, HeadFacts, LimitStats, Limiter, LimiterSettings, ModelName, Nanos, Plan, Refusal,
    Standing, SwapSummary, Usage,
};
use corral_wire::{Counters, Gauges, PoolKeys};
use parking_lot::{Mutex, MutexGuard};

use crate::activator::{Hold, HoldGauges};
use crate::api_keys::Digesters;
use crate::clients::{Clients, Had};
use crate::clock::{Clock, unix_nanos};
use crate::health::Health;
use crate::health::desk::Desk;
use crate::metrics::Metrics;
use crate::proxy::{Learned, Vouchers};
use crate::tally::Tally;

/// What a [`Core`] is made with.
#[derive(Clone, Copy)]
pub struct CoreSettings {
    /// How the limiter hashes and bounds its keys.
    pub limiter: LimiterSettings,
    /// How many requests Ollama is sent at one time, at first.
    pub slots: Slots,
}

/// Limits, queue, health and metrics of one sidecar. Shared as `Arc<Core>`.
pub struct Core {
    state: Mutex<State>,
    /// How many models Ollama may hold at one time, however few fit.
    most_models: AtomicU32,
    /// Read without the lock, by those who only look.
    plan: ArcSwapOption<Plan>,
    tally: Tally,
    clock: Clock,
    /// The health of Ollama and of this sidecar.
    pub health: Arc<Health>,
    /// The permission to leave the Service for load, and the load.
    pub desk: Desk,
    /// How API keys are recognised.
    pub digesters: Digesters,
    /// Which activators speak for clients; in an activator, how it speaks for them itself.
    pub vouchers: Vouchers,
    /// What is held; only in an activator.
    hold: OnceLock<Arc<Hold>>,
    /// Who takes how much.
    pub clients: Clients,
    /// What models make of tokens, as their answers have shown.
    pub(crate) learned: Mutex<Learned>,
    /// Every metric of this sidecar.
    pub metrics: Arc<Metrics>,
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) limiter: Limiter,
    pub(crate) queue: FairQueue,
    pub(crate) hall: crate::proxy::admission::Hall,
}

impl Core {
    /// A core without a plan: it admits nothing until [`Self::take_plan`].
    pub fn new(settings: CoreSettings, health: Arc<Health>, metrics: Arc<Metrics>) -> Self {
        let state = State {
            limiter: Limiter::new(settings.limiter),
            queue: FairQueue::new(settings.slots),
            hall: crate::proxy::admission::Hall::default(),
        };
        Self {
            state: Mutex::new(state),
            most_models: AtomicU32::new(settings.slots.models),
            plan: ArcSwapOption::empty(),
            tally: Tally::default(),
            clock: Clock::start(),
            health,
            desk: Desk::default(),
            digesters: Digesters::default(),
            vouchers: Vouchers::default(),
            hold: OnceLock::new(),
            clients: Clients::default(),
            learned: Mutex::default(),
            metrics,
        }
    }

    /// Puts a plan in force, with the number of pods that share its pool-wide limits. Counters live on where
    /// their limits do; requests that wait stay.
    pub fn take_plan(&self, plan: Arc<Plan>, divisor: NonZeroU32) -> SwapSummary {
        self.take_plan_and_slots(plan, divisor, None)
    }

    /// The same, and in the same moment another number of slots, unless it is to stay: new ones go to whoever waits for
    /// them, and requests that run beyond fewer ones end as they would.
    pub fn take_plan_and_slots(
        &self,
        plan: Arc<Plan>,
        divisor: NonZeroU32,
        slots: Option<Slots>,
    ) -> SwapSummary {
        let now = self.clock.now();
        let mut state = self.lock();
        state.limiter.tell_wall(now, unix_nanos());
        let summary = state.limiter.swap(Arc::clone(&plan), divisor, now);
        state.queue.set_bounds(plan.queue());
        if let Some(slots) = slots {
            self.most_models.store(slots.models, Ordering::Relaxed);
            state.queue.set_slots(slots);
        }
        state.dispatch(now);
        self.plan.store(Some(plan));
        summary
    }

    /// Recognises API keys, and activators, by the keys of the pool as they are mounted now.
    pub fn take_keys(&self, keys: &PoolKeys) {
        self.digesters.replace(keys.digesters());
        self.vouchers.take_keys(keys);
    }

    /// Makes this the core of an activator: what it holds counts as waiting, and what it has handed on as in flight.
    pub(crate) fn hold(&self, hold: Arc<Hold>) {
        let _ = self.hold.set(hold);
    }

    /// Sees what the wall clock says: windows by the clock go by it, and it may be set at any time.
    pub(crate) fn look_at_the_wall(&self) {
        let now = self.clock.now();
        self.lock().limiter.tell_wall(now, unix_nanos());
    }

    /// Ollama fares badly: limits that adapt themselves are lowered.
    pub(crate) fn trouble(&self) {
        let now = self.clock.now();
        self.lock().limiter.trouble(now);
    }

    /// A sign that Ollama has more of this model's requests than it can do with: fewer are sent to it for a while.
    pub(crate) fn strain(&self, model: &ModelName, sign: Strain) {
        self.change_queue(|queue, now| queue.strain(model, sign, now));
    }

    /// How many requests of this model Ollama runs at one time, where that is less than for others; none: as for others.
    pub(crate) fn set_cap(&self, model: &ModelName, cap: Option<u32>) {
        self.change_queue(|queue, _| queue.set_cap(model, cap));
    }

    /// An answer of this runner has begun: whatever load there was is over.
    pub(crate) fn loaded(&self, runner: &Runner) {
        self.change_queue(|queue, now| queue.loaded(runner, now));
    }

    /// What Ollama says it has loaded, of all models.
    pub(crate) fn seen_loaded(&self, models: &[ModelName]) {
        self.change_queue(|queue, _| queue.seen_loaded(models));
    }

    /// How many models fit into Ollama at one time, of as many as it may hold.
    pub(crate) fn fit_models(&self, fit: impl FnOnce(u32) -> u32) {
        let models = fit(self.most_models.load(Ordering::Relaxed));
        self.change_queue(|queue, _| queue.set_slots(Slots { models, ..queue.slots() }));
    }

    /// The models that are loaded, as far as is known, in the order of their names.
    pub(crate) fn loaded_models(&self) -> Vec<ModelName> {
        let known = self.lock().queue.models();
        let mut loaded: Vec<_> = known.into_iter().filter(|one| one.is_loaded).map(|one| one.model).collect();
        loaded.sort_unstable();
        // A model is listed once for each of its runners.
        loaded.dedup();
        loaded
    }

    /// Whether any model is loaded, as far as is known, or being loaded.
    pub(crate) fn has_loaded(&self) -> bool {
        !self.lock().queue.models().is_empty()
    }

    /// Whoever may have a slot for it gets it at once.
    fn change_queue(&self, change: impl FnOnce(&mut FairQueue, Nanos)) {
        let now = self.clock.now();
        let mut state = self.lock();
        change(&mut state.queue, now);
        state.dispatch(now);
    }

    /// Changes the number of pods that share the pool-wide limits.
    pub fn set_divisor(&self, divisor: NonZeroU32) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.limiter.set_divisor(divisor, now);
        // A larger share may be what somebody waits for.
        state.dispatch(now);
    }

    /// The number of pods that share the pool-wide limits, as in force.
    pub fn divisor(&self) -> NonZeroU32 {
        self.lock().limiter.divisor()
    }

    /// The plan in force; none before the first.
    pub fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.load_full()
    }

    /// The clock by which every decision is made.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How a client stands with every enforced limit that matches, scarcest first.
    pub fn standing(&self, head: &HeadFacts, model: Option<&ModelName>) -> Vec<Standing> {
        let now = self.clock.now();
        self.lock().limiter.standing(head, model, now)
    }

    /// Charges a request that nobody is known to have sent to its address alone.
    pub(crate) fn turn_away(&self, head: &HeadFacts) -> Result<(), Refusal> {
        let now = self.clock.now();
        let turned_away = self.lock().limiter.turn_away(head, now);
        turned_away.inspect_err(|_| self.tally.turned_away(head.endpoint))
    }

    /// What every limit of the plan would say to a request, in the order of the plan. Consumes nothing.
    pub fn explain(&self, head: &HeadFacts, model: Option<&ModelName>, estimate: Usage) -> Vec<Explained> {
        let now = self.clock.now();
        let state = self.lock();
        let priority = state.limiter.place(head).priority;
        let starts = |model: &ModelName| state.queue.starts_at_once(&Runner::of(model), priority, now);
        let waits = model.is_some_and(|model| !starts(model));
        state.limiter.explain(head, &BodyFacts { model, estimate, waits }, now)
    }

    /// What each limit in force has done, for metrics.
    pub fn limit_stats(&self) -> Vec<LimitStats> {
        self.lock().limiter.stats()
    }

    /// How many requests are inside Ollama.
    pub(crate) fn in_flight(&self) -> u32 {
        u32::try_from(self.lock().queue.in_flight()).unwrap_or(u32::MAX)
    }

    /// How things stand now.
    pub fn gauges(&self) -> Gauges {
        if let Some(hold) = self.hold.get() {
            return held(&hold.gauges());
        }
        let now = self.clock.now();
        let (gauges, slots, load, work) = {
            let State { queue, hall, .. } = &*self.lock();
            (queue.gauges(now), queue.slots(), queue.load(now), hall.work())
        };
        Gauges {
            slots: slots.per_model,
            in_flight: u32::try_from(gauges.in_flight).unwrap_or(u32::MAX),
            queued: u32::try_from(gauges.depth).unwrap_or(u32::MAX),
            queued_cost_ms: work.0 / 1_000_000,
            oldest_wait_ms: gauges.oldest_wait.0 / 1_000_000,
            predicted_wait_ms: load.predicted_wait.0 / 1_000_000,
            load_permille: self.desk.view().permille,
        }
    }

    /// How the queue stands by band, and by model.
    pub fn queue_gauges(&self) -> ([BandGauges; 4], Vec<ModelGauges>) {
        let queue = &self.lock().queue;
        (queue.bands(), queue.models())
    }

    /// How the queue stands to its bounds now.
    pub fn load(&self) -> QueueLoad {
        let now = self.clock.now();
        self.lock().queue.load(now)
    }

    /// How often Ollama said that too many wait in it already, since this core was made: a sign of load, never of death.
    pub fn upstream_busy(&self) -> u64 {
        self.tally.times_busy()
    }

    /// What has happened since this core was made.
    pub fn counters(&self) -> Counters {
        self.tally.read()
    }

    /// Requests that the queue refused, since this core was made. What limits refuse is not among them.
    pub fn capacity_rejects(&self) -> u64 {
        self.tally.capacity_rejects()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A request is over for which tokens were reserved, and it cost so many.
    pub(crate) fn settled(&self, head: &HeadFacts, reserved: Usage, cost: Usage) {
        self.tally.spent(cost);
        self.metrics.tokens.settled(reserved, cost);
        if cost != Usage::default() {
            self.count_for(head, &Had::from(cost));
        }
    }

    /// Counts what a client had.
    pub(crate) fn count_for(&self, head: &HeadFacts, more: &Had) {
        self.clients.count(head, more, self.clock.now());
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// The gauges of an activator.
fn held(hold: &HoldGauges) -> Gauges {
    Gauges {
        in_flight: hold.forwarding,
        queued: hold.requests,
        oldest_wait_ms: hold.oldest_wait.0 / 1_000_000,
        ..Gauges::default()
    }
}
