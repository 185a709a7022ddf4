//! People at their screens beside an endless flood of batch work.

use super::{figures, least, most};
use crate::load::{Client, Importance, Sizes};
use crate::ours::Setup;
use crate::outcome::Outcome;
use crate::table::Row;
use crate::world::Setting;

fn batch() -> Sizes {
    Sizes { most: 1e6, ..Sizes::new(1000.0, 390.0) }
}

/// A tenth of the time of four slots, beside a flood of three times as much as there is.
fn flood(importance: Importance) -> Setting {
    let people = Client::open(Sizes::new(400.0, 150.0), 0.4).of(importance);
    Setting::new(4, 60, vec![people, Client::open(batch(), 12.0).of(Importance::Low)])
}

/// Of the interactive ones, in mean batch jobs.
fn wait(outcome: &Outcome) -> f64 {
    outcome.wait(0..1, 0.99) / batch().service()
}

fn batch_served(outcome: &Outcome) -> f64 {
    outcome.served(0, 1)[1]
}

#[test]
fn a_batch_flood_leaves_people_alive_and_they_leave_the_batch_alive() {
    let (setting, setup) = (flood(Importance::High), Setup::new(4));
    let ours = most(&setting, setup, wait);
    let what = "chat under a batch flood: wait p99 / mean batch job".into();
    Row { number: "7a", what, goal: "<= 1.0", ours, decimals: 2 }.print(&setting, wait);
    let success = least(&setting, setup, |outcome| outcome.success(0..1) * 100.0);
    let what = "chat under a batch flood: success of chat, %".into();
    Row { number: "7b", what, goal: ">= 99.5", ours: success, decimals: 1 }
        .print(&setting, |outcome| outcome.success(0..1) * 100.0);
    assert!(ours <= 1.0 && success >= 99.5, "{ours} {success}");
}

#[test]
fn a_reserved_slot_halves_what_is_critical_waits_and_costs_the_batch_a_fifth_at_most() {
    let (setting, setup) = (flood(Importance::Critical), Setup::new(4));
    let ours = most(&setting, setup, wait);
    let what = "the same, critical, with a slot in reserve".into();
    Row { number: "7c", what, goal: "<= 0.5", ours, decimals: 2 }.print(&setting, wait);
    let without: Vec<f64> = figures(&flood(Importance::High), setup, batch_served).collect();
    let kept = figures(&setting, setup, batch_served).zip(without).map(|(with, without)| with / without);
    let kept = kept.fold(f64::INFINITY, f64::min);
    let what = "the same: batch work beside what it is without".into();
    Row { number: "7d", what, goal: ">= 0.80", ours: kept, decimals: 2 }.print_beside(&[]);
    assert!(ours <= 0.5 && kept >= 0.8, "{ours} {kept}");
}

#[test]
fn bands_that_all_want_everything_share_by_sixteen_to_four_to_one_and_batch_has_five_percent() {
    let of = |importance| Client::closed(Sizes::new(400.0, 80.0), 16).of(importance);
    let clients = [Importance::High, Importance::Medium, Importance::Low].map(of);
    let setting = Setting::new(4, 60, clients.to_vec());
    let shares = |outcome: &Outcome| outcome.shares(0, 1);
    let mut printed = Vec::new();
    for (band, number) in ["8a", "8b", "8c"].into_iter().enumerate() {
        let name = ["interactive", "standard", "batch"][band];
        let goal = ["0.74 - 0.78", "0.18 - 0.20", ">= 0.048"][band];
        let share = |outcome: &Outcome| shares(outcome)[band];
        let ours = least(&setting, Setup::new(4).patient(), share);
        let what = format!("all bands full: share of {name}");
        Row { number, what, goal, ours, decimals: 3 }.print(&setting, share);
        printed.push(ours);
    }
    let near = [16.0, 4.0].iter().zip(&printed).all(|(weight, share)| (share * 21.0 / weight - 1.0).abs() < 0.05);
    assert!(near && printed[2] >= 0.048, "{printed:?}");
}
