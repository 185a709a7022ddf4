//! Twenty clients ask for more than there is, and give up after thirty seconds.

use super::{least, most, outcomes};
use crate::load::{Client, Sizes};
use crate::ours::Setup;
use crate::outcome::{Outcome, jain, quantile};
use crate::table::{Beside, Row};
use crate::world::Setting;

/// The first asks for twenty times as much as the last.
pub(super) fn overload(times: f64) -> Setting {
    let harmonic: f64 = (1..=20).map(|rank| 1.0 / f64::from(rank)).sum();
    let sizes = Sizes::new(500.0, 140.0);
    let client = |rank: u8| Client::open(sizes, 4.0 * times / f64::from(rank) / harmonic).patient_for(30);
    Setting::new(4, 30, (1..=20).map(client).collect())
}

fn goodput_holds([goodput_row, cut_row]: [&'static str; 2], times: f64) {
    let setting = overload(times);
    let (ours, baselines) = (outcomes(&setting, Setup::new(4)), Beside::of(&setting));
    let goodput = least(&ours, Outcome::goodput);
    let what = &format!("{times} times too much, patience 30 s: goodput");
    let row = Row { number: goodput_row, what, goal: ">= 0.97", ours: goodput, decimals: 2 };
    row.print(&baselines, Outcome::goodput);
    let percent = |outcome: &Outcome| outcome.waste() * 100.0;
    let cut = most(&ours, percent);
    let what = &format!("{times} times too much, patience 30 s: cut work, %");
    Row { number: cut_row, what, goal: "<= 5", ours: cut, decimals: 1 }.print(&baselines, percent);
    assert!(goodput >= 0.97 && cut <= 5.0, "{goodput} {cut} %");
}

#[test]
fn twice_too_much_costs_no_goodput() {
    goodput_holds(["6a", "6b"], 2.0);
}

#[test]
fn ten_times_too_much_costs_no_goodput() {
    goodput_holds(["6c", "6d"], 10.0);
}

#[test]
fn ten_times_too_much_is_shared_alike_and_most_are_told_at_once() {
    let setting = overload(10.0);
    let (ours, baselines) = (outcomes(&setting, Setup::new(4)), Beside::of(&setting));
    let index = |outcome: &Outcome| jain(&outcome.served(0, 1));
    let alike = least(&ours, index);
    let what = "10 times too much: Jain of what each got";
    Row { number: "6e", what, goal: ">= 0.99", ours: alike, decimals: 2 }.print(&baselines, index);
    let told = |outcome: &Outcome| {
        quantile(outcome.accounts.iter().flat_map(|account| account.refused_after.iter().copied()), 0.5)
    };
    let median = most(&ours, told);
    let what = "10 times too much: seconds until half the losers know";
    Row { number: "6f", what, goal: "<= 1", ours: median, decimals: 1 }.print(&baselines, told);
    assert!(alike >= 0.99 && median <= 1.0, "{alike} {median}");
}
