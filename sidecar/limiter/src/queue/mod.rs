//! The token fair queue in front of Ollama: who gets the next slot, who may wait, and who is told to come back.
//!
//! ```text
//! band (interactive 16, standard 4, batch 1, spare)         whoever is furthest behind, by what it has had over its weight
//!   └─ flow (a client at one priority, its tier's weight)   the same among the flows of the band
//!        └─ lane (of one runner), first come first served
//! ```
//!
//! Fairness is in slot time: a request is charged an estimate when it starts, more while it goes beyond it, and what it
//! really cost when it ends (`account`). A full runner blocks nobody who waits for another one; models that are not
//! loaded are loaded one at a time and for a price (`models`). What waits is bounded in number, bytes and time, in all and
//! for each client (`bounds`); when the queue is full, who has the most waiting of those with the least claim makes room.
//!
//! Every method is a step: the time and what happened go in, what is to be done comes out. There is no clock in here, and
//! nobody is called back. After whatever may let somebody go (`leave`, `release`, `again`, `time_out`, `set_…`, `loaded`, an
//! arrival that waits) call [`FairQueue::dispatch`], and again at [`FairQueue::next_look`]: after it no waiter who may go is
//! left beside a free slot.
//!
//! Costs of steps, with F flows, G runners that are asked for and the number of bands fixed: `progress` O(1) without
//! allocating; `arrive`, `leave`, `release` O(log F); `dispatch` O(G + log F) for each who starts, and for each
//! flow that was next and that its limits hold back.

mod account;
mod adapt;
mod arrive;
mod band_time;
mod bounds;
mod codel;
mod dispatch;
mod ending;
mod flows;
mod gauges;
mod group;
mod groups;
mod load;
mod models;
mod predict;
mod priority;
mod service;
mod wish;

use hashbrown::HashMap;

use self::{
    account::{Account, Virtual},
    band_time::BandTime,
    bounds::Share,
    codel::Codel,
    flows::{FlowId, Flows, GroupId},
    group::{Group, Ticket},
    groups::Groups,
    models::{Models, Use},
    service::ServiceTimes,
};
pub use self::{
    adapt::Strain,
    bounds::{QueueBounds, Slots},
    gauges::{BandGauges, ModelGauges, QueueGauges},
    load::QueueLoad,
    priority::{Band, FlowKey, Priority},
    wish::{Arrival, Arrived, Dispatched, Due, Runner, Shed, ShedReason, WaiterId, Wish},
};
use crate::{ModelName, Nanos};

/// For so long after a critical request its reserve of slots is kept.
const RESERVE_KEPT: Nanos = Nanos::from_secs(60);
/// A model of so many slots or more has one in reserve.
const SLOTS_WITH_RESERVE: u32 = 4;

/// The queue.
#[derive(Debug, Clone)]
pub struct FairQueue {
    slots: Slots,
    bounds: QueueBounds,
    entries: HashMap<WaiterId, Entry>,
    /// What each client has in the queue, waiting or booked.
    clients: HashMap<FlowKey, Share>,
    bands: [BandState; 4],
    /// Virtual time of the bands.
    time: Virtual,
    flows: Flows,
    groups: Groups,
    models: Models,
    times: ServiceTimes,
    /// Waiting and booked, all clients together.
    all: Share,
    waiting: usize,
    running: usize,
    /// How many of those who wait were last held back by something else than the want of a slot.
    held_back: usize,
    last_critical: Option<Nanos>,
    tickets: u64,
}

/// What is kept of a request.
#[derive(Debug, Clone)]
enum Entry {
    Booked { client: FlowKey, bytes: u64 },
    Waiting(Waiting),
    Running(Running),
}

#[derive(Debug, Clone)]
struct Waiting {
    client: FlowKey,
    flow: FlowId,
    group: GroupId,
    ticket: Ticket,
    cost: u64,
    bytes: u64,
    since: Nanos,
    due: Option<Due>,
    is_held_back: bool,
}

#[derive(Debug, Clone)]
struct Running {
    client: FlowKey,
    flow: FlowId,
    group: GroupId,
    /// What it was estimated to cost, and what it is held to cost by now.
    estimate: u64,
    held: u64,
    /// When it was charged, to its flow and to its band.
    epochs: (u32, u32),
    since: Nanos,
}

/// One band.
#[derive(Debug, Clone)]
struct BandState {
    account: Account,
    /// Virtual time of its flows.
    time: BandTime,
    waiting: u32,
    running: u32,
    codel: Codel,
    /// What its requests have really cost, since the beginning.
    served: u64,
}

impl FairQueue {
    /// Empty, and letting nobody wait until [`Self::set_bounds`].
    pub fn new(slots: Slots) -> Self {
        let band = |band: Band| BandState {
            account: Account::new(band.weight_milli(), Virtual::default()),
            time: BandTime::default(),
            waiting: 0,
            running: 0,
            codel: Codel::default(),
            served: 0,
        };
        Self {
            slots: slots.at_least_one(),
            bounds: QueueBounds::default(),
            entries: HashMap::new(),
            clients: HashMap::new(),
            bands: Band::ALL.map(band),
            time: Virtual::default(),
            flows: Flows::default(),
            groups: Groups::default(),
            models: Models::default(),
            times: ServiceTimes::default(),
            all: Share::default(),
            waiting: 0,
            running: 0,
            held_back: 0,
            last_critical: None,
            tickets: 0,
        }
    }

