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

/// All runs of a scenario: what holds must hold in each. Fewer where the compiler does not optimize.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=if cfg!(debug_assertions) { 2 } else { 5 };

/// What comes of ours, by seed.
fn outcomes(setting: &Setting, setup: Setup) -> Vec<Outcome> {
    SEEDS.map(|seed| run(&setting.seeded(seed), &mut setup.build())).collect()
}

/// The greatest figure of all seeds.
fn most(outcomes: &[Outcome], figure: impl Fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(figure).fold(f64::NEG_INFINITY, f64::max)
}

/// The least figure of all seeds.
fn least(outcomes: &[Outcome], figure: impl Fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(figure).fold(f64::INFINITY, f64::min)
}

/// All waits and fates of all seeds as one: the rarest of one run are too few to say how rare they are.
fn pooled(outcomes: &[Outcome]) -> Outcome {
    let mut all = outcomes[0].clone();
    for outcome in &outcomes[1..] {
        all.add(outcome);
    }
    all
}
