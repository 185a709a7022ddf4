//! Law 12, for the first-come queue: one outcome each, no eligible waiter beside a free slot, and nothing left at rest.

use std::collections::{BTreeMap, BTreeSet};

use corral_limiter::{
    ModelName, Nanos, QueueBounds,
    queue::{Arrival, QueueFull, QueueGauges, SlotBounds, SlotQueue, WaiterId},
};
use proptest::prelude::*;

use crate::support::model;

#[derive(Debug, Clone, Copy)]
enum Event {
    Arrive(u8),
    Release(prop::sample::Index),
    Leave(prop::sample::Index),
    /// The callers of those whose deadline is over take them out.
    TimeOut,
    Block(prop::sample::Index),
    Unblock,
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![
        6 => (0..4u8).prop_map(Event::Arrive),
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
    waiting: Vec<(WaiterId, u8, Nanos)>,
    running: BTreeMap<WaiterId, u8>,
    over: BTreeSet<WaiterId>,
    blocked: BTreeSet<WaiterId>,
    now: Nanos,
    next: u64,
}

impl Watch {
    fn new(slots: SlotBounds, bounds: QueueBounds) -> Self {
        let mut queue = SlotQueue::new(slots);
        queue.set_bounds(bounds);
        let (waiting, running, over, blocked) = Default::default();
        Self { queue, slots, waiting, running, over, blocked, now: Nanos(0), next: 0 }
    }

    fn has_slot(&self, number: u8) -> bool {
        let of_model = self.running.values().filter(|running| **running == number).count();
        of_model < self.slots.per_model as usize && self.running.len() < self.slots.total as usize
    }

    fn arrive(&mut self, number: u8, bounds: QueueBounds) {
        self.next += 1;
        let id = WaiterId(self.next);
        let free = self.has_slot(number);
        let could_go = self.waiting.iter().any(|(_, waiting, _)| self.has_slot(*waiting));
        match self.queue.arrive(id, &model(number), self.now) {
            Ok(Arrival::Start) => {
                assert!(free && !could_go);
                self.running.insert(id, number);
            }
            Ok(Arrival::Wait { deadline }) => {
                assert!(!free || could_go);
                assert!(self.waiting.len() < bounds.max_depth as usize);
                assert_eq!(deadline, self.now.plus(bounds.max_wait));
                self.waiting.push((id, number, deadline));
            }
            Err(refusal) => {
                assert!(!free || could_go);
                match refusal.reason {
                    QueueFull::Depth => assert_eq!(self.waiting.len(), bounds.max_depth as usize),
                    QueueFull::Wait => {
                        assert!(refusal.estimated_wait > bounds.max_wait);
                        assert!(self.waiting.iter().any(|(_, waiting, _)| *waiting == number));
                    }
                }
                self.over.insert(id);
            }
        }
    }

    /// Dispatches; checks that those go who came first of the eligible, and that none of them stays.
    fn dispatch(&mut self) {
        let blocked = self.blocked.clone();
        let started = self.queue.dispatch(self.now, |id| !blocked.contains(&id));
        for id in started {
            let eligible =
                |(id, number, _): &&(WaiterId, u8, Nanos)| !blocked.contains(id) && self.has_slot(*number);
            let first = self.waiting.iter().find(eligible).unwrap();
            assert_eq!(first.0, id);
            self.running.insert(id, first.1);
            self.waiting.retain(|(waiting, ..)| *waiting != id);
        }
        let stays =
            self.waiting.iter().find(|(id, number, _)| !blocked.contains(id) && self.has_slot(*number));
        assert_eq!(stays, None);
    }

    fn end(&mut self, id: WaiterId) {
        self.running.remove(&id);
        self.waiting.retain(|(waiting, ..)| *waiting != id);
        assert!(self.over.insert(id), "two outcomes");
    }

    fn time_out(&mut self) {
        let now = self.now;
        let late = self.waiting.iter().filter(|(_, _, deadline)| *deadline <= now).map(|(id, ..)| *id);
        for id in late.collect::<Vec<_>>() {
            self.queue.leave(id);
            self.end(id);
        }
    }

