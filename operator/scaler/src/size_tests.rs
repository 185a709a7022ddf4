use super::*;
use crate::reports::Reports;
use crate::{Down, Held, Holder, Observation};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn config(min: u32, max: u32) -> Config {
    Config { min, max, ..Config::default() }
}

fn need(pods: u32) -> Needs {
    Needs { now: pods, clear: pods, usual: pods, beyond: at(60), reason: Reason::Work, ..Needs::default() }
}

/// A pool of so many pods, that long ago was looked at first.
fn pool(replicas: u32) -> Size {
    let mut size = Size::new(replicas, at(0));
    // Long ago: what was needed then no longer counts.
    size.since = at(0);
    size
}

fn decide(size: &mut Size, config: &Config, needs: &Needs, second: u64) -> (u32, Reason) {
    size.decide(config, needs, at(second))
}

#[test]
fn it_grows_at_once_to_what_is_needed_and_no_further_than_the_owner_wants() {
    let mut size = pool(1);
    assert_eq!(decide(&mut size, &config(1, 9), &need(4), 1000), (4, Reason::Work));
    assert_eq!(decide(&mut size, &config(1, 9), &need(40), 1002), (9, Reason::Work));
    assert_eq!(decide(&mut size, &config(1, 9), &need(40), 1004), (9, Reason::Steady));
}

#[test]
fn it_shrinks_to_what_was_needed_of_late_in_steps() {
    let mut size = pool(1);
    decide(&mut size, &config(1, 99), &need(20), 1000);
    assert_eq!(decide(&mut size, &config(1, 99), &need(2), 1002), (20, Reason::Steady));
    assert_eq!(decide(&mut size, &config(1, 99), &need(2), 1299), (20, Reason::Steady));
    assert_eq!(decide(&mut size, &config(1, 99), &need(2), 1300), (15, Reason::ScaleDown));
    assert_eq!(decide(&mut size, &config(1, 99), &need(2), 1302), (15, Reason::Steady));
    assert_eq!(decide(&mut size, &config(1, 99), &need(2), 1330), (12, Reason::ScaleDown));
}

#[test]
fn a_change_that_is_little_is_not_made_but_to_the_least() {
    let mut size = pool(20);
    assert_eq!(decide(&mut size, &config(1, 99), &need(21), 1000), (20, Reason::Steady));
    assert_eq!(decide(&mut size, &config(1, 99), &need(22), 1000), (22, Reason::Work));
    let mut size = pool(20);
    assert_eq!(decide(&mut size, &config(1, 99), &need(19), 1000), (20, Reason::Steady));
    assert_eq!(decide(&mut size, &config(19, 99), &need(19), 1002), (19, Reason::ScaleDown));
    let mut size = pool(3);
    assert_eq!(decide(&mut size, &config(1, 99), &need(4), 1000), (4, Reason::Work));
}

#[test]
fn more_that_may_be_chance_is_made_once_it_has_lasted() {
    let mut size = pool(3);
    let unclear = Needs { now: 5, ..need(3) };
    assert_eq!(decide(&mut size, &config(1, 9), &unclear, 1000), (3, Reason::Steady));
    assert_eq!(decide(&mut size, &config(1, 9), &unclear, 1179), (3, Reason::Steady));
    assert_eq!(decide(&mut size, &config(1, 9), &unclear, 1180), (5, Reason::Work));
}

#[test]
fn one_more_of_many_is_made_once_it_has_lasted_unless_something_waits() {
    let mut size = pool(5);
    assert_eq!(decide(&mut size, &config(1, 9), &need(6), 1000), (5, Reason::Steady));
    assert_eq!(decide(&mut size, &config(1, 9), &need(6), 1180), (6, Reason::Work));
    assert_eq!(decide(&mut size, &config(1, 9), &need(8), 1182), (8, Reason::Work), "two are no chance");
    let mut size = pool(5);
    let waiting = Needs { reason: Reason::Backlog, ..need(6) };
    assert_eq!(decide(&mut size, &config(1, 9), &waiting, 1000), (6, Reason::Backlog));
}

