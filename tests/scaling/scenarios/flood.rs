//! A client beyond its limit sends a thousand requests a second.

use super::{SEEDS, WARM, ours, outcome, seconds};
use crate::load::Load;
use crate::table::Row;
use crate::world::{Deed, Setting};

#[test]
fn what_limits_refuse_is_no_demand() {
    let quiet = Setting { warm: WARM, ..Setting::new(Load::steady(2.0), 6, 60.0, WARM + seconds(1_800)) };
    let flooded = Setting { deeds: vec![(WARM, Deed::Flood(1_000))], ..quiet.clone() };
    let course =
        |setting: &Setting, seed| outcome(&setting.seeded(seed), ours()).desired([WARM, setting.length]);
    let differ = SEEDS.filter(|seed| course(&quiet, *seed) != course(&flooded, *seed)).count();
    Row {
        number: "16",
        what: "1000 a second refused by a limit: runs that went otherwise",
        goal: "0",
        decimals: 0,
    }
    .print_balanced(f64::from(u32::try_from(differ).unwrap()));
    assert_eq!(differ, 0);
}
