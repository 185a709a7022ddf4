//! Another writer has its own idea of who goes first, and writes it into the same annotation.

use super::{SEEDS, ours, outcome, seconds};
use crate::autoscaler::Fate;
use crate::load::Load;
use crate::table::Row;
use crate::world::{Deed, Setting};

/// Ten shrinks; each victim's cost is overwritten once, some seconds after the shrink was wanted.
fn overwritten(seed: u64, after: u64, cost: i32) -> Setting {
    let mut deeds = Vec::new();
    for turn in 0..10 {
        let at = seconds(400 * turn + 100);
        deeds.push((at, Deed::Suffer(Fate::Bounds(6, 6))));
        deeds.push((at + seconds(after), Deed::Overwrite(cost)));
        deeds.push((at + seconds(200), Deed::Suffer(Fate::Bounds(12, 12))));
    }
    deeds.sort_by_key(|(at, _)| *at);
    Setting { deeds, seed, ..Setting::new(Load::steady(1.5), 12, 30.0, seconds(4_100)) }
}

#[test]
fn a_shrink_waits_where_another_writes_its_own_costs() {
    let mut wrong = 0;
    for seed in SEEDS {
        for (after, cost) in [(3, 0), (7, 0), (12, 1_000), (20, 1_000), (30, -1)] {
            let outcome = outcome(&overwritten(seed, after, cost), ours());
            wrong += outcome.deaths.iter().filter(|death| !death.chosen && death.loaded).count();
            assert!(outcome.deaths.len() >= 54, "{after} s, {cost}: {} went", outcome.deaths.len());
            assert_eq!((outcome.broken, outcome.dropped, outcome.refused), (0, 0, 0));
        }
    }
    let shown = f64::from(u32::try_from(wrong).unwrap());
    Row { number: "8", what: "another overwrites the cost: pods that went unchosen", goal: "0", decimals: 0 }
        .print_balanced(shown);
    assert_eq!(wrong, 0);
}