#[test]
fn what_was_made_for_what_waited_goes_before_the_window_is_over() {
    let mut size = pool(1);
    let crowd = Needs { usual: 4, reason: Reason::Backlog, ..need(20) };
    decide(&mut size, &config(1, 99), &crowd, 1000);
    assert_eq!(decide(&mut size, &config(1, 99), &need(1), 1059), (20, Reason::Steady));
    assert_eq!(decide(&mut size, &config(1, 99), &need(1), 1060), (15, Reason::ScaleDown));
    for (second, left) in
        [(1090, 12), (1120, 9), (1150, 7), (1180, 6), (1210, 5), (1240, 4), (1299, 4), (1300, 3)]
    {
        assert_eq!(decide(&mut size, &config(1, 99), &need(1), second).0, left, "after {second} s");
    }
}

#[test]
fn the_range_holds_at_once_in_both_directions() {
    let mut size = pool(4);
    assert_eq!(decide(&mut size, &config(6, 9), &need(1), 1000), (6, Reason::Range));
    assert_eq!(decide(&mut size, &config(1, 2), &need(9), 1002), (2, Reason::Range));
    assert_eq!(decide(&mut size, &config(5, 2), &need(9), 1004), (2, Reason::Steady), "the most wins");
}

#[test]
fn the_end_of_a_larger_least_is_no_need_of_late() {
    let mut size = pool(1);
    decide(&mut size, &config(8, 9), &need(1), 1000);
    assert_eq!(decide(&mut size, &config(1, 9), &need(1), 1400), (6, Reason::ScaleDown));
}

#[test]
fn a_new_operator_holds_what_there_is_for_a_minute_and_the_window() {
    let mut size = pool(9);
    let brief = Config { down: Down { window: at(0), ..Down::default() }, ..config(1, 9) };
    assert_eq!(decide(&mut size, &brief, &need(1), 0), (9, Reason::Restart));
    assert_eq!(decide(&mut size, &brief, &need(1), 59), (9, Reason::Restart));
    assert_eq!(decide(&mut size, &brief, &need(1), 60), (7, Reason::ScaleDown));
    let mut size = pool(9);
    assert_eq!(decide(&mut size, &config(1, 9), &need(1), 299), (9, Reason::Steady));
    assert_eq!(decide(&mut size, &config(1, 9), &need(1), 300), (7, Reason::ScaleDown));
}

#[test]
fn with_too_little_known_it_may_grow_and_never_shrinks() {
    let mut size = pool(5);
    let blind = |pods| Needs { is_blind: true, ..need(pods) };
    assert_eq!(decide(&mut size, &config(1, 9), &blind(1), 1000), (5, Reason::Frozen));
    assert_eq!(decide(&mut size, &config(1, 9), &blind(7), 1002), (7, Reason::Work));
    assert_eq!(decide(&mut size, &config(1, 9), &blind(0), 9000), (7, Reason::Frozen));
}

#[test]
fn pods_whose_work_is_not_known_count_as_busy() {
    let mut size = pool(8);
    decide(&mut size, &config(1, 9), &need(1), 0);
    let some = Needs { unknown: 5, ..need(1) };
    assert_eq!(decide(&mut size, &config(1, 9), &some, 1000), (6, Reason::ScaleDown));
    assert_eq!(decide(&mut size, &config(1, 9), &some, 1100), (6, Reason::Steady));
}

#[test]
fn it_never_has_fewer_pods_than_what_runs_takes() {
    let mut size = pool(8);
    let all = Config { down: Down { max_percent: 100, ..Down::default() }, ..config(1, 9) };
    assert_eq!(decide(&mut size, &all, &Needs { floor: 3, ..need(0) }, 1000), (3, Reason::ScaleDown));
}

#[test]
fn a_sudden_rise_is_not_undone_within_its_minute() {
    let mut size = pool(1);
    let brief = Config { down: Down { window: at(0), ..Down::default() }, ..config(1, 99) };
    decide(&mut size, &brief, &Needs { reason: Reason::Panic, ..need(20) }, 1000);
    let after = Needs { is_sudden: true, ..need(1) };
    assert_eq!(decide(&mut size, &brief, &after, 1030), (20, Reason::Panic));
    assert_eq!(decide(&mut size, &brief, &need(1), 1061), (15, Reason::ScaleDown));
}

