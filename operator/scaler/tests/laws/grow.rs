//! How a pool grows, and how steady it stays.

use corral_scaler::{Config, Limited, Preset, Reason, Sizing};

use crate::world::World;

/// What 40 requests a second of 8 s each need, on four slots of which three are to be busy.
const NEED: u32 = 107;

fn stepped(startup: u64, preset: Preset) -> World {
    let sizing = Sizing::Work { utilization_percent: 75, preset };
    let mut world = World::new(Config { sizing, ..World::by_work(1, 1000) }, 6);
    world.startup = startup;
    world.poisson = true;
    world.run(900, 2.0);
    world
}

#[test]
fn after_a_step_to_twenty_times_it_asks_for_enough_in_a_few_seconds_and_for_not_much_more() {
    for startup in [60, 240] {
        let mut world = stepped(startup, Preset::Balanced);
        world.run(12, 40.0);
        let quick = world.most(1);
        assert!(f64::from(quick) >= 0.9 * f64::from(NEED), "{quick} after 12 s, start-up {startup} s");
        world.run(2000, 40.0);
        let most = world.most(2012);
        assert!(f64::from(most) <= 2.4 * f64::from(NEED), "{most} at most, start-up {startup} s");
        let now = world.most(1);
        assert!((NEED - 8..=NEED + 16).contains(&now), "{now} at last, start-up {startup} s");
    }
}

#[test]
fn an_economical_pool_makes_fewer_for_what_waits() {
    let mut world = stepped(240, Preset::Economy);
    let most = world.run(1500, 40.0).most(1500);
    assert!(f64::from(most) <= 1.6 * f64::from(NEED), "{most}");
}

#[test]
fn a_steady_load_keeps_a_steady_size() {
    for (rate, need, hours) in [(0.2, 1, 6), (2.0, 6, 6), (40.0, NEED, 1)] {
        let mut world = World::new(World::by_work(1, 1000), need);
        world.poisson = true;
        world.run(hours * 3600, rate);
        let changes = world.desired.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let near = |size: &&u32| f64::from(size.abs_diff(need)) <= (0.15 * f64::from(need)).max(1.0);
        let share = world.desired.iter().filter(near).count() as f64 / world.desired.len() as f64;
        assert!(share >= 0.95, "{rate} a second: {share} of the time near {need}");
        assert!(changes <= 30 && (rate > 0.2 || changes <= 6), "{rate} a second: {changes} changes");
    }
}

#[test]
fn the_decision_does_not_hang_on_the_rhythm() {
    let sizes: Vec<(u32, u32)> = [vec![1], vec![2], vec![5], vec![1, 9, 2, 2, 7]]
        .into_iter()
        .map(|rhythm| {
            let mut world = World::new(World::by_work(1, 1000), 2);
            world.rhythm = rhythm;
            world.run(600, 0.5).run(15, 10.0);
            let quick = world.most(1);
            world.run(900, 10.0);
            (quick, world.most(1))
        })
        .collect();
    let spread = |of: fn(&(u32, u32)) -> u32| {
        let sizes: Vec<u32> = sizes.iter().map(of).collect();
        f64::from(*sizes.iter().max().unwrap()) / f64::from(*sizes.iter().min().unwrap())
    };
    assert!(spread(|sizes| sizes.0) <= 1.15 && spread(|sizes| sizes.1) <= 1.1, "{sizes:?}");
}

#[test]
fn a_flood_that_limits_refuse_changes_nothing() {
    let mut world = World::new(World::by_work(1, 1000), 6);
    world.run(900, 2.0);
    let before = world.most(1);
    for _ in 0..600 {
        world.second();
        world.pods[0].policy_rejects += 1000;
    }
    assert_eq!((world.most(600), world.decision.desired), (before, before));
}

#[test]
fn a_trend_is_met_ahead_of_time() {
    let size = |trend| {
        let mut world = World::new(Config { trend, ..World::by_work(1, 1000) }, 16);
        world.startup = 240;
        for second in 0..1500_u32 {
            world.run(1, 5.0 + f64::from(second) * 0.02);
        }
        world.most(1)
    };
    let (without, with) = (size(false), size(true));
    assert!(with > without + 5 && with < without * 3 / 2, "{without} without, {with} with");
}

#[test]
fn a_restart_at_the_peak_makes_no_dip() {
    let mut world = World::new(World::by_work(1, 1000), 6);
    world.run(900, 2.0).run(900, 40.0);
    let before = world.most(1);
    world.restart_operator();
    world.run(2, 40.0);
    assert!(world.decision.desired >= before);
    world.run(290, 40.0);
    assert!(world.desired.iter().rev().take(290).all(|desired| *desired >= before));
}

#[test]
fn what_is_more_than_the_owner_wants_is_said() {
    let mut world = World::new(World::by_work(1, 4), 1);
    world.run(120, 20.0);
    assert_eq!((world.decision.desired, world.decision.limited), (4, Some(Limited::TooManyReplicas)));
    let mut world = World::new(World::by_work(3, 4), 3);
    world.run(120, 0.1);
    assert_eq!((world.decision.desired, world.decision.limited), (3, Some(Limited::TooFewReplicas)));
}

#[test]
fn long_answers_that_come_seldom_are_no_flood() {
    let mut world = World::new(Config { slots_per_pod: 1, ..World::by_work(1, 100) }, 1);
    (world.slots, world.load.service, world.poisson) = (1, 300, true);
    world.run(4 * 3600, 1.0 / 1200.0);
    assert!(world.most(4 * 3600) <= 3, "{}", world.most(4 * 3600));
}

#[test]
fn long_answers_that_come_often_get_their_pods() {
    let mut world = World::new(Config { slots_per_pod: 1, ..World::by_work(1, 200) }, 2);
    (world.slots, world.load.service) = (1, 300);
    world.run(3600, 0.2);
    let now = world.most(1);
    assert!((76..=110).contains(&now), "60 run at one time: {now}");
}

#[test]
fn numbers_say_what_led_to_it() {
    let mut world = World::new(World::by_work(1, 1000), 6);
    world.run(1500, 2.0);
    let numbers = world.decision.numbers;
    assert!((numbers.rate - 2.0).abs() < 0.1 && (numbers.service_seconds - 8.0).abs() < 0.5, "{numbers:?}");
    assert_eq!((numbers.slots, numbers.ready, numbers.missing, numbers.needed), (4.0, 6, 0, 6));
    assert_eq!((world.decision.reason, world.decision.metrics_available), (Reason::Steady, true));
}

#[test]
fn start_up_is_learned() {
    let mut world = World::new(World::by_work(1, 1000), 1);
    world.startup = 20;
    world.run(600, 10.0);
    assert!(world.decision.numbers.startup_seconds < 30.0, "{:?}", world.decision.numbers);
    assert_eq!(world.decision.numbers.drain_seconds, 30.0);
}

#[test]
fn a_pause_of_the_operator_is_no_quiet() {
    let mut world = World::new(World::by_work(1, 1000), 6);
    world.run(900, 20.0);
    let before = world.most(1);
    world.rhythm = vec![900];
    world.run(901, 20.0);
    world.rhythm = vec![2];
    world.run(290, 20.0);
    assert!(world.desired.iter().rev().take(1190).all(|desired| *desired >= before), "{before}");
}
