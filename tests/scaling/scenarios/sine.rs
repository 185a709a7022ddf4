//! Five to thirty-five a second and back, with pods that take four minutes to start.

use super::{SEEDS, WARM, ours, outcome, seconds};
use crate::load::Load;
use crate::ours::Preset;
use crate::outcome::Outcome;
use crate::table::{Beside, Kind, Row};
use crate::world::{Line, Setting};

pub(super) fn sine() -> Setting {
    let load = Load::Sine { mean: 20.0, swing: 15.0, period: seconds(1500) };
    Setting { line: Line::Common, warm: WARM, ..Setting::new(load, 54, 240.0, WARM + seconds(3600)) }
}

#[test]
fn a_tide_costs_little_and_who_looks_ahead_waits_half_as_long() {
    let setting = sine();
    let all = Beside::of(&setting);
    let row = |number, what, goal, decimals| Row { number, what, goal, decimals };
    row("4a", "sine, start 240 s: GPU-hours", "<= 0.6 x KPA's", 1).print(&all, Outcome::gpu_hours);
    row("4b", "sine, start 240 s: p95 wait, s", "", 1).print(&all, Outcome::p95_wait);
    row("4c", "sine, start 240 s: peak", "", 0).print(&all, |outcome| f64::from(outcome.peak()));
    let sum = |figure: fn(&Outcome) -> f64, of: &[Outcome]| of.iter().map(figure).sum::<f64>();
    let of =
        |run: &dyn Fn(&Setting) -> Outcome| SEEDS.map(|seed| run(&setting.seeded(seed))).collect::<Vec<_>>();
    let plain = of(&|setting| Kind::Ours(Preset::Balanced).run(setting));
    let ahead = of(&|setting| outcome(setting, ours().with_trend()));
    let kpa = of(&|setting| Kind::Kpa.run(setting));
    let hours = [&plain, &ahead, &kpa].map(|of| sum(Outcome::gpu_hours, of));
    let waits = [&plain, &ahead].map(|of| sum(Outcome::p95_wait, of));
    row("4d", "sine: with trend, p95 wait over that without", "<= 0.5", 2)
        .print_balanced(waits[1] / waits[0]);
    row("4e", "sine: with trend, GPU-hours over those without", "<= 1.1", 2)
        .print_balanced(hours[1] / hours[0]);
    assert!(hours[0] <= 0.6 * hours[2], "{hours:?}");
    assert!(waits[1] <= 0.5 * waits[0], "{waits:?}");
    assert!(hours[1] <= 1.1 * hours[0], "{hours:?}");
}
