//! Clients who always have something waiting: each gets its part of the slots.

use corral_limiter::Nanos;

use super::{least, most, outcomes};
use crate::load::{Client, Sizes};
use crate::ours::Setup;
use crate::outcome::{Outcome, jain};
use crate::table::{Beside, Row};
use crate::world::Setting;

#[test]
fn clients_get_the_slots_by_their_weights() {
    let sizes = [Sizes::new(1400.0, 280.0), Sizes::new(400.0, 80.0), Sizes::new(200.0, 40.0)];
    let client = |(sizes, weight)| Client::closed(sizes, 16).weighs(weight);
    let setting = Setting::new(4, 60, sizes.into_iter().zip([1, 2, 4]).map(client).collect());
    let off = |outcome: &Outcome| {
        let shares = outcome.shares(0, 1);
        let off =
            shares.iter().zip([1.0, 2.0, 4.0]).map(|(share, weight)| (share * 7.0 / weight - 1.0).abs());
        off.fold(0.0, f64::max) * 100.0
    };
    let ours = most(&outcomes(&setting, Setup::new(4).patient()), off);
    let what = "weights 1:2:4, % off";
    Row { number: "2", what, goal: "<= 2", ours, decimals: 1 }.print(&Beside::of(&setting), off);
    assert!(ours <= 2.0, "{ours} % off");
}

/// The last of them asks for half as much again as its part, the first for thirty times as much.
#[test]
fn twenty_clients_who_ask_for_too_much_all_get_the_same() {
    let share = 4.0 / 20.0;
    let sizes = [Sizes::new(200.0, 40.0), Sizes::new(1400.0, 280.0), Sizes::new(400.0, 80.0)];
    let client = |rank: u8| Client::open(sizes[usize::from(rank % 3)], 1.5 * share * 20.0 / f64::from(rank));
    let setting = Setting::new(4, 60, (1..=20).map(client).collect());
    let index = |outcome: &Outcome| jain(&outcome.served(0, 1));
    let ours = least(&outcomes(&setting, Setup::new(4)), index);
    let what = "twenty clients, each asks for too much: Jain";
    Row { number: "3", what, goal: ">= 0.99", ours, decimals: 3 }.print(&Beside::of(&setting), index);
    assert!(ours >= 0.99, "{ours}");
}

#[test]
fn who_comes_after_ten_minutes_gets_half_from_the_first_minute_on() {
    let old = Client::closed(Sizes::new(400.0, 80.0), 16);
    let new = Client { from: Nanos::from_secs(600), ..old.clone() };
    let minute = [Nanos::from_secs(600), Nanos::from_secs(660)];
    let setting = Setting::exactly(4, minute, vec![old, new]);
    let share = |outcome: &Outcome| outcome.shares(0, 1)[1];
    let (ours, baselines) = (outcomes(&setting, Setup::new(4).patient()), Beside::of(&setting));
    let (least, most) = (least(&ours, share), most(&ours, share));
    let what = "share of a newcomer in its first minute, least";
    Row { number: "4a", what, goal: "0.45 - 0.55", ours: least, decimals: 2 }.print(&baselines, share);
    let what = "share of a newcomer in its first minute, most";
    Row { number: "4b", what, goal: "0.45 - 0.55", ours: most, decimals: 2 }.print(&baselines, share);
    assert!(least >= 0.45 && most <= 0.55, "{least} to {most}");
}
