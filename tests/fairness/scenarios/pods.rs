//! Three pods behind one Service, which know nothing of each other.

use super::SEEDS;
use crate::load::{Client, Sizes};
use crate::ours::Setup;
use crate::outcome::{Outcome, jain};
use crate::pods::{Pods, Route};
use crate::policy::Policy;
use crate::table::{BASELINES, Row};
use crate::world::{Setting, run};

const PODS: u32 = 3;
const SLOTS: u32 = 2;

/// An elephant and eight others, all of whom ask for more than their part.
fn nine() -> Setting {
    let sizes = [Sizes::new(200.0, 40.0), Sizes::new(1400.0, 280.0), Sizes::new(400.0, 80.0)];
    let part = f64::from(PODS * SLOTS) / 9.0;
    let client = |number: u8| {
        let times = if number == 0 { 20.0 } else { 1.5 };
        Client::open(sizes[usize::from(number % 3)], times * part)
    };
    Setting::new(PODS * SLOTS, 30, (0..9).map(client).collect())
}

fn index(setting: &Setting, pod: impl Fn() -> Box<dyn Policy>) -> f64 {
    let pods = (0..PODS).map(|_| pod()).collect();
    let outcome: Outcome = run(setting, &mut Pods::new(pods, Route::Spread));
    jain(&outcome.served(0, 1))
}

#[test]
fn clients_who_are_spread_over_three_pods_get_the_same_of_all_together() {
    let setting = nine();
    let ours = || Box::new(Setup::new(SLOTS).build()) as Box<dyn Policy>;
    let ours = SEEDS.map(|seed| index(&setting.seeded(seed), ours)).fold(f64::INFINITY, f64::min);
    let baselines: Vec<Option<f64>> =
        BASELINES.iter().map(|kind| Some(index(&setting, || kind.policy(SLOTS)))).collect();
    let what = "three pods, nine clients spread over them: Jain".into();
    Row { number: "12", what, goal: ">= 0.95", ours, decimals: 3 }.print_beside(&baselines);
    assert!(ours >= 0.95, "{ours}");
}
