//! The baselines do here what was measured of them before: so the world is the right one.

use corral_limiter::Nanos;

use super::elephant::{elephant_and_mice, mice_success};
use super::equals::small_and_large;
use super::overload::overload;
use crate::load::{Client, CostModel, Sizes};
use crate::outcome::{Outcome, jain};
use crate::table::Kind;
use crate::world::Setting;

fn holds(what: &str, value: f64, range: std::ops::RangeInclusive<f64>) {
    assert!(range.contains(&value), "{what}: {value} is not in {range:?}");
}

/// Small over large.
fn ratio(outcome: &Outcome) -> f64 {
    let shares = outcome.shares(0, 1);
    shares[0] / shares[1]
}

/// Before: 12 to 99, 60 to 476, 3 to 14, and 1 times the dearest request.
#[test]
fn gaps_of_two_equals_are_those_known_of_each_way_to_queue() {
    for slots in [1, 8] {
        // As long as it lasts where the compiler optimizes.
        let length = Nanos::from_secs(1980);
        let setting = Setting { length, ..small_and_large(slots, CostModel::Tokens) };
        let scale = f64::from(slots);
        let gap = |kind: Kind| kind.run(&setting).gap();
        holds("fcfs", gap(Kind::Fcfs), 10.0..=150.0);
        holds("round robin", gap(Kind::RoundRobin), 50.0 * scale..=120.0 * scale);
        holds("las", gap(Kind::Las), 2.5..=20.0);
        holds("vtc", gap(Kind::Vtc), 0.5..=2.0);
        holds("round robin's shares", ratio(&Kind::RoundRobin.run(&setting)), 0.11..=0.18);
        holds("fcfs's shares", ratio(&Kind::Fcfs.run(&setting)), 0.65..=0.9);
        holds("vtc's shares", ratio(&Kind::Vtc.run(&setting)), 0.98..=1.02);
    }
}

/// Before: 0.95, and 0.49.
#[test]
fn a_newcomer_starves_the_incumbent_under_las_and_not_under_vtc() {
    let old = Client::closed(Sizes::new(400.0, 80.0), 16);
    let new = Client { from: Nanos::from_secs(600), ..old.clone() };
    let minute = [Nanos::from_secs(600), Nanos::from_secs(660)];
    let setting = Setting::exactly(4, minute, vec![old, new]);
    let share = |kind: Kind| kind.run(&setting).shares(0, 1)[1];
    holds("las", share(Kind::Las), 0.9..=1.0);
    holds("vtc", share(Kind::Vtc), 0.45..=0.55);
}

/// Before: 0.02 with all work cut; 0.98 with an index of 0.41; 0.75 with 0.43 cut. At twice: 0.62.
#[test]
fn overload_brings_down_whatever_has_no_bound() {
    let ten = overload(10.0);
    let outcome = |kind: Kind| kind.run(&ten);
    for kind in [Kind::Fcfs, Kind::Fifo(512)] {
        holds("goodput without a bound that counts", outcome(kind).goodput(), 0.0..=0.05);
        holds("cut without a bound that counts", outcome(kind).waste(), 0.95..=1.0);
    }
    holds("goodput of fifo-16", outcome(Kind::Fifo(16)).goodput(), 0.95..=1.0);
    holds("fairness of fifo-16", jain(&outcome(Kind::Fifo(16)).served(0, 1)), 0.35..=0.5);
    holds("goodput of vtc", outcome(Kind::Vtc).goodput(), 0.5..=0.85);
    holds("goodput at twice", Kind::Fcfs.run(&overload(2.0)).goodput(), 0.2..=0.7);
}

/// Before: 0.002; 0.09; 1.00 with a goodput of 0.47.
#[test]
fn an_elephant_tramples_the_mice_where_all_stand_in_one_line() {
    let outcome = |kind: Kind| kind.run(&elephant_and_mice());
    holds("mice, fcfs", mice_success(&outcome(Kind::Fcfs)), 0.0..=1.0);
    holds("mice, fifo-16", mice_success(&outcome(Kind::Fifo(16))), 3.0..=15.0);
    holds("mice, round robin", mice_success(&outcome(Kind::RoundRobin)), 99.0..=100.0);
    holds("goodput, round robin", outcome(Kind::RoundRobin).goodput(), 0.4..=0.6);
}
