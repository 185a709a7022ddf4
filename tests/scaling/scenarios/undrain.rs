//! More is wanted again while pods that were to go still finish what they have.

use super::{SEEDS, ours, outcome, seconds};
use crate::agenda::{Time, between};
use crate::autoscaler::Fate;
use crate::load::{Load, Service};
use crate::outcome::Outcome;
use crate::random::Random;
use crate::table::Row;
use crate::world::{Deed, Setting};

const MANY: Deed = Deed::Suffer(Fate::Bounds(40, 60));

/// Twenty times a third of the pool is to go; long streams hold it up, and some seconds later all of it is wanted again.
fn back_again(seed: u64) -> Setting {
    let mut random = Random::new(seed, 9);
    let turn = |turn: u64| {
        let at = seconds(400 * turn + 300);
        let back = at + seconds(10) + Time::from_secs_f64(40.0 * random.unit());
        [(at, Deed::Suffer(Fate::Bounds(20, 20))), (back, MANY)]
    };
    let deeds = (0..20).flat_map(turn).collect();
    let setting = Setting::new(Load::steady(1.0), 40, 120.0, seconds(400 * 20 + 300));
    Setting { service: Service::Uniform(20.0, 180.0), deeds, seed, ..setting }
}

/// Of each return: the seconds until one who was to go is told, and until one is served from again.
fn delays(setting: &Setting, outcome: &Outcome) -> Vec<(f64, f64)> {
    let returns = setting.deeds.iter().filter(|(_, deed)| *deed == MANY);
    let delay = |back: Time| {
        let after = |times: &[Time]| {
            let first = times.iter().find(|at| **at >= back);
            first.map_or(f64::INFINITY, |at| between(back, *at))
        };
        (after(&outcome.let_go), after(&outcome.relisted))
    };
    returns.map(|(back, _)| delay(*back)).collect()
}

/// Pods that were made, beyond those that had gone meanwhile.
fn needless(outcome: &Outcome) -> usize {
    outcome.births.len().saturating_sub(outcome.deaths.len())
}

#[test]
fn victims_are_let_go_before_any_pod_is_made() {
    let runs = SEEDS.map(|seed| (back_again(seed), outcome(&back_again(seed), ours())));
    let (mut let_go, mut listed, mut made) = (0.0_f64, 0.0_f64, 0);
    for (setting, outcome) in runs {
        for delay in delays(&setting, &outcome) {
            (let_go, listed) = (let_go.max(delay.0), listed.max(delay.1));
        }
        made += needless(&outcome);
        assert!(outcome.let_go.len() > 100, "{} were let go", outcome.let_go.len());
        assert_eq!((outcome.broken, outcome.dropped, outcome.refused, outcome.wrong_victims), (0, 0, 0, 0));
    }
    let row = |number, what, goal| Row { number, what, goal, decimals: 1 };
    row("6a", "more wanted again: s until a victim takes requests again", "<= 3").print_balanced(let_go);
    row("6b", "more wanted again: s until it is in its Service again", "<= 6").print_balanced(listed);
    assert!(let_go <= 3.0 && listed <= 6.0, "{let_go} {listed}");
    assert_eq!(made, 0, "pods were made though victims sufficed");
}
