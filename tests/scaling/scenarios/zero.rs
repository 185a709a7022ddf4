//! To zero and back, with an activator that holds what comes in between.

use super::{ours, outcome, seconds};
use crate::agenda::{Time, between};
use crate::load::{Load, Service};
use crate::outcome::Outcome;
use crate::table::Row;
use crate::world::{Line, Setting};

const RACES: u64 = if cfg!(debug_assertions) { 300 } else { 10_000 };

fn row<'a>(number: &'a str, what: &'a str, goal: &'a str) -> Row<'a> {
    Row { number, what, goal, decimals: 1 }
}

fn nothing_is_lost(outcome: &Outcome) {
    assert_eq!((outcome.broken, outcome.dropped, outcome.refused), (0, 0, 0));
}

/// Half a second in which five hundred come, to a pool that has nothing.
fn crowd() -> Setting {
    let load = Load::Pieces(vec![(seconds(100), 1_000.0), (Time::from_millis(100_500), 0.0)]);
    Setting { line: Line::Common, activator: true, ..Setting::new(load, 0, 120.0, seconds(2_000)) }
}

#[test]
fn a_crowd_that_meets_an_empty_pool_is_held_and_served_in_order() {
    let outcome = outcome(&crowd(), ours().sleeping_after(seconds(600)));
    let first = outcome.held.first().expect("all were held").1;
    let delay = between(outcome.loaded[0], first);
    row("9", "0 to 1, 500 held: s from the first pod to the first served", "<= 0.5").print_balanced(delay);
    assert!(delay <= 0.5, "{delay} s");
    assert!(outcome.held.len() > 400 && outcome.held.is_sorted(), "in the order in which they came");
    assert_eq!(u64::try_from(outcome.waits.len()).unwrap(), outcome.served, "all were served");
    nothing_is_lost(&outcome);
}

#[test]
fn a_request_after_forty_five_minutes_gets_its_pod_at_once() {
    let length = seconds(3_600);
    let load = Load::Pieces(vec![
        (seconds(0), 1.0),
        (seconds(60), 0.0),
        (seconds(2_760), 1.0),
        (seconds(2_770), 0.0),
    ]);
    let setting = Setting { activator: true, ..Setting::new(load, 1, 60.0, length) };
    let outcome = outcome(&setting, ours().sleeping_after(seconds(600)));
    let came = outcome.held.first().expect("it was held").0;
    let up = outcome.reaches(1.0, came);
    row("10", "a request after 45 idle minutes: s until a pod is wanted", "<= 1").print_balanced(up);
    assert!(up <= 1.0, "{up} s");
    nothing_is_lost(&outcome);
}

/// Requests that come about as long after one another as it takes the pool to think that none will.
#[test]
fn nothing_is_lost_where_a_request_races_the_way_to_zero() {
    const IDLE: u64 = 20;
    let load = Load::steady(1.0 / 30.0);
    let setting = Setting::new(load, 1, 5.0, seconds(RACES * 60));
    let setting = Setting { service: Service::Uniform(0.1, 2.0), activator: true, ..setting };
    let outcome = outcome(&setting, ours().sleeping_after(seconds(IDLE)));
    let refused = outcome.refused + outcome.broken + outcome.dropped;
    row("11", "requests racing the way to zero: lost", "0")
        .print_balanced(f64::from(u32::try_from(refused).unwrap()));
    assert!(
        u64::try_from(outcome.deaths.len()).unwrap() > RACES / 10,
        "{} times to zero",
        outcome.deaths.len()
    );
    nothing_is_lost(&outcome);
}
