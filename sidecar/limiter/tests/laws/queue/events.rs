//! What can happen to a queue, at random.

use corral_limiter::{
    Nanos,
    queue::{Priority, QueueBounds, Slots, Strain},
};
use proptest::prelude::*;
use proptest::sample::Index;

use super::{
    oracle::WEIGHTS,
    world::{Asks, MEGABYTE, World},
};

/// Costs are told in these, so that two that differ, differ by much.
pub(crate) const COST: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Arrive(Asks),
    Book(Asks),
    Join(Index),
    /// Done, at so many tenths of what was estimated.
    Release(Index, u64),
    /// So many tenths of what was estimated are there.
    Progress(Index, u64),
    Again(Index, u64),
    Leave(Index),
    /// The callers of those whose deadline is over take them out.
    TimeOut,
    /// The limits of one who waits say no.
    Block(Index),
    Unblock,
    SetSlots(u32),
    SetCap(Index, Option<u32>),
    SetDepth(u32, u32),
    Strain(Index, Strain),
}

fn priority() -> impl Strategy<Value = Priority> {
    use Priority::{Critical, High, Low, Medium, Spare};
    prop_oneof![1 => Just(Critical), 2 => Just(High), 4 => Just(Medium), 2 => Just(Low), 1 => Just(Spare)]
}

/// At most 4 clients, so that they meet; now and then one with a weight that is none, or with a large body.
pub(crate) fn asks(runners: usize) -> impl Strategy<Value = Asks> {
    let weight = prop_oneof![9 => prop::sample::select(WEIGHTS.to_vec()), 1 => Just(0), 1 => Just(u32::MAX)];
    let bytes = prop_oneof![6 => 0..1000u64, 1 => 0..9 * MEGABYTE];
    let asks = (0..runners, 0..4u8, weight, priority(), 0..20u64, bytes, prop::bool::weighted(0.1));
    asks.prop_map(|(runner, client, weight, priority, cost, bytes, is_pending)| Asks {
        runner,
        client,
        weight,
        priority,
        cost: cost * COST,
        bytes,
        is_pending,
    })
}

fn strain() -> impl Strategy<Value = Strain> {
    use Strain::{Busy, HiddenWait, OutOfMemory};
    prop::sample::select(vec![Busy, HiddenWait, OutOfMemory])
}

/// Events, each so many nanoseconds after the one before.
pub(crate) fn events(runners: usize, apart: u64) -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![
        30 => asks(runners).prop_map(Event::Arrive),
        3 => asks(runners).prop_map(Event::Book),
        3 => any::<Index>().prop_map(Event::Join),
        16 => (any::<Index>(), 0..100u64).prop_map(|(which, tenths)| Event::Release(which, tenths)),
        8 => (any::<Index>(), 0..100u64).prop_map(|(which, tenths)| Event::Progress(which, tenths)),
        2 => (any::<Index>(), 0..100u64).prop_map(|(which, tenths)| Event::Again(which, tenths)),
        6 => any::<Index>().prop_map(Event::Leave),
        2 => Just(Event::TimeOut),
        4 => any::<Index>().prop_map(Event::Block),
        3 => Just(Event::Unblock),
        1 => (0..7u32).prop_map(Event::SetSlots),
        1 => (any::<Index>(), prop::option::of(0..4u32)).prop_map(|(which, cap)| Event::SetCap(which, cap)),
        1 => (0..12u32, 1..8u32).prop_map(|(depth, own)| Event::SetDepth(depth, own)),
        1 => (any::<Index>(), strain()).prop_map(|(which, strain)| Event::Strain(which, strain)),
    ];
    prop::collection::vec((0..apart, event), 1..150)
}

impl Event {
    /// The same with all on the first so many runners, and without strain.
    pub(crate) fn calm_on(self, runners: usize) -> Self {
        let fewer = |asks: Asks| Asks { runner: asks.runner % runners, ..asks };
        match self {
            Self::Arrive(asks) => Self::Arrive(fewer(asks)),
            Self::Book(asks) => Self::Book(fewer(asks)),
            Self::Strain(..) => Self::Unblock,
            other => other,
        }
    }
}

impl World {
    /// One step: the event, the dispatch that follows, and what must be so after it.
    pub(crate) fn step(&mut self, after: u64, event: Event) {
        self.now = self.now.plus(Nanos(after));
        self.happen(event);
        self.dispatch();
        self.check_gauges();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(asks) => self.arrive(asks),
            Event::Book(asks) => self.book(asks),
            Event::Join(which) if !self.booked.is_empty() => self.join(which.index(self.booked.len())),
            Event::Release(..) | Event::Progress(..) | Event::Again(..) if !self.running.is_empty() => {
                self.go_on(event);
            }
            Event::Leave(which) => self.somebody_leaves(which),
            Event::TimeOut => self.time_out(),
            Event::Block(which) if !self.waiting.is_empty() => {
                let waiter = self.waiting[which.index(self.waiting.len())];
                self.blocked.insert(waiter.id);
            }
            Event::Unblock => self.blocked.clear(),
            other => self.change(other),
        }
    }

    /// Somebody who runs goes on, or ends.
    fn go_on(&mut self, event: Event) {
        let one = |which: Index| self.running[which.index(self.running.len())];
        match event {
            Event::Release(which, tenths) => {
                let runs = one(which);
                self.release(runs.id, runs.asks.cost * tenths / 10);
            }
            Event::Progress(which, tenths) => {
                let runs = one(which);
                self.progress(runs.id, runs.asks.cost * tenths / 10);
            }
            Event::Again(which, tenths) => {
                let runs = one(which);
                self.again(runs.id, runs.asks.cost * tenths / 10, runs.asks.cost);
            }
            _ => {}
        }
    }

    fn somebody_leaves(&mut self, which: Index) {
        let running = self.running.iter().map(|runs| runs.id);
        let waiting = self.waiting.iter().map(|waiter| waiter.id);
        let all: Vec<_> = running.chain(waiting).chain(self.booked.iter().map(|(id, _)| *id)).collect();
        if !all.is_empty() {
            self.leave(all[which.index(all.len())]);
        }
    }

    /// The plan, or Ollama, is another.
    fn change(&mut self, event: Event) {
        match event {
            Event::SetSlots(per_model) => {
                self.slots = Slots { per_model: per_model.max(1), ..self.slots };
                self.queue.set_slots(Slots { per_model, ..self.slots });
            }
            Event::SetCap(which, cap) => {
                let place = which.index(self.runners.len());
                self.queue.set_cap(&self.runners[place].model, cap);
                self.caps.remove(&place);
                self.caps.extend(cap.map(|cap| (place, cap)));
            }
            Event::SetDepth(max_depth, max_depth_per_client) => {
                self.bounds = QueueBounds { max_depth, max_depth_per_client, ..self.bounds };
                self.queue.set_bounds(self.bounds);
            }
            Event::Strain(which, strain) => {
                let model = self.runners[which.index(self.runners.len())].model.clone();
                self.queue.strain(&model, strain, self.now);
            }
            _ => {}
        }
    }
}
