//! What must hold, one kind of load a file; the numbers of the lines are those of the targets.

mod bands;
mod elephant;
mod equals;
mod estimates;
mod models;
mod overload;
mod pods;
mod shares;
mod validation;

use crate::ours::Setup;
use crate::outcome::Outcome;
use crate::world::{Setting, run};

/// All runs of a scenario: what holds must hold in each.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

/// The greatest figure of all seeds.
fn most(setting: &Setting, setup: Setup, figure: impl Fn(&Outcome) -> f64) -> f64 {
    figures(setting, setup, figure).fold(f64::NEG_INFINITY, f64::max)
}

/// The least figure of all seeds.
fn least(setting: &Setting, setup: Setup, figure: impl Fn(&Outcome) -> f64) -> f64 {
    figures(setting, setup, figure).fold(f64::INFINITY, f64::min)
}

fn figures(
    setting: &Setting,
    setup: Setup,
    figure: impl Fn(&Outcome) -> f64,
) -> impl Iterator<Item = f64> {
    SEEDS.map(move |seed| figure(&run(&setting.seeded(seed), &mut setup.build())))
}
