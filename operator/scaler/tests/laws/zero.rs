//! To zero and back.

use corral_scaler::{Config, Held, Holder, Reason};

use crate::world::{World, at};

fn sleepy() -> Config {
    Config { to_zero: Some(at(600)), holder: Holder::Heard, ..World::by_work(0, 20) }
}

#[test]
fn a_pool_without_a_request_goes_to_zero_and_none_is_lost_on_the_way() {
    let mut world = World::new(sleepy(), 2);
    world.run(300, 0.5).run(560, 0.0);
    assert_eq!(world.live(), 1);
    world.run(120, 0.0);
    assert_eq!((world.decision.desired, world.live(), world.broken), (0, 0, 0));
    world.run(7200, 0.0);
    assert_eq!((world.most(7200), world.decision.reason), (0, Reason::Steady));
}

#[test]
fn one_that_is_held_wakes_it_at_once() {
    let mut world = World::new(sleepy(), 0);
    world.run(2700, 0.0);
    assert_eq!(world.decision.desired, 0);
    world.held = Held { requests: 1, arrivals: 1, epoch: 1, oldest_wait_ms: 10 };
    world.decide();
    assert_eq!(
        (world.decision.desired, world.decision.replicas, world.decision.reason),
        (1, 1, Reason::FromZero)
    );
    world.run(60, 0.0);
    assert_eq!(world.most(60), 1, "one request is one pod");
}

#[test]
fn many_that_are_held_get_pods_for_what_waits_and_what_is_let_go_is_not_counted_again() {
    let mut world = World::new(sleepy(), 0);
    world.startup = 120;
    world.run(100, 0.0);
    for second in 0..120 {
        let requests = second.min(60);
        world.held = Held { requests, arrivals: u64::from(requests), epoch: 1, oldest_wait_ms: 1 };
        world.run(1, 0.0);
    }
    let woken = world.decision.desired;
    assert!((2..=6).contains(&woken), "one a second of 8 s each, on four slots: {woken}");
    // All are let go at once.
    world.held.requests = 0;
    world.run(1, 60.0);
    world.run(60, 0.0);
    assert!(world.most(60) <= woken + 1, "{} after {woken}", world.most(60));
}

#[test]
fn a_request_on_the_way_to_zero_keeps_the_last_pod() {
    let mut world = World::new(sleepy(), 1);
    world.run(100, 0.2);
    while world.decision.retire.is_empty() {
        world.run(1, 0.0);
    }
    world.held = Held { requests: 1, arrivals: 1, epoch: 1, oldest_wait_ms: 1 };
    world.decide();
    assert_eq!((world.decision.desired, world.decision.retire.len(), world.live()), (1, 0, 1));
}

#[test]
fn whoever_lists_models_wakes_a_pool_and_keeps_it_awake_with_one_pod() {
    let mut world = World::new(sleepy(), 0);
    world.run(100, 0.0);
    world.listing = Some((30, 1));
    world.run(31, 0.0).run(7200, 0.0);
    let sizes = world.desired.iter().rev().take(7200);
    assert!(sizes.clone().all(|size| *size == 1), "{:?}", sizes.filter(|size| **size != 1).count());
    assert_eq!((world.decision.numbers.rate, world.live()), (0.0, 1), "it is no work");
    world.listing = None;
    world.run(560, 0.0);
    assert_eq!(world.decision.desired, 1);
    world.run(120, 0.0);
    assert_eq!((world.decision.desired, world.live()), (0, 0));
}

#[test]
fn any_number_of_lists_is_no_second_pod_and_no_load() {
    let mut world = World::new(sleepy(), 1);
    world.listing = Some((1, 5000));
    world.run(900, 0.0);
    let numbers = world.decision.numbers;
    assert_eq!((world.most(900), numbers.rate, numbers.service_seconds, numbers.needed), (1, 0.0, 8.0, 0));
}

#[test]
fn without_an_activator_the_last_pod_stays() {
    let mut world = World::new(Config { holder: Holder::Unheard, ..sleepy() }, 2);
    world.run(7200, 0.0);
    assert_eq!((world.decision.desired, world.live()), (1, 1));
}

#[test]
fn with_one_silent_pod_nothing_sleeps() {
    let mut world = World::new(sleepy(), 1);
    world.run(100, 0.2);
    world.pods[0].dark = true;
    world.run(7200, 0.0);
    assert_eq!(world.live(), 1);
}
