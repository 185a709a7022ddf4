//! What must hold, one kind of load a file; the numbers of the lines are those of the targets.

mod dark;
mod flood;
mod others;
mod overload;
mod quota;
mod sine;
mod spike;
mod steady;
mod step;
mod streams;
mod undrain;
mod validation;
mod zero;

use crate::agenda::Time;
use crate::ours::{Ours, Preset};
use crate::outcome::Outcome;
use crate::table::BOUNDS;
use crate::world::{Setting, run};

/// All runs of a scenario: what holds must hold in each. Fewer where the compiler does not optimize.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=if cfg!(debug_assertions) { 1 } else { 10 };

/// Before anything is looked at, the pool has run so long: the longest window of any autoscaler is over.
const WARM: Time = Time::from_mins(20);

fn seconds(count: u64) -> Time {
    Time::from_secs(count)
}

fn ours() -> Ours {
    Ours::new(Preset::Balanced, BOUNDS)
}

fn outcome(setting: &Setting, mut ours: Ours) -> Outcome {
    run(setting, &mut ours)
}

fn most(outcomes: &[Outcome], figure: impl Fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(figure).fold(f64::NEG_INFINITY, f64::max)
}
