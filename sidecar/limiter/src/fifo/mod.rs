//! The queue in front of Ollama: first come first served for each model, bounded in number and in time.
//!
//! A full model blocks nobody who waits for another, and who may only have what is to spare is served when nobody else
//! could use the slot. The queue only says who is next; the caller tells them. After every `arrive` that waits, and
//! after `leave`, `release`, `set_bounds` and `set_slots`, call [`SlotQueue::dispatch`]: it hands free slots to
//! waiters, so that no waiter who may go stays beside a free slot.
//!
//! A request that may come only later, because a limit delays it, can book its place before: [`SlotQueue::book`].

mod estimate;
mod group;
mod load;

pub use load::QueueLoad;

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use self::{
    estimate::ServiceTimes,
    group::{Group, Waiter},
};
use crate::{ModelName, Nanos};

/// What is said of a wait when nothing has been learned of the model.
const UNKNOWN_WAIT: Nanos = Nanos::from_secs(1);

/// How many requests run at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotBounds {
    /// For one model; at least 1 (0 is taken as 1).
    pub per_model: u32,
    /// Over all models; at least 1 (0 is taken as 1).
    pub total: u32,
}

impl SlotBounds {
    fn at_least_one(self) -> Self {
        Self { per_model: self.per_model.max(1), total: self.total.max(1) }
    }
}

/// How many wait, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// The most that wait, all models together. 0: none waits, a busy pod refuses at once.
    pub max_depth: u32,
    /// The longest that one waits.
    pub max_wait: Nanos,
}

impl From<crate::QueueBounds> for QueueBounds {
    fn from(bounds: crate::QueueBounds) -> Self {
        Self { max_depth: bounds.max_depth, max_wait: bounds.max_wait }
    }
}

/// Names a request for as long as it waits or runs. The caller never gives one number to two that live together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// Who is served first, whenever they came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rank {
    /// Before all others.
    #[default]
    Normal,
    /// When nobody of the normal rank could use the slot.
    Spare,
}

/// What a request wants of the queue.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// A slot of this model.
    pub model: &'a ModelName,
    /// Its place among others.
    pub rank: Rank,
    /// Something is to be asked before it may start, so it waits until the next [`SlotQueue::dispatch`] at least.
    pub is_pending: bool,
    /// The longest that it waits, if that is less than the bound of the queue.
    pub max_wait: Option<Nanos>,
}

impl<'a> Wish<'a> {
    /// A slot, in its turn.
    pub fn slot(model: &'a ModelName) -> Self {
        Self { model, rank: Rank::Normal, is_pending: false, max_wait: None }
    }
}

/// What becomes of a request that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It has a slot.
    Start,
    /// It waits for one, at most until then.
    Wait {
        /// The bound of the queue from now, or less if it wished so. The caller watches it, and then calls [`SlotQueue::leave`].
        deadline: Nanos,
    },
}

/// Why a request was not let in. It has left no trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRefusal {
    /// Which bound it would exceed.
    pub reason: QueueFull,
    /// How long it would have waited, by what was learned of the model; 1 s when nothing was. An estimate.
    pub estimated_wait: Nanos,
    /// The longest that one may wait, as the bounds were.
    pub max_wait: Nanos,
}

/// A bound of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueFull {
    /// `max_depth` wait already.
    Depth,
    /// Others wait for the model, and one more would probably wait longer than `max_wait`. Where none waits, the
    /// estimate refuses nobody: it may be wrong, and only those who are let in can correct it.
    Wait,
}

/// How the queue stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueGauges {
    /// Requests that wait.
    pub depth: usize,
    /// Requests that have booked a place and come later.
    pub booked: usize,
    /// Requests that have a slot.
    pub in_flight: usize,
    /// How long the oldest waiter has waited; zero when none waits.
    pub oldest_wait: Nanos,
}

/// The queue. A model has a group in it only while one of its requests waits or runs, so there are never more groups
/// than slots and waiters.
#[derive(Debug)]
pub struct SlotQueue {
    slots: SlotBounds,
    bounds: QueueBounds,
    groups: HashMap<ModelName, Group>,
    waiting: HashMap<WaiterId, Waiting>,
    booked: HashSet<WaiterId>,
    /// How many of those who wait were last held back by something else than the want of a slot.
    held_back: usize,
    running: HashMap<WaiterId, Running>,
    times: ServiceTimes,
    /// Counts arrivals: the lower came first.
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting {
    model: ModelName,
    ticket: u64,
    is_held_back: bool,
}

#[derive(Debug)]
struct Running {
    model: ModelName,
    since: Nanos,
}

impl SlotQueue {
    /// Empty, and letting nobody wait until [`Self::set_bounds`].
    pub fn new(slots: SlotBounds) -> Self {
        Self {
            slots: slots.at_least_one(),
            bounds: QueueBounds { max_depth: 0, max_wait: Nanos::ZERO },
            groups: HashMap::new(),
            waiting: HashMap::new(),
            booked: HashSet::new(),
            held_back: 0,
            running: HashMap::new(),
            times: ServiceTimes::default(),
            arrivals: 0,
        }
    }

