//! Those who wait for a slot, or for a limit to allow that they have one, and how they get it.
//!
//! Each of them has a cell that a slot is put into, or the word that it gets none. Whoever frees a slot puts it there under
//! the lock of the queue: it is never free in between, and none is put where nobody takes it out.

use std::sync::Arc;

use corral_limiter::handoff::{Giver, Taker, pair};
use corral_limiter::queue::{Arrival, Dispatched, FairQueue, Shed, WaiterId};
use corral_limiter::{BucketId, Limiter, Nanos, Place as Claim, Terms, Ticket};
use hashbrown::HashMap;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::want::Want;
use crate::core::{Core, State};

/// Nobody is asked again sooner than this.
pub(super) const SOONEST: Nanos = Nanos::from_millis(1);

/// Those who wait.
#[derive(Debug, Default)]
pub(crate) struct Hall {
    last: u64,
    waiting: HashMap<WaiterId, Waiter>,
    /// What those hold whose limits are asked again when a slot is there; they take it back with their slot.
    asking: HashMap<WaiterId, Ticket>,
    /// For how long all who wait will probably hold their slots, in nanoseconds.
    work: u128,
    recall: Recall,
}

#[derive(Debug)]
struct Waiter {
    cell: Giver<Given>,
    /// For how long it will probably hold its slot.
    slot_time: Nanos,
}

/// When somebody may have a slot though nobody gives one back.
#[derive(Debug, Default)]
struct Recall {
    at: Option<Nanos>,
    changed: Arc<Notify>,
}

/// What one who waits is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// A slot, since then.
    Slot(Nanos),
    /// The word that it gets none.
    Shed(Shed),
}

/// How a request has come in.
#[derive(Debug)]
pub(super) enum Arrived {
    /// It has its slot.
    Started,
    /// It waits for it.
    Waits(Wait),
    /// It may come only then.
    Booked(Nanos),
}

/// Waits for a slot.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) cell: Taker<Given>,
    /// Until when.
    pub(super) deadline: Nanos,
}

impl Hall {
    pub(super) fn next_id(&mut self) -> WaiterId {
        self.last += 1;
        WaiterId(self.last)
    }

    /// A request comes to the queue, or books its place in it. Those who had to go for it are told.
    pub(super) fn arrive(
        &mut self,
        queue: &mut FairQueue,
        (id, want): (WaiterId, &Want),
        (claim, terms): (Claim, &Terms),
        now: Nanos,
    ) -> Result<Arrived, Shed> {
        if terms.delay > Nanos::ZERO {
            queue.book(id, claim.flow, want.bytes)?;
            return Ok(Arrived::Booked(now.plus(terms.delay)));
        }
        let arrived = queue.arrive(id, want.wish(claim, terms), now)?;
        for (other, shed) in arrived.pushed_out {
            self.give(other, Given::Shed(shed));
        }
        Ok(self.seat(id, want.slot_time, arrived.arrival))
    }

    /// A request that has booked its place comes to the queue.
    pub(super) fn join(
        &mut self,
        queue: &mut FairQueue,
        (id, want): (WaiterId, &Want),
        (claim, terms): (Claim, &Terms),
        now: Nanos,
    ) -> Arrived {
        let arrival = queue.join(id, want.wish(claim, terms), now);
        self.seat(id, want.slot_time, arrival)
    }

    /// Has one who waits find what it is given.
    pub(super) fn seat(&mut self, id: WaiterId, slot_time: Nanos, arrival: Arrival) -> Arrived {
        let Arrival::Wait { deadline } = arrival else {
            return Arrived::Started;
        };
        let (giver, taker) = pair();
        self.work += u128::from(slot_time.0);
        self.waiting.insert(id, Waiter { cell: giver, slot_time });
        Arrived::Waits(Wait { cell: taker, deadline })
    }

    /// Puts it into the cell of one who waits; false if that one has gone.
    fn give(&mut self, id: WaiterId, given: Given) -> bool {
        self.unseat(id).is_some_and(|waiter| waiter.cell.give(given).is_ok())
    }

