//! One client asks for ten times what there is, nine for half their part.

use super::{least, outcomes, pooled};
use crate::load::{Client, Sizes};
use crate::ours::Setup;
use crate::outcome::Outcome;
use crate::table::{Beside, Row};
use crate::world::Setting;

pub(super) fn elephant_and_mice() -> Setting {
    let sizes = Sizes::new(500.0, 140.0);
    let mut clients = vec![Client::open(sizes, 40.0).patient_for(30)];
    clients.extend((0..9).map(|_| Client::open(sizes, 0.2).patient_for(30)));
    Setting::new(4, 30, clients)
}

pub(super) fn mice_success(outcome: &Outcome) -> f64 {
    outcome.success(1..10) * 100.0
}

/// Of the mice, in times of the longest request.
fn wait(outcome: &Outcome) -> f64 {
    outcome.wait(1..10, 0.99) / outcome.longest
}

#[test]
fn an_elephant_takes_nothing_from_the_mice() {
    let setting = elephant_and_mice();
    let ours = outcomes(&setting, Setup::new(4));
    let baselines = Beside::of(&setting);
    let success = mice_success(&pooled(&ours));
    let what = "elephant and mice: success of mice, %";
    Row { number: "5a", what, goal: ">= 99.5", ours: success, decimals: 1 }.print(&baselines, mice_success);
    let longest = wait(&pooled(&ours));
    let what = "elephant and mice: wait p99 of mice / longest job";
    Row { number: "5b", what, goal: "<= 0.5", ours: longest, decimals: 2 }.print(&baselines, wait);
    let goodput = least(&ours, Outcome::goodput);
    let what = "elephant and mice: goodput";
    Row { number: "5c", what, goal: ">= 0.97", ours: goodput, decimals: 2 }
        .print(&baselines, Outcome::goodput);
    assert!(success >= 99.5 && longest <= 0.5 && goodput >= 0.97, "{success} % {longest} {goodput}");
}
