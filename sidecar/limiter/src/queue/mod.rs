//! The queue in front of Ollama: first come first served for each model, bounded in number and in time.
//!
//! A full model blocks nobody who waits for another. The queue only says who is next; the caller tells them. After
//! every `arrive` that waits, and after `leave`, `release`, `set_bounds` and `set_slots`, call
//! [`SlotQueue::dispatch`]: it hands free slots to waiters, so that no waiter who may go stays beside a free slot.

mod estimate;
mod group;
mod load;

pub use load::QueueLoad;

use hashbrown::HashMap;
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

/// Names a request for as long as it waits or runs. The caller never gives one number to two that live together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// What becomes of a request that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It has a slot.
    Start,
    /// It waits for one, at most until then.
    Wait {
        /// `max_wait` from now. The caller watches it, and then calls [`SlotQueue::leave`].
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
    running: HashMap<WaiterId, Running>,
    times: ServiceTimes,
    /// Counts arrivals: the lower came first.
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting {
    model: ModelName,
    ticket: u64,
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
    pub fn arrive(&mut self, id: WaiterId, model: &ModelName, now: Nanos) -> Result<Arrival, QueueRefusal> {
        if self.has_slot(model) && self.nobody_could_use_a_slot() {
            self.start(id, model.clone(), now);
            return Ok(Arrival::Start);
        }
        self.check_bounds(model)?;
        let deadline = now.plus(self.bounds.max_wait);
        self.arrivals = self.arrivals.saturating_add(1);
        let ticket = self.arrivals;
        self.groups.entry(model.clone()).or_default().wait(ticket, Waiter { id, since: now });
        self.waiting.insert(id, Waiting { model: model.clone(), ticket });
        Ok(Arrival::Wait { deadline })
    }

    /// Hands every free slot to the waiter who is next for it, and names those who got one. `try_commit` is asked
    /// for each; `false` skips that waiter, who stays where it was, without blocking others.
    pub fn dispatch(
        &mut self,
        now: Nanos,
        mut try_commit: impl FnMut(WaiterId) -> bool,
    ) -> SmallVec<[WaiterId; 4]> {
        let mut started = SmallVec::new();
        let mut asked = 0;
        while let Some((ticket, id)) = self.next_after(asked) {
            asked = ticket;
            if try_commit(id)
                && let Some(waiting) = self.unlink(id)
            {
                self.start(id, waiting.model, now);
                started.push(id);
            }
        }
        started
    }

    /// A request has gone, or has waited as long as it may: a waiter is unlinked at once, a slot it had is free again without teaching anything.
    pub fn leave(&mut self, id: WaiterId) {
        self.unlink(id);
        self.stop(id);
    }

    /// A request that had a slot is done; the service time of its model is learned. Unknown ones are ignored.
    pub fn release(&mut self, id: WaiterId, now: Nanos) {
        if let Some(running) = self.stop(id) {
            self.times.learn(&running.model, now.since(running.since));
        }
    }

    /// How the queue stands.
    pub fn gauges(&self, now: Nanos) -> QueueGauges {
        let oldest = self.groups.values().filter_map(Group::head).map(|(_, waiter)| waiter.since).min();
        QueueGauges {
            depth: self.waiting.len(),
            in_flight: self.running.len(),
            oldest_wait: oldest.map_or(Nanos::ZERO, |since| now.since(since)),
        }
    }

    fn check_bounds(&self, model: &ModelName) -> Result<(), QueueRefusal> {
        let estimate = self.estimate(model);
        let max_wait = self.bounds.max_wait;
        let estimated_wait = estimate.unwrap_or(UNKNOWN_WAIT);
        let refuse = |reason| Err(QueueRefusal { reason, estimated_wait, max_wait });
        if self.waiting.len() >= usize::try_from(self.bounds.max_depth).unwrap_or(usize::MAX) {
            return refuse(QueueFull::Depth);
        }
        match estimate {
            Some(wait) if wait > max_wait && self.somebody_waits_for(model) => refuse(QueueFull::Wait),
            _ => Ok(()),
        }
    }

    /// How long one more waiter of the model would wait: the mean service time for each who is before it and for
    /// itself, over the slots of the model. None while nothing is known of the model. An estimate.
    pub fn estimate(&self, model: &ModelName) -> Option<Nanos> {
        let before = self.groups.get(model).map_or(0, Group::depth) as u64;
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

    fn nobody_could_use_a_slot(&self) -> bool {
        self.next_after(0).is_none()
    }

    /// The first waiter after a ticket for whom there is a slot.
    fn next_after(&self, ticket: u64) -> Option<(u64, WaiterId)> {
        if !self.has_any_slot() {
            return None;
        }
        let open = self.groups.values().filter(|group| group.has_slot(self.slots));
        open.filter_map(|group| group.next_after(ticket)).min()
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
