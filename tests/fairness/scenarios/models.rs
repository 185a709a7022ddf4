//! Two models of which one fits into memory, and a load takes ten seconds.

use corral_limiter::Nanos;

use super::{least, most, outcomes};
use crate::baselines::per_model::PerModel;
use crate::load::{Client, Sizes};
use crate::ours::Setup;
use crate::outcome::Outcome;
use crate::table::{Beside, Kind, Row};
use crate::world::{Setting, run};

const LOAD: Nanos = Nanos::from_secs(10);
const SLOTS: u32 = 2;

fn two_models() -> Setting {
    let client = |model| Client { model, ..Client::closed(Sizes::new(400.0, 80.0), 8) };
    Setting { models: (1, LOAD), ..Setting::new(SLOTS, 60, vec![client(0), client(1)]) }
}

/// Part of the time in which a model is loaded.
fn loading(outcome: &Outcome) -> f64 {
    f64::from(outcome.loads) * 10.0 / 3600.0
}

fn least_share(outcome: &Outcome) -> f64 {
    outcome.shares(0, 1).into_iter().fold(f64::INFINITY, f64::min)
}

#[test]
fn of_two_models_that_do_not_fit_neither_starves_and_loads_take_little_of_the_time() {
    let (setting, setup) = (two_models(), Setup::new(SLOTS).patient());
    let ollama = run(&setting, &mut PerModel::new(SLOTS));
    let (fifo, round_robin) = (Kind::Fifo(16).run(&setting), Kind::RoundRobin.run(&setting));
    let beside = Beside::these(vec![Some(ollama), None, Some(fifo), Some(round_robin)]);
    let ours = outcomes(&setting, setup);
    let share = least(&ours, least_share);
    let what = "two models, room for one: the smaller share";
    Row { number: "10a", what, goal: ">= 0.40", ours: share, decimals: 2 }.print(&beside, least_share);
    let time = most(&ours, loading);
    let what = "two models, room for one: part of the time for loads";
    Row { number: "10b", what, goal: "<= 0.25", ours: time, decimals: 2 }.print(&beside, loading);
    let blocked = most(&ours, |outcome| f64::from(outcome.blocked));
    assert!(blocked <= 0.0, "{blocked} had a slot and could not load");
    assert!(share >= 0.4 && time <= 0.25, "{share} {time}");
}