#[test]
fn a_rollout_saves_no_descent_up() {
    let mut size = pool(100);
    let during = Needs { rollout: true, ..need(1) };
    for second in (1000..2200).step_by(2) {
        assert_eq!(decide(&mut size, &config(1, 200), &during, second), (100, Reason::RolloutInProgress));
    }
    assert_eq!(decide(&mut size, &config(1, 200), &need(1), 2200), (75, Reason::ScaleDown));
    assert_eq!(decide(&mut size, &config(1, 200), &need(1), 2202), (75, Reason::Steady));
}

#[test]
fn pods_that_find_no_place_are_not_asked_for_without_end() {
    let mut size = pool(3);
    let none = |pods| Needs { has_no_place: true, ..need(pods) };
    assert_eq!(decide(&mut size, &config(1, 9), &none(7), 1000), (3, Reason::NoPlace));
    assert_eq!(decide(&mut size, &config(1, 9), &none(1), 1400), (2, Reason::ScaleDown));
    assert_eq!(decide(&mut size, &config(4, 9), &none(1), 1402), (4, Reason::Range), "the owner wants it so");
}

/// A pool that may sleep, and nothing in it.
fn sleepy() -> Config {
    Config { to_zero: Some(at(600)), holder: Holder::Heard, ..config(0, 9) }
}

fn look(size: &mut Size, held: Held, second: u64) {
    let seen = Observation::default();
    let startup = crate::startup::Startup::default();
    size.idle.look(&held, &Reports::of(&seen, &startup, at(second), at(second)), false, at(second));
}

#[test]
fn an_idle_pool_goes_to_one_in_steps_and_then_to_zero() {
    let mut size = pool(2);
    assert_eq!(decide(&mut size, &sleepy(), &need(0), 1000), (1, Reason::ScaleDown));
    assert_eq!(decide(&mut size, &sleepy(), &need(0), 1059), (1, Reason::Steady));
    assert_eq!(decide(&mut size, &sleepy(), &need(0), 1060), (0, Reason::IdleToZero));
    assert_eq!(decide(&mut size, &sleepy(), &need(3), 1062), (0, Reason::Steady), "what is left of a rate");
}

#[test]
fn what_is_held_wakes_it_to_as_many_as_it_needs() {
    for (needed, desired) in [(0, 1), (1, 1), (4, 4)] {
        let mut size = pool(0);
        look(&mut size, Held::default(), 1000);
        assert_eq!(decide(&mut size, &sleepy(), &need(0), 1000), (0, Reason::Steady));
        look(&mut size, Held { requests: 1, arrivals: 1, ..Held::default() }, 1002);
        assert_eq!(decide(&mut size, &sleepy(), &need(needed), 1002), (desired, Reason::FromZero));
    }
}

#[test]
fn it_is_told_that_a_pool_wakes_for_want_of_whoever_held_what_comes() {
    let mut size = pool(0);
    assert_eq!(decide(&mut size, &sleepy(), &need(0), 1000), (0, Reason::Steady));
    let nobody = Config { holder: Holder::Nobody, ..sleepy() };
    assert_eq!(decide(&mut size, &nobody, &need(0), 1009), (0, Reason::Steady));
    assert_eq!(decide(&mut size, &nobody, &need(0), 1010), (1, Reason::NoActivator));
    assert_eq!(decide(&mut size, &nobody, &need(0), 1011), (1, Reason::Steady));
}

#[test]
fn a_pool_that_may_not_sleep_has_a_pod() {
    let mut size = pool(0);
    assert_eq!(decide(&mut size, &config(0, 9), &need(0), 1000), (1, Reason::FromZero));
    let mut size = pool(1);
    assert_eq!(decide(&mut size, &config(0, 9), &need(0), 9000), (1, Reason::Steady));
}