    fn unseat(&mut self, id: WaiterId) -> Option<Waiter> {
        let waiter = self.waiting.remove(&id)?;
        self.work = self.work.saturating_sub(waiter.slot_time.0.into());
        Some(waiter)
    }

    /// Keeps what a request holds until it has its slot.
    pub(super) fn keep(&mut self, id: WaiterId, ticket: Ticket) {
        self.asking.insert(id, ticket);
    }

    /// Gives it back.
    pub(super) fn take_back(&mut self, id: WaiterId) -> Option<Ticket> {
        self.asking.remove(&id)
    }

    /// A request has gone.
    pub(super) fn leave(&mut self, id: WaiterId) {
        self.unseat(id);
    }

    /// Whether somebody's limits are still to be asked, so that what others give back may be what it waits for.
    pub(super) fn somebody_asks(&self) -> bool {
        !self.asking.is_empty()
    }

    /// For how long all who wait will probably hold their slots.
    pub(crate) fn work(&self) -> Nanos {
        Nanos(u64::try_from(self.work).unwrap_or(u64::MAX))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.asking.is_empty() && self.work == 0
    }
}

impl State {
    /// Hands every free slot to who is next for it and whose limits allow it.
    pub(crate) fn dispatch(&mut self, now: Nanos) {
        // What was meant for one who left at this very moment goes to who is next.
        while self.hand_out(now) {}
    }

    /// Says whether a slot came back.
    fn hand_out(&mut self, now: Nanos) -> bool {
        let Self { limiter, queue, hall } = self;
        let Hall { waiting, asking, .. } = hall;
        let mut held_back = HeldBack::default();
        let Dispatched { started, late } = queue.dispatch(now, |id| {
            let present = waiting.get(&id).is_some_and(|waiter| waiter.cell.is_wanted());
            present && asking.get_mut(&id).is_none_or(|ticket| held_back.let_go(limiter, ticket, now))
        });
        for (id, shed) in late {
            hall.give(id, Given::Shed(shed));
        }
        let mut came_back = false;
        for id in started {
            if !hall.give(id, Given::Slot(now)) {
                queue.leave(id, now);
                came_back = true;
            }
        }
        let look = queue.next_look(now).map(|at| at.max(now.plus(SOONEST)));
        hall.recall.set(held_back.again.into_iter().chain(look).min());
        came_back
    }
}

/// What limits say to those whose turn it is.
#[derive(Default)]
struct HeldBack {
    /// Buckets that somebody waits for whose turn came before: who comes after takes nothing from them.
    buckets: SmallVec<[BucketId; 2]>,
    /// When the first of them may be asked again.
    again: Option<Nanos>,
}

impl HeldBack {
    /// Asks the limits that were left to be asked.
    fn let_go(&mut self, limiter: &mut Limiter, ticket: &mut Ticket, now: Nanos) -> bool {
        if self.buckets.iter().any(|bucket| limiter.draws_on(ticket, *bucket, now)) {
            return false;
        }
        let Err(blocked) = limiter.dispatch(ticket, now) else {
            return true;
        };
        self.buckets.extend(blocked.bucket);
        if let Some(wait) = blocked.wait {
            let at = now.plus(wait.max(SOONEST));
            self.again = Some(self.again.map_or(at, |earliest| earliest.min(at)));
        }
        false
    }
}

impl Recall {
    fn set(&mut self, at: Option<Nanos>) {
        if self.at != at {
            self.at = at;
            self.changed.notify_one();
        }
    }
}

/// Asks those again whom limits hold back as soon as these allow it, and the queue when time alone has changed something;
/// until it is dropped.
pub(crate) async fn recall(core: &Core) {
    let changed = Arc::clone(&core.lock().hall.recall.changed);
    loop {
        let at = core.lock().hall.recall.at;
        let due = async {
            match at {
                Some(at) => sleep_until(core.clock().instant(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified() => {}
            () = due => core.lock().dispatch(core.clock().now()),
        }
    }
}
