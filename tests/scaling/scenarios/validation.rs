//! The baselines do here what was measured of them before: so the world is the right one.

use super::sine::sine;
use super::step::{delay, over_need, step};
use crate::outcome::Outcome;
use crate::table::Kind;
use crate::world::Line;

fn holds(what: &str, value: f64, range: std::ops::RangeInclusive<f64>) {
    assert!(range.contains(&value), "{what}: {value} is not in {range:?}");
}

/// Before: 90 to 100 s and 3.7 times the need; 75 s and 9 times; 10 s and 7.5 times.
#[test]
fn counting_who_waits_as_work_overshoots() {
    let setting = step(60.0, Line::Common);
    let run = |kind: Kind| {
        let outcome = kind.run(&setting);
        (delay(&setting)(&outcome), over_need(&setting)(&outcome), outcome)
    };
    let (late, peak, _) = run(Kind::KubeAi);
    holds("KubeAI's delay", late, 60.0..=130.0);
    holds("KubeAI's peak", peak, 2.5..=5.5);
    let (late, peak, _) = run(Kind::Hpa);
    holds("HPA's delay", late, 45.0..=105.0);
    holds("HPA's peak", peak, 6.5..=9.5);
    let (late, peak, outcome) = run(Kind::Kpa);
    holds("KPA's delay", late, 5.0..=15.0);
    holds("KPA's peak", peak, 5.0..=9.5);
    assert!(outcome.reversals() >= 20, "{} reversals", outcome.reversals());
}

/// Before: a peak of 1000 pods and 174 GPU-hours.
#[test]
fn a_tide_with_long_starts_drives_knative_to_the_limit() {
    let outcome: Outcome = Kind::Kpa.run(&sine());
    holds("KPA's peak", f64::from(outcome.peak()), 700.0..=1000.0);
    holds("KPA's GPU-hours", outcome.gpu_hours(), 120.0..=230.0);
}
