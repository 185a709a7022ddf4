//! Pods that are out of their Service because they have too much to do, while the pool shrinks: the controller would
//! take exactly them, whatever their cost.

use super::{SEEDS, ours, outcome, seconds};
use crate::autoscaler::Fate;
use crate::load::{Load, Service};
use crate::table::Row;
use crate::world::{Deed, Setting};

fn overloaded(seed: u64) -> Setting {
    let load = Load::Pieces(vec![(seconds(0), 0.25), (seconds(1_500), 0.02)]);
    let deeds = vec![
        (seconds(1_490), Deed::Overload(3)),
        (seconds(1_500), Deed::Suffer(Fate::Bounds(4, 6))),
        (seconds(2_400), Deed::Overload(0)),
    ];
    let setting = Setting::new(load, 12, 60.0, seconds(3_600));
    Setting { service: Service::Uniform(60.0, 280.0), deeds, seed, ..setting }
}

#[test]
fn nobody_goes_who_has_something_to_do() {
    let outcomes: Vec<_> = SEEDS.map(|seed| outcome(&overloaded(seed), ours())).collect();
    let busy = outcomes
        .iter()
        .flat_map(|outcome| &outcome.deaths)
        .filter(|death| death.in_flight + death.queued > 0);
    let busy = u32::try_from(busy.count()).unwrap();
    Row {
        number: "7",
        what: "overloaded pods out of their Service: busy pods deleted",
        goal: "0",
        decimals: 0,
    }
    .print_balanced(f64::from(busy));
    assert_eq!(busy, 0);
    let gone: usize = outcomes.iter().map(|outcome| outcome.deaths.len()).sum();
    assert!(gone >= 4 * outcomes.len(), "the pools shrank all the same: {gone} went");
}
