//! Bad input: pods that are silent or lie, clocks that jump, and pods that find no place.

use std::time::Duration;

use corral_scaler::{Config, Heard, Limited, Observation, Phase, PodSeen, Reason, Scaler, Scarce, Shortage};

use crate::world::{World, at};

fn busy(pods: u32) -> World {
    let mut world = World::new(World::by_work(1, 1000), pods);
    world.run(900, 10.0);
    world
}

#[test]
fn a_few_silent_pods_count_as_busy() {
    let mut world = busy(30);
    for pod in world.pods.iter_mut().take(3) {
        pod.dark = true;
    }
    let before = world.decision.desired;
    world.run(400, 0.0);
    assert!(world.decision.metrics_available && world.decision.desired < before, "{:?}", world.decision);
    assert_eq!(world.decision.numbers.missing, 3);
    // The fewer are left, the more weigh those that are silent: it stops where too little is known.
    world.run(1500, 0.0);
    assert!(!world.decision.metrics_available && world.decision.desired > 6, "{}", world.decision.desired);
    assert!(world.pods.iter().filter(|pod| pod.dark).all(|pod| !pod.seen.terminating));
}

#[test]
fn with_a_third_silent_nothing_shrinks() {
    let mut world = busy(30);
    let before = world.decision.desired;
    let third = world.live() / 3;
    for pod in world.pods.iter_mut().take(third) {
        pod.dark = true;
    }
    world.run(3000, 0.0);
    assert_eq!((world.decision.desired, world.replicas), (before, before));
    assert_eq!((world.decision.metrics_available, world.decision.reason), (false, Reason::Frozen));
    for pod in &mut world.pods {
        pod.dark = false;
    }
    world.run(1500, 0.0);
    assert_eq!((world.decision.desired, world.broken), (1, 0));
}

#[test]
fn a_thousand_silent_pods_stay() {
    let mut world = World::new(World::by_work(1, 1000), 1000);
    for pod in &mut world.pods {
        pod.dark = true;
    }
    world.rhythm = vec![10];
    world.run(400, 0.0);
    assert_eq!((world.decision.desired, world.replicas, world.decision.numbers.missing), (1000, 1000, 1000));
}

#[test]
fn a_pool_nobody_of_which_is_there_to_tell_is_not_shrunk() {
    let mut world = World::new(World::by_work(1, 9), 5);
    world.no_place = true;
    world.pods.clear();
    world.run(3000, 0.0);
    assert_eq!((world.decision.desired, world.decision.reason), (5, Reason::Frozen));
}

#[test]
fn a_clock_that_jumps_makes_no_dip() {
    for jump in [-7200_i64, -30, 45, 7200] {
        let mut world = busy(30);
        let before = world.decision.desired;
        world.now = world.now.checked_add_signed(jump).unwrap();
        // What runs and waits goes on as it did.
        for pod in &mut world.pods {
            for end in &mut pod.running {
                *end = end.saturating_add_signed(jump);
            }
        }
        world.queue.clear();
        world.decide();
        for _ in 0..400 {
            world.run(1, 10.0);
            assert!(world.decision.desired >= before, "by {jump} s: {} of {before}", world.decision.desired);
            assert!(
                world.decision.desired <= before * 2,
                "by {jump} s: {} of {before}",
                world.decision.desired
            );
        }
    }
}

/// A pod that says the same but for what is changed.
fn lone_pod(heard: Heard) -> Observation {
    let pod = PodSeen {
        uid: "a".into(),
        node: Some("n".into()),
        phase: Phase::Running,
        ready: true,
        heard: Some(heard),
        ..PodSeen::default()
    };
    Observation { replicas: 1, pods: vec![pod], ..Observation::default() }
}

#[test]
fn counters_that_start_again_and_again_make_no_demand_of_their_own() {
    let config = Config { expected_service: Duration::from_millis(300), ..World::by_work(1, 1000) };
    let mut scaler = Scaler::new(at(0));
    for second in (2..3000).step_by(2) {
        // Each life begins anew with the two requests of these two seconds.
        let mut heard = Heard { at: at(second), epoch: second, ready: true, ..Heard::default() };
        (heard.counters.arrivals, heard.counters.completions, heard.counters.slot_millis) = (2, 2, 600);
        let decision = scaler.decide(&config, &lone_pod(heard), at(second));
        assert_eq!(decision.desired, 1, "second {second}");
    }
}

#[test]
fn a_counter_beyond_belief_is_no_demand() {
    let config = World::by_work(1, 1000);
    let mut scaler = Scaler::new(at(0));
    for second in (2..600).step_by(2) {
        let mut heard = Heard { at: at(second), epoch: 1, ready: true, ..Heard::default() };
        heard.counters.arrivals = if second % 4 == 0 { u64::MAX } else { 0 };
        let decision = scaler.decide(&config, &lone_pod(heard), at(second));
        assert_eq!(decision.desired, 1, "second {second}");
    }
}

#[test]
fn pods_that_find_no_place_are_said_and_not_asked_for_without_end() {
    let mut world = World::new(World::by_work(1, 9), 1);
    world.no_place = true;
    let mut sizes = Vec::new();
    for step in 0..900_u64 {
        world.run(2, 1.0);
        let shortage = Shortage { of: Scarce::Gpu, since: at(10_010) };
        let seen = Observation { shortage: Some(shortage), ..world.seen() };
        let decision = world.scaler.decide(&world.config, &seen, at(world.now));
        let limit = if step < 454 { Limited::InsufficientGpu } else { Limited::ProvisioningTimeout };
        if step > 10 && step != 454 {
            assert_eq!(decision.limited, Some(limit), "step {step}");
        }
        sizes.push(decision.desired);
    }
    assert!(sizes.windows(2).all(|pair| pair[0] <= pair[1]), "it does not flap");
}

#[test]
fn a_pod_that_never_began_and_never_will_holds_nothing_up() {
    let mut world = World::new(World::by_work(1, 9), 2);
    let crashing = world.pods.pop().unwrap().seen;
    let crashing = PodSeen { ready: false, ready_since: None, heard: None, ..crashing };
    let mut desired = 2;
    for _ in 0..900 {
        world.run(1, 0.0);
        let mut seen = world.seen();
        (seen.replicas, seen.pods) = (2, [seen.pods, vec![crashing.clone()]].concat());
        desired = world.scaler.decide(&world.config, &seen, at(world.now)).desired;
    }
    assert_eq!(desired, 1);
}

#[test]
fn a_range_that_is_upside_down_ends_at_its_most() {
    let mut world = World::new(World::by_work(9, 3), 5);
    world.run(60, 40.0);
    assert_eq!(world.decision.desired, 3);
}
