//! How a pool shrinks: nothing is lost, and what returns is met by those that were to go.

use corral_scaler::{Config, Down, Limited, Reason};

use crate::world::{World, at};

/// Quick to shrink: what the tests look at is who goes, and when.
fn quick(max: u32) -> Config {
    let down = Down { window: at(60), max_percent: 50, period: at(10) };
    Config { down, ..World::by_work(1, max) }
}

#[test]
fn when_load_is_gone_the_pool_is_back_at_its_least_in_time() {
    let mut world = World::new(World::by_work(1, 1000), 6);
    world.run(600, 2.0).run(60, 40.0);
    while world.pods.iter().any(|pod| pod.in_system() > 0) {
        world.run(1, 0.0);
    }
    let most = world.most(1);
    let steps = (0..).scan(most, |size, _| {
        *size -= (*size / 4).max(1);
        Some(*size)
    });
    let steps = 1 + steps.take_while(|size| *size > 1).count() as u64;
    // A minute until the rate is gone, the window, the steps, and the last of them.
    world.run(60 + 300 + 30 * steps + 15, 0.0);
    assert_eq!((world.decision.desired, world.live()), (1, 1), "from {most}");
    assert_eq!((world.broken, world.wrong), (0, 0));
}

#[test]
fn no_pod_with_work_is_ever_deleted() {
    let mut world = World::new(quick(60), 4);
    world.load.service = 45;
    world.poisson = true;
    for rate in [4.0, 0.5, 3.0, 0.0, 2.0, 0.2, 5.0, 1.0, 0.0] {
        world.run(400, rate);
    }
    assert_eq!((world.broken, world.wrong), (0, 0));
}

#[test]
fn who_is_chosen_works_least() {
    let mut world = World::new(quick(60), 20);
    world.load.service = 30;
    world.run(200, 2.0);
    let mut choices = 0;
    for _ in 0..600 {
        let before = world.decision.retire.clone();
        world.run(1, 0.6);
        let work = world.work();
        let new: Vec<_> = world.decision.retire.difference(&before).collect();
        let least_of_others = world
            .pods
            .iter()
            .filter(|pod| !pod.seen.terminating && !world.decision.retire.contains(&pod.seen.uid))
            .map(|pod| work[&pod.seen.uid])
            .min();
        for uid in new {
            choices += 1;
            assert!(least_of_others.is_none_or(|least| work[uid] <= least), "{work:?}");
        }
    }
    assert!(choices > 5, "{choices}");
}

#[test]
fn load_that_returns_is_met_by_those_that_were_to_go() {
    let mut world = World::new(quick(20), 20);
    world.config.down.window = at(600);
    world.load.service = 300;
    while world.decision.retire.is_empty() {
        world.run(1, 0.1);
    }
    let (pods, retiring) = (world.live(), world.decision.retire.len());
    let made_before = world.pods.iter().map(|pod| pod.seen.uid.clone()).max();
    let mut seconds = 0;
    while world.decision.reason != Reason::Undrain {
        world.run(1, 2.0);
        seconds += 1;
        assert!(seconds < 30);
    }
    assert!(world.decision.retire.len() < retiring && world.live() == pods);
    assert_eq!(world.pods.iter().map(|pod| pod.seen.uid.clone()).max(), made_before, "none is made");
}

#[test]
fn a_rollout_puts_the_shrink_off_and_says_so() {
    let mut world = World::new(World::by_work(1, 60), 8);
    world.rollout = true;
    world.run(900, 0.0);
    assert_eq!((world.replicas, world.decision.retire.len()), (8, 0));
    assert_eq!(world.decision.limited, Some(Limited::RolloutInProgress));
    assert_eq!(world.decision.reason, Reason::RolloutInProgress);
    world.rollout = false;
    world.run(240, 0.0);
    assert_eq!(world.replicas, 1);
}

#[test]
fn after_a_rollout_no_more_go_at_once_than_at_any_time() {
    let mut world = World::new(World::by_work(1, 200), 100);
    world.rollout = true;
    world.run(900, 0.0);
    world.rollout = false;
    world.run(4, 0.0);
    assert_eq!((world.decision.desired, world.decision.retire.len()), (75, 25));
}

#[test]
fn a_view_of_the_pods_that_is_behind_takes_none_away() {
    let mut world = World::new(World::by_work(1, 9), 5);
    world.run(200, 0.0);
    let mut seen = world.seen();
    let asked = seen.replicas;
    let now = world.now;
    seen.pods.truncate(2);
    seen.exist = 5;
    for second in 1..600 {
        for pod in &mut seen.pods {
            pod.heard.as_mut().unwrap().at = at(now + second);
        }
        let decision = world.scaler.decide(&world.config, &seen, at(now + second));
        assert_eq!((decision.replicas, decision.retire.len()), (asked, 0), "at {second}");
        assert_eq!(decision.metrics_available, second < 12, "at {second}");
    }
}

#[test]
fn a_pod_that_dies_by_itself_in_a_shrink_costs_nobody_its_work() {
    for victim in [true, false] {
        let mut world = World::new(quick(60), 12);
        world.load.service = 60;
        world.run(300, 0.6);
        while world.decision.retire.is_empty() {
            world.run(1, 0.1);
        }
        let is_it = |uid: &String| world.decision.retire.contains(uid) == victim;
        let uid = world.pods.iter().map(|pod| pod.seen.uid.clone()).find(is_it).unwrap();
        world.kill(&uid);
        world.run(900, 0.1);
        assert_eq!(world.broken, 0);
        assert!(world.live() <= 4, "{}", world.live());
    }
}

#[test]
fn one_hour_of_a_quiet_pool_changes_nothing() {
    let mut world = World::new(World::by_work(2, 9), 2);
    world.run(3600, 0.1);
    assert!(world.desired.iter().all(|desired| *desired == 2));
    assert!(world.decision.costs.is_empty() && world.decision.retire.is_empty());
}