    /// New bounds, for those who come from now on. Who waits already stays, with the deadline it has.
    pub fn set_bounds(&mut self, bounds: QueueBounds) {
        self.bounds = bounds;
    }

    /// Another number of slots. The next [`Self::dispatch`] hands out those that are new; of those that are no more,
    /// the requests that have them keep them until they are done.
    pub fn set_slots(&mut self, slots: Slots) {
        self.slots = slots.at_least_one();
    }

    /// How many requests may run at one time.
    pub fn slots(&self) -> Slots {
        self.slots
    }

    /// Fewer slots for one model than others have; none: as many as they. At most 256 models are remembered.
    pub fn set_cap(&mut self, model: &ModelName, cap: Option<u32>) {
        self.models.set_cap(model, cap);
    }

    /// The first byte of an answer has come: whatever load there was is over.
    pub fn loaded(&mut self, runner: &Runner, now: Nanos) {
        self.models.loaded(runner, now);
    }

    /// What Ollama has loaded: models of which nothing is in flight and that are not among these are loaded no more.
    pub fn seen_loaded(&mut self, loaded: &[ModelName]) {
        let groups = &self.groups;
        self.models.seen(loaded, self.slots.models, |runner| groups.used(runner).running);
    }

    /// A sign that Ollama has too much of a model: its slots become fewer for a while.
    pub fn strain(&mut self, model: &ModelName, strain: Strain, now: Nanos) {
        let service = self.times.mean(model).unwrap_or(Nanos::ZERO);
        self.models.strain(model, (strain, service), self.slots.per_model, now);
    }

    /// When to call [`Self::dispatch`] though nothing happens until then; none: nothing is waited for but events.
    pub fn next_look(&self, now: Nanos) -> Option<Nanos> {
        if self.waiting == 0 {
            return None;
        }
        let reserve = self.last_critical.map(|last| last.plus(RESERVE_KEPT)).filter(|end| *end > now);
        let used = |runner: &Runner| self.groups.used(runner);
        let strangers = self.groups.iter().filter(|(_, group)| self.waits_for_load(group));
        let swap = strangers.filter_map(|(_, group)| self.models.next_change(&group.runner, used, now)).min();
        let tries = self.groups.iter().filter_map(|(_, group)| group.next_try()).filter(|at| *at > now);
        [reserve, swap, self.models.next_recovery(now), tries.min()].into_iter().flatten().min()
    }

    fn band(&self, band: Band) -> &BandState {
        // There are as many as bands: one for each.
        let [interactive, standard, batch, spare] = &self.bands;
        match band {
            Band::Interactive => interactive,
            Band::Standard => standard,
            Band::Batch => batch,
            Band::Spare => spare,
        }
    }

    fn band_mut(&mut self, band: Band) -> &mut BandState {
        let [interactive, standard, batch, spare] = &mut self.bands;
        match band {
            Band::Interactive => interactive,
            Band::Standard => standard,
            Band::Batch => batch,
            Band::Spare => spare,
        }
    }

    /// How many requests of a model may run, as things are now.
    fn slots_of(&self, model: &ModelName) -> u32 {
        self.models.slots(model, self.slots.per_model)
    }

    /// Whether a request of this priority may start on this runner.
    fn is_open(&self, runner: &Runner, priority: Priority, now: Nanos) -> bool {
        let slots = self.slots_of(&runner.model);
        let kept = self.reserve(slots, now);
        let has_slot = self.groups.of(runner).is_none_or(|group| group.has_slot(priority, slots, kept));
        has_slot && self.models.admits(runner, self.slots.models, |runner| self.groups.used(runner), now)
    }

    /// Whether somebody waits for a runner that is not loaded.
    fn waits_for_load(&self, group: &Group) -> bool {
        group.has_waiters() && !self.models.is_resident(&group.runner)
    }

    /// Slots that only critical requests may have: one, for a minute after the last of them.
    fn reserve(&self, slots: u32, now: Nanos) -> u32 {
        let seen = self.last_critical.is_some_and(|last| now.since(last) < RESERVE_KEPT);
        u32::from(seen && slots >= SLOTS_WITH_RESERVE)
    }

    /// Whether whoever came last goes first: where somebody looks at a screen, and the queue stands.
    fn newest_first(&self, band: Band) -> bool {
        band == Band::Interactive && self.band(band).codel.stands()
    }

    /// Puts a flow in line again: for this runner, where somebody of it has come or gone, and wherever it waits if its key
    /// or its weight has changed.
    fn line_up(&mut self, flow: FlowId, group: GroupId) {
        self.flows.weigh(flow);
        let Some(known) = self.flows.get_mut(flow) else { return };
        let (key, weight) = (known.account.key(), known.account.weight());
        let is_moved = known.lined_up.replace((key, weight)) != Some((key, weight));
        let groups = known.lanes.iter().filter(|lane| is_moved || **lane == group);
        for group in groups {
            if let Some(group) = self.groups.get_mut(*group) {
                group.line_up(flow, key, weight);
            }
        }
    }
}

impl Running {
    /// What it is held to cost beyond what it was before.
    fn grow(&mut self, cost: u64) -> u64 {
        let more = cost.saturating_sub(self.held);
        self.held = self.held.saturating_add(more);
        more
    }
}

impl Use {
    const NONE: Self = Self { running: 0, run_for: None, waited_for: None, weight: 0 };
}

#[cfg(test)]
mod tests;
