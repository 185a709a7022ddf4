//! Three pods behind one Service, which know nothing of each other.

use super::{SEEDS, least};
use crate::load::{Client, Sizes};
use crate::ours::Setup;
use crate::outcome::{Outcome, jain};
use crate::pods::Pods;
use crate::policy::Policy;
use crate::table::{BASELINES, Beside, Row};
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

fn pools(setting: &Setting, pod: impl Fn() -> Box<dyn Policy>) -> Outcome {
    run(setting, &mut Pods::new((0..PODS).map(|_| pod()).collect()))
}

#[test]
fn clients_who_are_spread_over_three_pods_get_the_same_of_all_together() {
    let setting = nine();
    let pod = || Box::new(Setup::new(SLOTS).build()) as Box<dyn Policy>;
    let outcomes: Vec<Outcome> = SEEDS.map(|seed| pools(&setting.seeded(seed), pod)).collect();
    let index = |outcome: &Outcome| jain(&outcome.served(0, 1));
    let ours = least(&outcomes, index);
    let beside = BASELINES.iter().map(|kind| Some(pools(&setting, || kind.policy(SLOTS)))).collect();
    let what = "three pods, nine clients spread over them: Jain";
    Row { number: "12", what, goal: ">= 0.95", ours, decimals: 3 }.print(&Beside::these(beside), index);
    assert!(ours >= 0.95, "{ours}");
}
