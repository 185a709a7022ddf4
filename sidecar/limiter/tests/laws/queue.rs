//! Law 12, for the first-come queue: one outcome each, no eligible waiter beside a free slot, and nothing left at rest;
//! and who may only have what is to spare never gets a slot that another could use.

use std::collections::{BTreeMap, BTreeSet};

use corral_limiter::{
    ModelName, Nanos,
    fifo::{Arrival, QueueBounds, QueueFull, QueueGauges, Rank, SlotBounds, SlotQueue, WaiterId, Wish},
};
use proptest::prelude::*;

use crate::support::model;

#[derive(Debug, Clone, Copy)]
enum Event {
    Arrive(u8, Rank, bool),
    Book(u8, Rank),
    Join(prop::sample::Index),
    Release(prop::sample::Index),
    Leave(prop::sample::Index),
    /// The callers of those whose deadline is over take them out.
    TimeOut,
    Block(prop::sample::Index),
    Unblock,
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let rank = || prop_oneof![3 => Just(Rank::Normal), 1 => Just(Rank::Spare)];
    let event = prop_oneof![
        6 => (0..4u8, rank(), prop::bool::weighted(0.2)).prop_map(|(model, rank, pending)| Event::Arrive(model, rank, pending)),
        1 => (0..4u8, rank()).prop_map(|(model, rank)| Event::Book(model, rank)),
        1 => any::<prop::sample::Index>().prop_map(Event::Join),
        4 => any::<prop::sample::Index>().prop_map(Event::Release),
        1 => any::<prop::sample::Index>().prop_map(Event::Leave),
        1 => Just(Event::TimeOut),
        1 => any::<prop::sample::Index>().prop_map(Event::Block),
        1 => Just(Event::Unblock),
    ];
    prop::collection::vec((0..3_000_000_000u64, event), 1..120)
}

/// What must be so, kept in plain lists.
struct Watch {
    queue: SlotQueue,
    slots: SlotBounds,
    /// In the order of arrival.
    waiting: Vec<Waiter>,
    booked: Vec<(WaiterId, u8, Rank)>,
    running: BTreeMap<WaiterId, u8>,
    over: BTreeSet<WaiterId>,
    blocked: BTreeSet<WaiterId>,
    now: Nanos,
    next: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiter {
    id: WaiterId,
    model: u8,
    rank: Rank,
    deadline: Nanos,
}

impl Watch {
    fn new(slots: SlotBounds, bounds: QueueBounds) -> Self {
        let mut queue = SlotQueue::new(slots);
        queue.set_bounds(bounds);
        let (waiting, booked, running, over, blocked) = Default::default();
        Self { queue, slots, waiting, booked, running, over, blocked, now: Nanos(0), next: 0 }
    }

    fn has_slot(&self, number: u8) -> bool {
        let of_model = self.running.values().filter(|running| **running == number).count();
        of_model < self.slots.per_model as usize && self.running.len() < self.slots.total as usize
    }

    /// Whether one who comes now must wait: for want of a slot, for those before, or to be asked.
    fn must_wait(&self, number: u8, rank: Rank, is_pending: bool) -> bool {
        let before = |waiter: &Waiter| rank == Rank::Spare || waiter.rank == Rank::Normal;
        let could_go = self.waiting.iter().any(|waiter| before(waiter) && self.has_slot(waiter.model));
        is_pending || !self.has_slot(number) || could_go
    }

    fn arrive(&mut self, number: u8, rank: Rank, is_pending: bool, bounds: QueueBounds) {
        self.next += 1;
        let id = WaiterId(self.next);
        let must_wait = self.must_wait(number, rank, is_pending);
        let model = model(number);
        match self.queue.arrive(id, Wish { rank, is_pending, ..Wish::slot(&model) }, self.now) {
            Ok(arrival) => {
                assert!(!must_wait || self.waiting.len() + self.booked.len() < bounds.max_depth as usize);
                let deadline = self.now.plus(bounds.max_wait);
                self.let_in(Waiter { id, model: number, rank, deadline }, arrival, must_wait);
            }
            Err(refusal) => {
                assert!(must_wait);
                let taken = self.waiting.len() + self.booked.len();
                match refusal.reason {
                    QueueFull::Depth => assert_eq!(taken, bounds.max_depth as usize),
                    QueueFull::Wait => {
                        assert!(refusal.estimated_wait > bounds.max_wait);
                        assert!(self.waiting.iter().any(|waiter| waiter.model == number));
                    }
                }
                self.over.insert(id);
            }
        }
    }

    fn let_in(&mut self, waiter: Waiter, arrival: Arrival, must_wait: bool) {
        match arrival {
            Arrival::Start => {
                assert!(!must_wait);
                self.running.insert(waiter.id, waiter.model);
            }
            Arrival::Wait { deadline } => {
                assert!(must_wait);
                assert_eq!(deadline, waiter.deadline);
                self.waiting.push(waiter);
            }
        }
    }

