//! What came of a run.

use std::time::Duration;

use crate::agenda::{Time, between};

/// A pod that was told to go by the `ReplicaSet` controller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    pub(crate) in_flight: u32,
    pub(crate) queued: u32,
    /// It had been told to retire before.
    pub(crate) chosen: bool,
    pub(crate) loaded: bool,
}

/// A pod that was chosen to go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) in_flight: u32,
    /// The fewest in flight of those that were left, of the ready ones.
    pub(crate) least_left: u32,
}

/// One decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decided {
    pub(crate) at: Time,
    pub(crate) desired: u32,
    pub(crate) replicas: u32,
    pub(crate) reason: &'static str,
    pub(crate) limited: &'static str,
    pub(crate) hears: bool,
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Each decision that was another than the one before, and the last.
    pub(crate) decided: Vec<Decided>,
    /// When a request first came, and for how many seconds it waited for its slot.
    pub(crate) waits: Vec<(Time, f64)>,
    pub(crate) deaths: Vec<Death>,
    pub(crate) choices: Vec<Choice>,
    /// When pods were made.
    pub(crate) births: Vec<Time>,
    /// When a pod was let go from its order to retire, and when it was in the load balancers' lists again.
    pub(crate) let_go: Vec<Time>,
    pub(crate) relisted: Vec<Time>,
    pub(crate) served: u64,
    /// Answers that were cut because their pod died.
    pub(crate) broken: u64,
    /// Requests that waited in a pod that died.
    pub(crate) dropped: u64,
    /// Connections that nobody took.
    pub(crate) refused: u64,
    /// Answers that said that the queue is full.
    pub(crate) turned_away: u64,
    /// Those that an activator held: when they came, and when they were passed on.
    pub(crate) held: Vec<(Time, Time)>,
    /// When a pod was first able to serve.
    pub(crate) loaded: Vec<Time>,
    /// As the autoscaler counted them.
    pub(crate) wrong_victims: u32,
    /// Annotations written.
    pub(crate) patches: u64,
    /// Seconds of pods that had a place.
    pub(crate) pod_seconds: f64,
    pub(crate) length: Time,
    /// Figures are of what was from then on.
    pub(crate) warm: Time,
}

impl Outcome {
    /// Writes a decision down.
    pub(crate) fn decide(&mut self, next: Decided) {
        let same = |last: &Decided| Decided { at: next.at, ..*last };
        let is_new = self.decided.last().map(same).is_none_or(|last| {
            (last.desired, last.replicas, last.reason, last.limited, last.hears)
                != (next.desired, next.replicas, next.reason, next.limited, next.hears)
        });
        if is_new {
            self.decided.push(next);
        }
    }

    /// Desired, and for how many seconds it was so, between two moments.
    pub(crate) fn desired(&self, [from, to]: [Time; 2]) -> Vec<(u32, f64)> {
        let ends = self.decided.iter().skip(1).map(|next| next.at).chain([self.length]);
        let within = |at: Time| at.clamp(from, to);
        let lasts = self.decided.iter().zip(ends);
        lasts
            .map(|(one, end)| (one.desired, between(within(one.at), within(end))))
            .filter(|(_, seconds)| *seconds > 0.0)
            .collect()
    }

    /// Desired from the first of these moments on, at which it is at least so much: after how many seconds.
    pub(crate) fn reaches(&self, desired: f64, from: Time) -> f64 {
        let at = self.decided.iter().find(|one| one.at >= from && f64::from(one.desired) >= desired);
        at.map_or(f64::INFINITY, |one| between(from, one.at))
    }

    pub(crate) fn peak(&self) -> u32 {
        self.course().into_iter().max().unwrap_or_default()
    }

    /// The values that desired took, one after the other.
    fn course(&self) -> Vec<u32> {
        let spans = self.desired([self.warm, self.length]);
        let mut course: Vec<u32> = spans.into_iter().map(|(desired, _)| desired).collect();
        course.dedup();
        course
    }

    /// How often desired changed.
    pub(crate) fn changes(&self) -> usize {
        self.course().len().saturating_sub(1)
    }

    /// How often desired went the other way.
    pub(crate) fn reversals(&self) -> usize {
        let ways: Vec<bool> = self.course().windows(2).map(|pair| pair[1] > pair[0]).collect();
        ways.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    pub(crate) fn gpu_hours(&self) -> f64 {
        self.pod_seconds / 3600.0
    }

    /// Seconds that no more than 5 % of the requests waited longer.
    pub(crate) fn p95_wait(&self) -> f64 {
        let warm = self.waits.iter().filter(|(came, _)| *came >= self.warm);
        quantile(warm.map(|(_, wait)| *wait), 0.95)
    }
}

/// No more than the other part of the values are above.
pub(crate) fn quantile(values: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let rank = part * f64::from(u32::try_from(values.len().saturating_sub(1)).unwrap());
    let below = (0..values.len()).take_while(|at| f64::from(u32::try_from(*at).unwrap()) < rank).count();
    values.get(below).copied().unwrap_or_default()
}

#[test]
fn a_course_is_counted_as_it_went() {
    let mut outcome = Outcome { length: Time::from_secs(100), ..Outcome::default() };
    for (at, desired) in [(0, 1), (10, 4), (12, 4), (20, 2), (30, 3)] {
        let (at, hears) = (Duration::from_secs(at), true);
        outcome.decide(Decided { at, desired, replicas: desired, reason: "", limited: "", hears });
    }
    assert_eq!((outcome.changes(), outcome.reversals(), outcome.peak()), (3, 2, 4));
    assert_eq!(outcome.decided.len(), 4, "the same again is not written down");
    assert!((outcome.reaches(3.0, Time::from_secs(5)) - 5.0).abs() < 1e-9);
    assert_eq!(outcome.desired([Time::from_secs(15), Time::from_secs(40)]), [(4, 5.0), (2, 10.0), (3, 10.0)]);
}
