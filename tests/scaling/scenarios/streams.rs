//! A thousand long streams through a pool whose size changes all the time.

use super::{SEEDS, ours, outcome, seconds};
use crate::autoscaler::Fate;
use crate::load::{Load, Service};
use crate::outcome::Outcome;
use crate::random::Random;
use crate::table::Row;
use crate::world::{Deed, Setting};

pub(super) fn streams(seed: u64) -> Setting {
    let (mut random, mut at, mut deeds) = (Random::new(seed, 9), 60, Vec::new());
    while at < 2_400 {
        let pods = 8 + u32::try_from(random.below(40)).unwrap();
        deeds.push((seconds(at), Deed::Suffer(Fate::Bounds(pods, pods))));
        at += 30 + u64::try_from(random.below(150)).unwrap();
    }
    let load = Load::Pieces(vec![(seconds(0), 0.5), (seconds(2_000), 0.0)]);
    let setting = Setting::new(load, 25, 20.0, seconds(4_000));
    Setting { service: Service::Uniform(1.0, 300.0), deeds, seed, ..setting }
}

fn lost(outcome: &Outcome) -> u64 {
    outcome.broken + outcome.dropped + outcome.refused
}

#[test]
fn no_stream_is_lost_and_the_idlest_go() {
    let outcomes: Vec<Outcome> = SEEDS.map(|seed| outcome(&streams(seed), ours())).collect();
    let broken: u64 = outcomes.iter().map(lost).sum();
    let wrong: u32 = outcomes.iter().map(|outcome| outcome.wrong_victims).sum();
    let deaths: usize = outcomes.iter().map(|outcome| outcome.deaths.len()).sum();
    let row = |number, what, goal| Row { number, what, goal, decimals: 0 };
    row("5a", "1000 streams, sizes at random: lost", "0")
        .print_balanced(f64::from(u32::try_from(broken).unwrap()));
    row("5b", "1000 streams, sizes at random: wrong victims", "0").print_balanced(f64::from(wrong));
    row("5c", "1000 streams, sizes at random: pods that went", "many")
        .print_balanced(f64::from(u32::try_from(deaths).unwrap()));
    for outcome in &outcomes {
        assert_eq!(
            lost(outcome),
            0,
            "broken {}, dropped {}, refused {}",
            outcome.broken,
            outcome.dropped,
            outcome.refused
        );
        assert!(outcome.served > 800 && outcome.deaths.len() > 20, "{} served", outcome.served);
        let busier = outcome.choices.iter().find(|choice| choice.in_flight > choice.least_left);
        assert!(busier.is_none(), "not the idlest was chosen: {busier:?}");
        let unchosen = outcome.deaths.iter().find(|death| !death.chosen && death.loaded);
        assert!(unchosen.is_none(), "a pod went that was not chosen: {unchosen:?}");
        assert_eq!(outcome.wrong_victims, 0);
    }
}
