//! Two clients with equal claims, of whom one asks for little things and the other for large ones.

use super::{most, outcomes};
use crate::load::{Client, CostModel, Sizes};
use crate::ours::{Setup, Wrong};
use crate::outcome::Outcome;
use crate::table::{Beside, Row};
use crate::world::Setting;

/// Each asks for more than there is. The small ones cost a seventh of the large ones.
pub(super) fn small_and_large(slots: u32, cost: CostModel) -> Setting {
    let capacity = f64::from(slots);
    let small = Client::open(Sizes::new(200.0, 40.0), 1.2 * capacity);
    let large = Client::open(Sizes::new(1400.0, 280.0), 1.5 * capacity);
    Setting { cost, ..Setting::new(slots, 30, vec![small, large]) }
}

fn gap_stays_small(number: &'static str, slots: u32, cost: CostModel) {
    let setting = small_and_large(slots, cost);
    let setup = Setup { cost, ..Setup::new(slots).patient() };
    let ours = most(&outcomes(&setting, setup), Outcome::gap);
    let what = &format!("gap of two equals, C_max, {cost:?}, N = {slots}");
    Row { number, what, goal: "<= 2", ours, decimals: 2 }.print(&Beside::of(&setting), Outcome::gap);
    assert!(ours <= 2.0, "{ours} times the dearest request");
}

#[test]
fn equals_are_never_further_apart_than_two_requests_in_one_slot() {
    gap_stays_small("1a", 1, CostModel::SlotTime);
}

#[test]
fn equals_are_never_further_apart_than_two_requests_in_two_slots() {
    gap_stays_small("1b", 2, CostModel::SlotTime);
}

#[test]
fn equals_are_never_further_apart_than_two_requests_in_four_slots() {
    gap_stays_small("1c", 4, CostModel::SlotTime);
}

#[test]
fn equals_are_never_further_apart_than_two_requests_in_eight_slots() {
    gap_stays_small("1d", 8, CostModel::SlotTime);
}

#[test]
fn equals_are_never_further_apart_than_two_requests_where_tokens_are_the_cost() {
    gap_stays_small("1e", 4, CostModel::Tokens);
}

/// What is proven: (N + 1)(C + C), C being what a request costs or was estimated at, whichever is more.
#[test]
fn estimates_however_wrong_keep_equals_within_what_is_proven() {
    let (slots, cost) = (4, CostModel::SlotTime);
    let setting = small_and_large(slots, cost);
    for (number, wrong) in [("1f", (0.05, 0.05)), ("1g", (17.0, 17.0)), ("1h", (0.05, 17.0))] {
        let setup = Setup { wrong: Wrong::Between(wrong.0, wrong.1), ..Setup::new(slots).patient() };
        let ours = most(&outcomes(&setting, setup), Outcome::gap);
        let what = &format!("the same, N = 4, estimates {} to {} times wrong", wrong.0, wrong.1);
        Row { number, what, goal: "<= 10", ours, decimals: 2 }.print(&Beside::nothing(), Outcome::gap);
        let dearest_estimate = wrong.1.max(1.0);
        assert!(ours <= 2.0 * f64::from(slots + 1) * dearest_estimate, "{ours}");
        assert!(ours <= 10.0, "{ours} times the dearest request");
    }
}
