//! More is needed than there are places for.

use super::{SEEDS, WARM, ours, outcome, seconds};
use crate::agenda::{Time, between};
use crate::load::Load;
use crate::outcome::Outcome;
use crate::table::Row;
use crate::world::Setting;

const FROM: Time = Time::from_mins(25);

fn too_few_places() -> Setting {
    let load = Load::Pieces(vec![(seconds(0), 2.0), (FROM, 10.0)]);
    Setting { places: 12, warm: WARM, ..Setting::new(load, 6, 60.0, FROM + seconds(3600)) }
}

/// Seconds from the first pod without a place until it is said.
fn said(outcome: &Outcome, word: &str) -> f64 {
    let said = outcome.decided.iter().find(|one| one.at >= FROM && one.limited == word);
    let wanted = outcome.decided.iter().find(|one| one.at >= FROM && one.replicas > 12);
    let (Some(said), Some(wanted)) = (said, wanted) else { return f64::INFINITY };
    between(wanted.at, said.at)
}

#[test]
fn gpus_that_never_come_are_told_and_do_not_make_it_flap() {
    let outcomes: Vec<Outcome> = SEEDS.map(|seed| outcome(&too_few_places().seeded(seed), ours())).collect();
    let worst = |figure: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(figure).fold(0.0, f64::max);
    let row = |number, what, goal| Row { number, what, goal, decimals: 0 };
    let told = worst(&|outcome| said(outcome, "InsufficientGPU"));
    row("14a", "no place: s until InsufficientGPU is said", "<= 60").print_balanced(told);
    let gave_up = worst(&|outcome| said(outcome, "ProvisioningTimeout"));
    row("14b", "no place: s until ProvisioningTimeout is said", "<= 960").print_balanced(gave_up);
    let turns = worst(&super::step::reversals);
    row("14c", "no place: reversals an hour", "<= 3").print_balanced(turns);
    assert!(told <= 60.0 && gave_up <= 960.0 && turns <= 3.0, "{told} {gave_up} {turns}");
}
