//! Twenty times as much for a minute.

use super::{SEEDS, WARM, most, seconds};
use crate::agenda::Time;
use crate::load::Load;
use crate::ours::Preset;
use crate::outcome::Outcome;
use crate::table::{Beside, Kind, Row};
use crate::world::{Line, Setting};

const FROM: Time = Time::from_mins(25);
const LONG: u64 = 60;
/// What two a second have by chance: see the steady pool of six.
const USUAL: u32 = 7;

/// With so many, nineteen of twenty pods that were made for it are gone; the last ones may stay by chance.
fn gone(outcome: &Outcome) -> u32 {
    USUAL + (outcome.peak() - USUAL) / 20
}

fn spike(startup: f64) -> Setting {
    let load = Load::step(2.0, 40.0, [FROM.as_secs(), FROM.as_secs() + LONG]);
    Setting { line: Line::Common, warm: WARM, ..Setting::new(load, 6, startup, WARM + seconds(3600)) }
}

/// What the formula may ask for at most: the need, and what serves all that waits until the pods are there, within half of
/// the time that they take to start, though not in less than 30 s.
fn bound(setting: &Setting) -> f64 {
    let drain = (0.5 * setting.startup).max(30.0);
    setting.need(40.0) * 0.75 * (1.0 + setting.startup / drain)
}

/// From when all of it is served and the minute's window has forgotten it, until what was made for it is gone: how many seconds
/// more than five minutes and half a minute for each step down.
fn lateness(outcome: &Outcome) -> f64 {
    let of_it = outcome.waits.iter().filter(|(came, _)| *came >= FROM && *came <= FROM + seconds(LONG));
    let served = of_it.map(|(came, wait)| came.as_secs_f64() + wait).fold(0.0, f64::max);
    let over = served.max((FROM + seconds(LONG + 60)).as_secs_f64());
    let steps =
        outcome.decided.windows(2).filter(|pair| pair[0].at > FROM && pair[1].desired < pair[0].desired);
    let steps = u32::try_from(steps.take_while(|pair| pair[0].desired > gone(outcome)).count()).unwrap();
    let back =
        outcome.decided.iter().find(|one| one.at.as_secs_f64() >= over && one.desired <= gone(outcome));
    back.map_or(f64::INFINITY, |back| back.at.as_secs_f64()) - over - 300.0 - 30.0 * f64::from(steps)
}

/// The worst seed's GPU-hours over those of Knative's autoscaler.
fn over_kpa(ours: &[Outcome], setting: &Setting) -> f64 {
    let kpas = SEEDS.map(|seed| Kind::Kpa.run(&setting.seeded(seed)).gpu_hours());
    ours.iter().map(Outcome::gpu_hours).zip(kpas).map(|(ours, kpa)| ours / kpa).fold(0.0, f64::max)
}

/// The numbers of the lines.
fn holds([peak_row, hours_row, wait_row, late_row, kpa_row]: [&str; 5], startup: f64) {
    let setting = spike(startup);
    let all = Beside::of(&setting);
    let over_bound = |outcome: &Outcome| f64::from(outcome.peak()) / bound(&setting);
    let print = |number, figure: &str, goal, decimals, of: &dyn Fn(&Outcome) -> f64| {
        let what = &format!("x20 for 60 s, start {startup} s: {figure}");
        Row { number, what, goal, decimals }.print(&all, of);
    };
    print(peak_row, "peak over its bound", "<= 1.2", 2, &over_bound);
    print(hours_row, "GPU-hours", "", 1, &Outcome::gpu_hours);
    print(wait_row, "p95 wait, s", "", 1, &Outcome::p95_wait);
    let outcomes: Vec<Outcome> =
        SEEDS.map(|seed| Kind::Ours(Preset::Balanced).run(&setting.seeded(seed))).collect();
    let (peak, late, cost) =
        (most(&outcomes, over_bound), most(&outcomes, lateness), over_kpa(&outcomes, &setting));
    let what = &format!("x20 for 60 s, start {startup} s: s later down than 300 + 30 a step");
    Row { number: late_row, what, goal: "<= 0", decimals: 0 }.print_balanced(late);
    let what = &format!("x20 for 60 s, start {startup} s: GPU-hours over KPA's");
    Row { number: kpa_row, what, goal: "<= 1", decimals: 2 }.print_balanced(cost);
    assert!(peak <= 1.2, "{peak} times the bound");
    assert!(late <= 0.0, "{late} s too late down");
    assert!(cost <= 1.0, "{cost} times the GPU-hours of KPA");
}

#[test]
fn a_spike_is_not_overdone_and_soon_forgotten_with_short_starts() {
    holds(["3a", "3b", "3c", "3d", "3e"], 60.0);
}

#[test]
fn a_spike_is_not_overdone_and_soon_forgotten_with_long_starts() {
    holds(["3f", "3g", "3h", "3i", "3j"], 240.0);
}
