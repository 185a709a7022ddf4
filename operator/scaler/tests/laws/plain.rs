//! Plain targets, as in an HPA.

use corral_scaler::{Config, Reason, Sizing};

use crate::world::{World, at};

fn settled(sizing: Sizing, pods: u32, rate: f64) -> World {
    let mut world = World::new(Config { sizing, ..World::by_work(1, 100) }, pods);
    world.run(1800, rate);
    world
}

#[test]
fn so_many_in_flight_a_pod() {
    // 80 run at one time.
    let world = settled(Sizing::InFlightPerReplica(2), 10, 10.0);
    assert!((40..=50).contains(&world.decision.desired), "{}", world.decision.desired);
}

#[test]
fn so_many_tokens_a_second_a_pod_also_where_the_pool_can_write_no_more() {
    // 10 answers of 100 tokens a second.
    let world = settled(Sizing::TokensPerSecond(50), 30, 10.0);
    assert!((20..=30).contains(&world.decision.desired), "{}", world.decision.desired);
    let mut full = World::new(Config { sizing: Sizing::TokensPerSecond(50), ..World::by_work(1, 100) }, 4);
    full.run(900, 10.0);
    assert!(full.decision.desired >= 18, "{}", full.decision.desired);
}

#[test]
fn so_many_waiting_a_pod_and_never_fewer_than_what_runs_takes() {
    let mut world = World::new(Config { sizing: Sizing::QueuePerReplica(5), ..World::by_work(1, 100) }, 4);
    world.run(30, 10.0);
    assert!(world.decision.desired > 10 && world.decision.reason != Reason::Backlog, "{:?}", world.decision);
    world.run(3600, 10.0);
    assert!(world.decision.desired >= 20, "80 run: {}", world.decision.desired);
}

#[test]
fn more_pods_while_the_oldest_waits_too_long() {
    let sizing = Sizing::OldestWait(at(10));
    let mut world = World::new(Config { sizing, ..World::by_work(1, 100) }, 4);
    world.run(60, 10.0);
    let first = world.decision.desired;
    assert!((5..=8).contains(&first), "no more than double while none has started: {first}");
    for _ in 0..1200 {
        let before = world.decision.desired;
        world.run(1, 10.0);
        let ready = world.decision.numbers.ready;
        assert!(world.decision.desired <= (2 * ready).max(ready + 4).max(before));
    }
    assert!(world.decision.desired >= 20, "{}", world.decision.desired);
}