    fn book(&mut self, number: u8, rank: Rank, bounds: QueueBounds) {
        self.next += 1;
        let id = WaiterId(self.next);
        let full = self.waiting.len() + self.booked.len() >= bounds.max_depth as usize;
        assert_eq!(self.queue.book(id).is_err(), full);
        if full {
            self.over.insert(id);
        } else {
            self.booked.push((id, number, rank));
        }
    }

    /// Whoever has booked is let in, however full the queue is by then.
    fn join(&mut self, which: prop::sample::Index, bounds: QueueBounds) {
        if self.booked.is_empty() {
            return;
        }
        let (id, number, rank) = self.booked.remove(which.index(self.booked.len()));
        let must_wait = self.must_wait(number, rank, false);
        let model = model(number);
        let arrival = self.queue.join(id, Wish { rank, ..Wish::slot(&model) }, self.now);
        let deadline = self.now.plus(bounds.max_wait);
        self.let_in(Waiter { id, model: number, rank, deadline }, arrival, must_wait);
    }

    /// Dispatches; checks that those go who came first of the eligible, the normal ones before the others, and that none
    /// of them stays.
    fn dispatch(&mut self) {
        let blocked = self.blocked.clone();
        for id in self.queue.dispatch(self.now, |id| !blocked.contains(&id)) {
            let first = self.first_eligible().unwrap();
            assert_eq!(first.id, id);
            self.running.insert(id, first.model);
            self.waiting.retain(|waiter| waiter.id != id);
        }
        assert_eq!(self.first_eligible(), None);
    }

    fn first_eligible(&self) -> Option<Waiter> {
        let of = |rank| {
            let eligible = |waiter: &&Waiter| {
                waiter.rank == rank && !self.blocked.contains(&waiter.id) && self.has_slot(waiter.model)
            };
            self.waiting.iter().find(eligible).copied()
        };
        of(Rank::Normal).or_else(|| of(Rank::Spare))
    }

    fn end(&mut self, id: WaiterId) {
        self.running.remove(&id);
        self.waiting.retain(|waiter| waiter.id != id);
        self.booked.retain(|(booked, ..)| *booked != id);
        assert!(self.over.insert(id), "two outcomes");
    }

    fn time_out(&mut self) {
        let now = self.now;
        let late = self.waiting.iter().filter(|waiter| waiter.deadline <= now).map(|waiter| waiter.id);
        for id in late.collect::<Vec<_>>() {
            self.queue.leave(id);
            self.end(id);
        }
    }

    fn next_left(&self) -> Option<WaiterId> {
        let waiting = self.waiting.first().map(|waiter| waiter.id);
        let booked = self.booked.first().map(|(id, ..)| *id);
        self.running.keys().next().copied().or(waiting).or(booked)
    }

