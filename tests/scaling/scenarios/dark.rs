//! Pods that do not answer, and operators that come anew.

use super::{SEEDS, WARM, ours, outcome, seconds};
use crate::agenda::{Time, between};
use crate::autoscaler::Fate;
use crate::load::Load;
use crate::outcome::Outcome;
use crate::table::Row;
use crate::world::{Deed, Setting};

const AT: Time = Time::from_mins(30);
const RATE: f64 = 20.0;

pub(super) fn busy(deeds: Vec<(Time, Deed)>) -> Setting {
    let setting = Setting::new(Load::steady(RATE), 56, 60.0, AT + seconds(900));
    Setting { deeds, warm: WARM, ..setting }
}

/// The least of what was desired while the window of five minutes still knows what was before, over what was then.
pub(super) fn dip(outcome: &Outcome) -> f64 {
    let before =
        outcome.desired([AT.saturating_sub(seconds(2)), AT]).first().map(|(desired, _)| *desired).unwrap();
    let least =
        outcome.desired([AT, AT + seconds(300)]).into_iter().map(|(desired, _)| desired).min().unwrap();
    f64::from(least) / f64::from(before)
}

/// The least of what was desired ever after, over what is needed.
fn over_need(outcome: &Outcome) -> f64 {
    let desired = outcome.desired([AT, outcome.length]).into_iter().map(|(desired, _)| desired).min();
    f64::from(desired.unwrap()) / busy(Vec::new()).need(RATE)
}

fn least(deeds: &[(Time, Deed)], figure: impl Fn(&Outcome) -> f64) -> f64 {
    let one = |seed| figure(&outcome(&busy(deeds.to_vec()).seeded(seed), ours()));
    SEEDS.map(one).fold(f64::INFINITY, f64::min)
}

fn row<'a>(number: &'a str, what: &'a str, goal: &'a str) -> Row<'a> {
    Row { number, what, goal, decimals: 2 }
}

#[test]
fn a_tenth_that_is_silent_does_not_shrink_the_pool_below_its_need() {
    let least = least(&[(AT, Deed::Dark(100))], over_need);
    row("13a", "10 % silent: least desired over need", ">= 0.95").print_balanced(least);
    assert!(least >= 0.95, "{least}");
}

#[test]
fn with_a_third_silent_nothing_shrinks_and_that_is_said() {
    let deeds = [(AT, Deed::Dark(300))];
    let lowest = least(&deeds, dip);
    row("13b", "30 % silent: least desired over that before", ">= 1").print_balanced(lowest);
    assert!(lowest >= 1.0, "{lowest}");
    let told = least(&deeds, |outcome| {
        let deaf = outcome.decided.iter().find(|one| one.at >= AT && !one.hears);
        -deaf.map_or(f64::INFINITY, |one| between(AT, one.at))
    });
    assert!(told >= -15.0, "it is said after {} s", -told);
}

#[test]
fn an_operator_that_comes_anew_begins_where_the_last_one_was() {
    let restart = least(&[(AT, Deed::Suffer(Fate::Restart))], dip);
    row("13c", "operator restarts at the peak: least desired over before", ">= 1").print_balanced(restart);
    let change = least(&[(AT, Deed::NoLeader(AT + seconds(15)))], dip);
    row("13d", "another leads after 15 s: least desired over before", ">= 1").print_balanced(change);
    assert!(restart >= 1.0 && change >= 1.0, "{restart} {change}");
    let later = least(&[(AT, Deed::NoLeader(AT + seconds(15)))], over_need);
    row("13e", "and ever after: least desired over need", ">= 0.95").print_balanced(later);
    assert!(later >= 0.95, "{later}");
}
