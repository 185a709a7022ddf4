//! What waiters are told of their wait, beside how long it was.

use crate::load::{Client, Sizes};
use crate::ours::Setup;
use crate::outcome::quantile;
use crate::table::{Beside, Row};
use crate::world::{Setting, run};

/// Four clients with what there is and a tenth more, who take turns in asking for little and for much.
#[test]
fn predicted_waits_are_mostly_right_within_a_factor_of_two() {
    let sizes = [
        Sizes::new(200.0, 40.0),
        Sizes::new(1400.0, 280.0),
        Sizes::new(400.0, 80.0),
        Sizes::new(500.0, 140.0),
    ];
    let clients = sizes.map(|sizes| Client::open(sizes, 1.1));
    let mut ours = Setup::new(4).build();
    run(&Setting::new(4, 30, clients.to_vec()), &mut ours);
    let waited: Vec<(f64, f64)> = ours.predictions.into_iter().filter(|(_, real)| *real > 1.0).collect();
    let ratio = |(predicted, real): &(f64, f64)| predicted / real;
    let quantile = |part| quantile(waited.iter().map(ratio), part);
    for (number, part) in [("13a", 0.1), ("13b", 0.5), ("13c", 0.9)] {
        let what = &format!("predicted wait / real one, {part} quantile");
        let goal = if number == "13b" { "0.5 - 2" } else { "" };
        Row { number, what, goal, ours: quantile(part), decimals: 2 }.print(&Beside::nothing(), |_| 0.0);
    }
    assert!(waited.len() > 500, "{}", waited.len());
    assert!((0.5..=2.0).contains(&quantile(0.5)), "{}", quantile(0.5));
}
