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
    f64::from(outcome.loads) * 10.0 * f64::from(SLOTS) / (outcome.capacity * 1.1)
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
    Row { number: "14a", what, goal: ">= 0.40", ours: share, decimals: 2 }.print(&beside, least_share);
    let time = most(&ours, loading);
    let what = "two models, room for one: part of the time for loads";
    Row { number: "14b", what, goal: "<= 0.25", ours: time, decimals: 2 }.print(&beside, loading);
    let blocked = most(&ours, |outcome| f64::from(outcome.blocked));
    assert!(blocked <= 0.0, "{blocked} had a slot and could not load");
    assert!(share >= 0.4 && time <= 0.25, "{share} {time}");
}

/// Eight loads' time for the first model, one load, and a request of the first that has to end before it.
const BOUND: f64 = 110.0;

#[test]
fn a_model_that_is_asked_for_now_and_then_is_loaded_beside_one_that_is_always_wanted() {
    let sizes = Sizes::new(400.0, 80.0);
    let rare = Client { model: 1, ..Client::open(sizes, 0.02) };
    let always = Client::closed(sizes, 8);
    let setting = Setting { models: (1, LOAD), ..Setting::new(SLOTS, 120, vec![always, rare]) };
    let ollama = run(&setting, &mut PerModel::new(SLOTS));
    let ours = outcomes(&setting, Setup::new(SLOTS).patient());
    let unserved = |outcome: &Outcome| 100.0 - outcome.success(1..2) * 100.0;
    let longest = |outcome: &Outcome| outcome.wait(1..2, 1.0);
    let wait = most(&ours, longest);
    let what = "a model rarely asked for: longest wait, s";
    let none = Beside::nothing();
    Row { number: "14c", what, goal: "<= 110", ours: wait, decimals: 0 }.print(&none, longest);
    let served = least(&ours, |outcome| f64::from(outcome.accounts[1].done));
    assert!(ollama.accounts[1].done == 0, "Ollama alone lets it starve: {}", ollama.accounts[1].done);
    assert!(served > 10.0 && wait <= BOUND && most(&ours, unserved) <= 0.0, "{served} served, {wait} s");
}
