//! People at their screens beside an endless flood of batch work.

use super::{least, outcomes, pooled};
use crate::load::{Client, Importance, Sizes};
use crate::ours::Setup;
use crate::outcome::Outcome;
use crate::table::{Beside, Row};
use crate::world::Setting;

fn batch() -> Sizes {
    Sizes { most: 1e6, ..Sizes::new(1000.0, 390.0) }
}

/// A tenth of the time of four slots, beside a flood of three times as much as there is.
fn flood(importance: Importance) -> Setting {
    let people = Client::open(Sizes::new(400.0, 100.0), 0.4).of(importance);
    Setting::new(4, 120, vec![people, Client::open(batch(), 12.0).of(Importance::Low)])
}

/// Of the interactive ones, in mean batch jobs.
fn wait(outcome: &Outcome) -> f64 {
    outcome.wait(0..1, 0.99) / batch().service()
}

fn batch_served(outcome: &Outcome) -> f64 {
    outcome.served(0, 1)[1]
}

#[test]
fn a_batch_flood_leaves_people_alive() {
    let setting = flood(Importance::High);
    let (ours, baselines) = (outcomes(&setting, Setup::new(4)), Beside::of(&setting));
    let longest = wait(&pooled(&ours));
    let what = "chat under a batch flood: wait p99 / mean batch job";
    Row { number: "7a", what, goal: "<= 1.0", ours: longest, decimals: 2 }.print(&baselines, wait);
    let percent = |outcome: &Outcome| outcome.success(0..1) * 100.0;
    let success = least(&ours, percent);
    let what = "chat under a batch flood: success of chat, %";
    Row { number: "7b", what, goal: ">= 99.5", ours: success, decimals: 1 }.print(&baselines, percent);
    assert!(longest <= 1.0 && success >= 99.5, "{longest} {success}");
}

#[test]
fn a_reserved_slot_halves_what_is_critical_waits_and_costs_the_batch_a_fifth_at_most() {
    let setting = flood(Importance::Critical);
    let (ours, baselines) = (outcomes(&setting, Setup::new(4)), Beside::of(&setting));
    let longest = wait(&pooled(&ours));
    let what = "the same, critical, with a slot in reserve";
    Row { number: "7c", what, goal: "<= 0.5", ours: longest, decimals: 2 }.print(&baselines, wait);
    let without = outcomes(&flood(Importance::High), Setup::new(4));
    let kept = ours.iter().zip(&without).map(|(with, without)| batch_served(with) / batch_served(without));
    let kept = kept.fold(f64::INFINITY, f64::min);
    let what = "the same: batch work beside what it is without reserve";
    Row { number: "7d", what, goal: ">= 0.80", ours: kept, decimals: 2 }
        .print(&Beside::nothing(), batch_served);
    assert!(longest <= 0.5 && kept >= 0.8, "{longest} {kept}");
}

#[test]
fn bands_that_all_want_everything_share_by_sixteen_to_four_to_one_and_batch_has_five_percent() {
    let of = |importance| Client::closed(Sizes::new(400.0, 80.0), 16).of(importance);
    let clients = [Importance::High, Importance::Medium, Importance::Low].map(of);
    let setting = Setting::new(4, 60, clients.to_vec());
    let (ours, baselines) = (outcomes(&setting, Setup::new(4).patient()), Beside::of(&setting));
    let mut shares = Vec::new();
    let lines = [
        ("7e", "interactive", "0.72 - 0.80"),
        ("7f", "standard", "0.18 - 0.20"),
        ("7g", "batch", ">= 0.048"),
    ];
    for (band, (number, name, goal)) in lines.into_iter().enumerate() {
        let share = |outcome: &Outcome| outcome.shares(0, 1)[band];
        let least = least(&ours, share);
        let what = &format!("all bands full: share of {name}");
        Row { number, what, goal, ours: least, decimals: 3 }.print(&baselines, share);
        shares.push(least);
    }
    let near =
        [16.0, 4.0].iter().zip(&shares).all(|(weight, share)| (share * 21.0 / weight - 1.0).abs() < 0.05);
    assert!(near && shares[2] >= 0.048, "{shares:?}");
}