    /// New bounds, for those who come from now on. Who waits already stays, with the deadline it has.
    pub fn set_bounds(&mut self, bounds: QueueBounds) {
        self.bounds = bounds;
    }

    /// Another number of slots. The next [`Self::dispatch`] hands out those that are new; of those that are no more,
    /// the requests that have them keep them until they are done.
    pub fn set_slots(&mut self, slots: SlotBounds) {
        self.slots = slots.at_least_one();
    }

    /// How many requests may run at one time.
    pub fn slots(&self) -> SlotBounds {
        self.slots
    }

    /// A request comes: it gets a slot, waits, or is refused and leaves no trace. It never overtakes a waiter who might
    /// use the same slot; what it then takes is decided by [`Self::dispatch`].
    pub fn arrive(&mut self, id: WaiterId, wish: Wish<'_>, now: Nanos) -> Result<Arrival, QueueRefusal> {
        if self.starts_at_once(wish) {
            self.start(id, wish.model.clone(), now);
            return Ok(Arrival::Start);
        }
        self.check_bounds(wish)?;
        Ok(self.wait(id, wish, now))
    }

    /// Whether a request that comes now would start without waiting.
    pub fn starts_at_once(&self, wish: Wish<'_>) -> bool {
        let nobody_else = match wish.rank {
            Rank::Normal => self.next_after(Rank::Normal, 0).is_none(),
            Rank::Spare => self.next_after(Rank::Normal, 0).or(self.next_after(Rank::Spare, 0)).is_none(),
        };
        !wish.is_pending && self.has_slot(wish.model) && nobody_else
    }

    /// A request may come only later: it takes a place now, so that it is not refused then, or is refused and leaves no
    /// trace. It comes by [`Self::join`] or goes by [`Self::leave`].
    pub fn book(&mut self, id: WaiterId) -> Result<(), QueueRefusal> {
        if self.is_full() {
            return Err(self.refusal(QueueFull::Depth, None));
        }
        self.booked.insert(id);
        Ok(())
    }

    /// A request comes that has booked its place: it gets a slot, or waits.
    pub fn join(&mut self, id: WaiterId, wish: Wish<'_>, now: Nanos) -> Arrival {
        self.booked.remove(&id);
        if self.starts_at_once(wish) {
            self.start(id, wish.model.clone(), now);
            return Arrival::Start;
        }
        self.wait(id, wish, now)
    }

    fn wait(&mut self, id: WaiterId, wish: Wish<'_>, now: Nanos) -> Arrival {
        let Wish { model, rank, max_wait, .. } = wish;
        let deadline = now.plus(max_wait.unwrap_or(self.bounds.max_wait).min(self.bounds.max_wait));
        self.arrivals = self.arrivals.saturating_add(1);
        let ticket = self.arrivals;
        self.groups.entry(model.clone()).or_default().wait(rank, ticket, Waiter { id, since: now });
        self.waiting.insert(id, Waiting { model: model.clone(), ticket, is_held_back: false });
        Arrival::Wait { deadline }
    }

    /// Hands every free slot to the waiter who is next for it, and names those who got one. `try_commit` is asked
    /// for each; `false` skips that waiter, who stays where it was, without blocking others.
    pub fn dispatch(
        &mut self,
        now: Nanos,
        mut try_commit: impl FnMut(WaiterId) -> bool,
    ) -> SmallVec<[WaiterId; 4]> {
        let mut started = SmallVec::new();
        for rank in [Rank::Normal, Rank::Spare] {
            let mut asked = 0;
            while let Some((ticket, id)) = self.next_after(rank, asked) {
                asked = ticket;
                if !try_commit(id) {
                    self.hold_back(id);
                } else if let Some(waiting) = self.unlink(id) {
                    self.start(id, waiting.model, now);
                    started.push(id);
                }
            }
        }
        started
    }

    fn hold_back(&mut self, id: WaiterId) {
        if let Some(waiting) = self.waiting.get_mut(&id).filter(|waiting| !waiting.is_held_back) {
            waiting.is_held_back = true;
            self.held_back = self.held_back.saturating_add(1);
        }
    }