    fn step(&mut self, event: Event, bounds: QueueBounds) {
        let running: Vec<_> = self.running.keys().copied().collect();
        let all: Vec<_> = running
            .iter()
            .copied()
            .chain(self.waiting.iter().map(|waiter| waiter.id))
            .chain(self.booked.iter().map(|(id, ..)| *id))
            .collect();
        match event {
            Event::Arrive(number, rank, is_pending) => self.arrive(number, rank, is_pending, bounds),
            Event::Book(number, rank) => self.book(number, rank, bounds),
            Event::Join(which) => self.join(which, bounds),
            Event::Release(which) if !running.is_empty() => {
                let id = running[which.index(running.len())];
                self.queue.release(id, self.now);
                self.end(id);
            }
            Event::Leave(which) if !all.is_empty() => {
                let id = all[which.index(all.len())];
                self.queue.leave(id);
                self.end(id);
            }
            Event::TimeOut => self.time_out(),
            Event::Block(which) if !all.is_empty() => {
                self.blocked.insert(all[which.index(all.len())]);
            }
            Event::Unblock => self.blocked.clear(),
            _ => {}
        }
        self.dispatch();
        let gauges = self.queue.gauges(self.now);
        let seen = (gauges.depth, gauges.in_flight, gauges.booked);
        assert_eq!(seen, (self.waiting.len(), self.running.len(), self.booked.len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_request_has_one_outcome_and_no_eligible_waiter_stays_beside_a_free_slot(
        per_model in 1..3u32, total in 1..5u32, max_depth in 0..6u32, max_wait in 1..20u64, events in events(),
    ) {
        let bounds = bounds(max_depth, max_wait);
        let mut watch = Watch::new(SlotBounds { per_model, total }, bounds);
        for (after, event) in events {
            watch.now = watch.now.plus(Nanos(after));
            watch.step(event, bounds);
        }
        watch.blocked.clear();
        while let Some(id) = watch.next_left() {
            watch.queue.leave(id);
            watch.end(id);
            watch.dispatch();
        }
        prop_assert_eq!(watch.over.len() as u64, watch.next);
        prop_assert_eq!(watch.queue.gauges(watch.now), QueueGauges::default());
    }
}

fn bounds(max_depth: u32, max_wait: u64) -> QueueBounds {
    let max_wait = Nanos::from_secs(max_wait);
    QueueBounds { max_depth, max_wait }
}

fn queue(max_depth: u32, max_wait: u64) -> (SlotQueue, ModelName) {
    let mut queue = SlotQueue::new(SlotBounds { per_model: 1, total: 2 });
    queue.set_bounds(bounds(max_depth, max_wait));
    (queue, model(0))
}

#[test]
fn a_full_model_blocks_nobody_who_waits_for_another() {
    let (mut queue, busy) = queue(9, 30);
    assert_eq!(queue.arrive(WaiterId(1), Wish::slot(&busy), Nanos(0)), Ok(Arrival::Start));
    assert!(matches!(queue.arrive(WaiterId(2), Wish::slot(&busy), Nanos(0)), Ok(Arrival::Wait { .. })));
    assert_eq!(queue.arrive(WaiterId(3), Wish::slot(&model(1)), Nanos(0)), Ok(Arrival::Start));
}

#[test]
fn a_refusal_tells_how_long_the_wait_would_have_been_as_far_as_that_is_learned() {
    let (mut queue, model) = queue(1, 30);
    assert_eq!(queue.arrive(WaiterId(1), Wish::slot(&model), Nanos(0)), Ok(Arrival::Start));
    assert!(queue.arrive(WaiterId(2), Wish::slot(&model), Nanos(0)).is_ok());
    let refusal = queue.arrive(WaiterId(3), Wish::slot(&model), Nanos(0)).unwrap_err();
    assert_eq!((refusal.reason, refusal.estimated_wait), (QueueFull::Depth, Nanos::from_secs(1)));
    queue.release(WaiterId(1), Nanos::from_secs(4));
    assert_eq!(queue.dispatch(Nanos::from_secs(4), |_| true).as_slice(), [WaiterId(2)]);
    assert!(queue.arrive(WaiterId(4), Wish::slot(&model), Nanos::from_secs(4)).is_ok());
    let refusal = queue.arrive(WaiterId(5), Wish::slot(&model), Nanos::from_secs(4)).unwrap_err();
    assert_eq!((refusal.reason, refusal.estimated_wait), (QueueFull::Depth, Nanos::from_secs(8)));
}

#[test]
fn who_would_wait_too_long_is_told_at_once() {
    let (mut queue, model) = queue(9, 5);
    assert_eq!(queue.arrive(WaiterId(1), Wish::slot(&model), Nanos(0)), Ok(Arrival::Start));
    queue.release(WaiterId(1), Nanos::from_secs(4));
    assert_eq!(queue.arrive(WaiterId(2), Wish::slot(&model), Nanos::from_secs(4)), Ok(Arrival::Start));
    assert!(queue.arrive(WaiterId(3), Wish::slot(&model), Nanos::from_secs(4)).is_ok());
    let refusal = queue.arrive(WaiterId(4), Wish::slot(&model), Nanos::from_secs(4)).unwrap_err();
    assert_eq!((refusal.reason, refusal.estimated_wait), (QueueFull::Wait, Nanos::from_secs(8)));
}

#[test]
fn an_estimate_alone_refuses_nobody_while_none_waits_for_the_model() {
    let (mut queue, model) = queue(9, 5);
    assert_eq!(queue.arrive(WaiterId(1), Wish::slot(&model), Nanos(0)), Ok(Arrival::Start));
    queue.release(WaiterId(1), Nanos::from_secs(60));
    assert_eq!(queue.arrive(WaiterId(2), Wish::slot(&model), Nanos::from_secs(60)), Ok(Arrival::Start));
    let waits = Ok(Arrival::Wait { deadline: Nanos::from_secs(65) });
    assert_eq!(queue.arrive(WaiterId(3), Wish::slot(&model), Nanos::from_secs(60)), waits);
    let refusal = queue.arrive(WaiterId(4), Wish::slot(&model), Nanos::from_secs(60)).unwrap_err();
    assert_eq!((refusal.reason, refusal.max_wait), (QueueFull::Wait, Nanos::from_secs(5)));
}

#[test]
fn with_no_depth_a_busy_pod_refuses_at_once() {
    let (mut queue, model) = queue(0, 30);
    assert_eq!(queue.arrive(WaiterId(1), Wish::slot(&model), Nanos(0)), Ok(Arrival::Start));
    assert_eq!(queue.arrive(WaiterId(2), Wish::slot(&model), Nanos(0)).unwrap_err().reason, QueueFull::Depth);
    queue.leave(WaiterId(1));
    assert_eq!(queue.arrive(WaiterId(3), Wish::slot(&model), Nanos(0)), Ok(Arrival::Start));
}