    fn step(&mut self, event: Event, bounds: QueueBounds) {
        let running: Vec<_> = self.running.keys().copied().collect();
        let all: Vec<_> = running.iter().copied().chain(self.waiting.iter().map(|(id, ..)| *id)).collect();
        match event {
            Event::Arrive(number) => self.arrive(number, bounds),
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
        assert_eq!((gauges.depth, gauges.in_flight), (self.waiting.len(), self.running.len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_request_has_one_outcome_and_no_eligible_waiter_stays_beside_a_free_slot(
        per_model in 1..3u32, total in 1..5u32, max_depth in 0..6u32, max_wait in 1..20u64, events in events(),
    ) {
        let bounds = QueueBounds { max_depth, max_wait: Nanos::from_secs(max_wait) };
        let mut watch = Watch::new(SlotBounds { per_model, total }, bounds);
        for (after, event) in events {
            watch.now = watch.now.plus(Nanos(after));
            watch.step(event, bounds);
        }
        watch.blocked.clear();
        while let Some(id) = watch.running.keys().next().copied().or(watch.waiting.first().map(|(id, ..)| *id)) {
            watch.queue.leave(id);
            watch.end(id);
            watch.dispatch();
        }
        prop_assert_eq!(watch.over.len() as u64, watch.next);
        prop_assert_eq!(watch.queue.gauges(watch.now), QueueGauges::default());
    }
}

fn queue(max_depth: u32, max_wait: u64) -> (SlotQueue, ModelName) {
    let mut queue = SlotQueue::new(SlotBounds { per_model: 1, total: 2 });
    queue.set_bounds(QueueBounds { max_depth, max_wait: Nanos::from_secs(max_wait) });
    (queue, model(0))
}

#[test]
fn a_full_model_blocks_nobody_who_waits_for_another() {
    let (mut queue, busy) = queue(9, 30);
    assert_eq!(queue.arrive(WaiterId(1), &busy, Nanos(0)), Ok(Arrival::Start));
    assert!(matches!(queue.arrive(WaiterId(2), &busy, Nanos(0)), Ok(Arrival::Wait { .. })));
    assert_eq!(queue.arrive(WaiterId(3), &model(1), Nanos(0)), Ok(Arrival::Start));
}

#[test]
fn a_refusal_tells_how_long_the_wait_would_have_been_as_far_as_that_is_learned() {
    let (mut queue, model) = queue(1, 30);
    assert_eq!(queue.arrive(WaiterId(1), &model, Nanos(0)), Ok(Arrival::Start));
    assert!(queue.arrive(WaiterId(2), &model, Nanos(0)).is_ok());
    let refusal = queue.arrive(WaiterId(3), &model, Nanos(0)).unwrap_err();
    assert_eq!((refusal.reason, refusal.estimated_wait), (QueueFull::Depth, Nanos::from_secs(1)));
    queue.release(WaiterId(1), Nanos::from_secs(4));
    assert_eq!(queue.dispatch(Nanos::from_secs(4), |_| true).as_slice(), [WaiterId(2)]);
    assert!(queue.arrive(WaiterId(4), &model, Nanos::from_secs(4)).is_ok());
    let refusal = queue.arrive(WaiterId(5), &model, Nanos::from_secs(4)).unwrap_err();
    assert_eq!((refusal.reason, refusal.estimated_wait), (QueueFull::Depth, Nanos::from_secs(8)));
}

#[test]
fn who_would_wait_too_long_is_told_at_once() {
    let (mut queue, model) = queue(9, 5);
    assert_eq!(queue.arrive(WaiterId(1), &model, Nanos(0)), Ok(Arrival::Start));
    queue.release(WaiterId(1), Nanos::from_secs(4));
    assert_eq!(queue.arrive(WaiterId(2), &model, Nanos::from_secs(4)), Ok(Arrival::Start));
    assert!(queue.arrive(WaiterId(3), &model, Nanos::from_secs(4)).is_ok());
    let refusal = queue.arrive(WaiterId(4), &model, Nanos::from_secs(4)).unwrap_err();
    assert_eq!((refusal.reason, refusal.estimated_wait), (QueueFull::Wait, Nanos::from_secs(8)));
}

#[test]
fn an_estimate_alone_refuses_nobody_while_none_waits_for_the_model() {
    let (mut queue, model) = queue(9, 5);
    assert_eq!(queue.arrive(WaiterId(1), &model, Nanos(0)), Ok(Arrival::Start));
    queue.release(WaiterId(1), Nanos::from_secs(60));
    assert_eq!(queue.arrive(WaiterId(2), &model, Nanos::from_secs(60)), Ok(Arrival::Start));
    let waits = Ok(Arrival::Wait { deadline: Nanos::from_secs(65) });
    assert_eq!(queue.arrive(WaiterId(3), &model, Nanos::from_secs(60)), waits);
    let refusal = queue.arrive(WaiterId(4), &model, Nanos::from_secs(60)).unwrap_err();
    assert_eq!((refusal.reason, refusal.max_wait), (QueueFull::Wait, Nanos::from_secs(5)));
}

#[test]
fn with_no_depth_a_busy_pod_refuses_at_once() {
    let (mut queue, model) = queue(0, 30);
    assert_eq!(queue.arrive(WaiterId(1), &model, Nanos(0)), Ok(Arrival::Start));
    assert_eq!(queue.arrive(WaiterId(2), &model, Nanos(0)).unwrap_err().reason, QueueFull::Depth);
    queue.leave(WaiterId(1));
    assert_eq!(queue.arrive(WaiterId(3), &model, Nanos(0)), Ok(Arrival::Start));
}