    /// A request has gone, or has waited as long as it may: a waiter is unlinked at once, a slot it had is free again without teaching anything.
    pub fn leave(&mut self, id: WaiterId) {
        self.booked.remove(&id);
        self.unlink(id);
        self.stop(id);
    }

    /// A request that had a slot is done; the service time of its model is learned. Unknown ones are ignored.
    pub fn release(&mut self, id: WaiterId, now: Nanos) {
        if let Some(running) = self.stop(id) {
            self.times.learn(&running.model, now.since(running.since));
        }
    }

    /// How many requests have a slot.
    pub fn in_flight(&self) -> usize {
        self.running.len()
    }

    /// How the queue stands.
    pub fn gauges(&self, now: Nanos) -> QueueGauges {
        let oldest = self.groups.values().filter_map(Group::oldest).map(|waiter| waiter.since).min();
        QueueGauges {
            depth: self.waiting.len(),
            booked: self.booked.len(),
            in_flight: self.in_flight(),
            oldest_wait: oldest.map_or(Nanos::ZERO, |since| now.since(since)),
        }
    }

    fn check_bounds(&self, wish: Wish<'_>) -> Result<(), QueueRefusal> {
        let estimate = self.estimate_behind(wish.model, wish.rank);
        if self.is_full() {
            return Err(self.refusal(QueueFull::Depth, estimate));
        }
        match estimate {
            Some(wait) if wait > self.bounds.max_wait && self.somebody_waits_for(wish.model) => {
                Err(self.refusal(QueueFull::Wait, estimate))
            }
            _ => Ok(()),
        }
    }

    fn is_full(&self) -> bool {
        let taken = self.waiting.len().saturating_add(self.booked.len());
        taken >= usize::try_from(self.bounds.max_depth).unwrap_or(usize::MAX)
    }

    fn refusal(&self, reason: QueueFull, estimate: Option<Nanos>) -> QueueRefusal {
        let estimated_wait = estimate.unwrap_or(UNKNOWN_WAIT);
        QueueRefusal { reason, estimated_wait, max_wait: self.bounds.max_wait }
    }

    /// How long one more waiter of the model would wait: the mean service time for each who is before it and for
    /// itself, over the slots of the model. None while nothing is known of the model. An estimate.
    pub fn estimate(&self, model: &ModelName) -> Option<Nanos> {
        self.estimate_behind(model, Rank::Normal)
    }

    fn estimate_behind(&self, model: &ModelName, rank: Rank) -> Option<Nanos> {
        let before = self.groups.get(model).map_or(0, |group| group.before(rank)) as u64;
        let slots = u64::from(self.slots.per_model.min(self.slots.total));
        let work = self.times.mean(model)?.0.saturating_mul(before.saturating_add(1));
        work.checked_div(slots).map(Nanos)
    }

    fn somebody_waits_for(&self, model: &ModelName) -> bool {
        self.groups.get(model).is_some_and(|group| group.depth() > 0)
    }

    fn has_slot(&self, model: &ModelName) -> bool {
        self.has_any_slot() && self.groups.get(model).is_none_or(|group| group.has_slot(self.slots))
    }

    fn has_any_slot(&self) -> bool {
        self.running.len() < usize::try_from(self.slots.total).unwrap_or(usize::MAX)
    }

    /// The first waiter of a rank after a ticket for whom there is a slot.
    fn next_after(&self, rank: Rank, ticket: u64) -> Option<(u64, WaiterId)> {
        if !self.has_any_slot() {
            return None;
        }
        let open = self.groups.values().filter(|group| group.has_slot(self.slots));
        open.filter_map(|group| group.next_after(rank, ticket)).min()
    }

    fn start(&mut self, id: WaiterId, model: ModelName, now: Nanos) {
        self.groups.entry(model.clone()).or_default().start();
        self.running.insert(id, Running { model, since: now });
    }

    fn stop(&mut self, id: WaiterId) -> Option<Running> {
        let running = self.running.remove(&id)?;
        self.change(&running.model, Group::stop);
        Some(running)
    }

    fn unlink(&mut self, id: WaiterId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.held_back = self.held_back.saturating_sub(usize::from(waiting.is_held_back));
        self.change(&waiting.model, |group| group.unlink(waiting.ticket));
        Some(waiting)
    }

    /// Changes a group, and drops it when nothing of it is left.
    fn change(&mut self, model: &ModelName, change: impl FnOnce(&mut Group)) {
        if let Some(group) = self.groups.get_mut(model) {
            change(group);
            if group.is_idle() {
                self.groups.remove(model);
            }
        }
    }
}
