//! Six hours of the same.

use super::{SEEDS, WARM, ours, outcome, seconds};
use crate::agenda::between;
use crate::load::Load;
use crate::outcome::Outcome;
use crate::table::Row;
use crate::world::{OWN, Setting};

/// A sixth of it where the compiler does not optimize.
const HOURS: u64 = if cfg!(debug_assertions) { 1 } else { 6 };

pub(super) fn steady(rate: f64, pods: u32) -> Setting {
    let length = WARM + seconds(HOURS * 3600);
    Setting { line: OWN, warm: WARM, ..Setting::new(Load::steady(rate), pods, 60.0, length) }
}

/// Of the time, the part in which desired was within so much of what is needed.
fn within(outcome: &Outcome, need: f64, part: f64) -> f64 {
    let spans = outcome.desired([WARM, outcome.length]);
    let all: f64 = spans.iter().map(|(_, seconds)| seconds).sum();
    let near = spans.iter().filter(|(desired, _)| (f64::from(*desired) - need).abs() <= part * need);
    near.map(|(_, seconds)| seconds).sum::<f64>() / all
}

#[expect(clippy::cast_precision_loss, reason = "a few")]
fn changes_an_hour(outcome: &Outcome) -> f64 {
    outcome.changes() as f64 / (between(WARM, outcome.length) / 3600.0)
}

#[test]
fn a_pool_with_hardly_anything_to_do_is_left_alone() {
    let changes = |seed| changes_an_hour(&outcome(&steady(0.2, 1).seeded(seed), ours()));
    let worst = SEEDS.map(changes).fold(0.0, f64::max);
    Row { number: "2a", what: "steady 0.2 a second: changes an hour", goal: "<= 1", decimals: 2 }
        .print_balanced(worst);
    assert!(worst <= 1.0, "{worst} changes an hour");
}

/// The worst seed's part of the time in which desired was near enough.
fn near(rate: f64, pods: u32, by: f64) -> f64 {
    let setting = steady(rate, pods);
    let near = |seed| within(&outcome(&setting.seeded(seed), ours()), setting.need(rate), by);
    SEEDS.map(near).fold(1.0, f64::min)
}

/// Five and a third are needed: within 15 % there is nothing but five and six.
#[test]
fn a_pool_of_six_stays_near_what_it_needs() {
    let worst = near(2.0, 6, 0.15);
    let what = "steady 2 a second: part of the time within 15 %";
    Row { number: "2b", what, goal: ">= 0.95", decimals: 3 }.print_balanced(worst);
    assert!(worst >= 0.95, "{worst}");
}

#[test]
fn a_pool_of_a_hundred_stays_near_what_it_needs() {
    let worst = near(40.0, 107, 0.15);
    Row {
        number: "2c",
        what: "steady 40 a second: part of the time within 15 %",
        goal: ">= 0.95",
        decimals: 3,
    }
    .print_balanced(worst);
    assert!(worst >= 0.95, "{worst}");
}
