//! Those who wait for a slot, or for a limit to allow that they have one, and how to wake them.

use std::sync::Arc;

use corral_limiter::fifo::{Arrival, QueueRefusal, Rank, SlotQueue, WaiterId, Wish};
use corral_limiter::{BucketId, Limiter, ModelName, Nanos, Terms, Ticket};
use hashbrown::HashMap;
use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep_until;

use crate::core::{Core, State};

/// Nobody is asked again sooner than this.
pub(super) const SOONEST: Nanos = Nanos::from_millis(1);

/// Those who wait.
#[derive(Debug, Default)]
pub(crate) struct Hall {
    last: u64,
    waiting: HashMap<WaiterId, oneshot::Sender<()>>,
    /// What those hold whose limits are asked again when a slot is there; they take it back with their slot.
    asking: HashMap<WaiterId, Ticket>,
    recall: Recall,
}

/// When somebody whom a limit holds back may be asked again.
#[derive(Debug, Default)]
struct Recall {
    at: Option<Nanos>,
    changed: Arc<Notify>,
}

/// How a request has come in.
#[derive(Debug)]
pub(super) enum Arrived {
    /// It has its slot.
    Started,
    /// It rings when its slot is there.
    Waits(Bell),
    /// It may come only then.
    Booked(Nanos),
}

/// Rings when a slot is there.
#[derive(Debug)]
pub(super) struct Bell {
    pub(super) rings: oneshot::Receiver<()>,
    /// Until when it is waited for.
    pub(super) deadline: Nanos,
}

/// What a request wants of the queue, on the terms on which its limits let it in.
pub(super) fn wish<'a>(model: &'a ModelName, terms: &Terms) -> Wish<'a> {
    Wish {
        model,
        rank: if terms.is_deprioritized { Rank::Spare } else { Rank::Normal },
        is_pending: terms.asks_again_for.is_some(),
        max_wait: terms.asks_again_for,
    }
}

impl Hall {
    pub(super) fn next_id(&mut self) -> WaiterId {
        self.last += 1;
        WaiterId(self.last)
    }

    /// A request comes to the queue, or books its place in it.
    pub(super) fn arrive(
        &mut self,
        queue: &mut SlotQueue,
        (id, model): (WaiterId, &ModelName),
        terms: &Terms,
        now: Nanos,
    ) -> Result<Arrived, QueueRefusal> {
        if terms.delay > Nanos::ZERO {
            queue.book(id)?;
            return Ok(Arrived::Booked(now.plus(terms.delay)));
        }
        let arrival = queue.arrive(id, wish(model, terms), now)?;
        Ok(self.seat(id, arrival))
    }

    /// A request that has booked its place comes to the queue.
    pub(super) fn join(
        &mut self,
        queue: &mut SlotQueue,
        (id, model): (WaiterId, &ModelName),
        terms: &Terms,
        now: Nanos,
    ) -> Arrived {
        let arrival = queue.join(id, wish(model, terms), now);
        self.seat(id, arrival)
    }

    fn seat(&mut self, id: WaiterId, arrival: Arrival) -> Arrived {
        let Arrival::Wait { deadline } = arrival else {
            return Arrived::Started;
        };
        let (wake, rings) = oneshot::channel();
        self.waiting.insert(id, wake);
        Arrived::Waits(Bell { rings, deadline })
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
        self.waiting.remove(&id);
    }

    /// Whether somebody's limits are still to be asked, so that what others give back may be what it waits for.
    pub(super) fn somebody_asks(&self) -> bool {
        !self.asking.is_empty()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.asking.is_empty()
    }
}

impl State {
    /// Hands every free slot to who is next for it and whose limits allow it. One that leaves at this moment still holds
    /// its place, and gives it back when it takes the lock.
    pub(crate) fn dispatch(&mut self, now: Nanos) {
        let Self { limiter, queue, hall } = self;
        let Hall { waiting, asking, recall, .. } = hall;
        let mut held_back = HeldBack::default();
        let started = queue.dispatch(now, |id| {
            let present = waiting.get(&id).is_some_and(|wake| !wake.is_closed());
            present && asking.get_mut(&id).is_none_or(|ticket| held_back.let_go(limiter, ticket, now))
        });
        recall.set(held_back.again);
        for id in started {
            if let Some(wake) = waiting.remove(&id) {
                let _ = wake.send(());
            }
        }
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

/// Asks those again whom limits hold back, as soon as these allow it; until it is dropped.
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
