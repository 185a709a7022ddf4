//! Looking ahead by as much as a pod takes to start, along the line on which the rate has risen.
//!
//! The line is the least squares through the last 200 s, in steps of ten seconds: over more it is late where a tide turns.
//! It counts by what it rises beyond what chance may do; a rate that falls is not looked ahead of.

use crate::rate::Rates;

/// How many steps the line goes through at most, and at least.
const MOST: usize = 20;
const LEAST: usize = 12;
/// How long a step is, in seconds.
const STEP: f64 = 10.0;
/// What is taken off a rise for chance, in standard deviations.
const SURE: f64 = 2.0;
/// It is never looked ahead to more than so many times the present rate.
const MOST_TIMES: f64 = 2.0;

/// The rate, a second, that is to be expected in so many seconds; none where it does not rise.
pub(crate) fn ahead(rates: &Rates, seconds: f64) -> Option<f64> {
    let line = Line::through(&rates.steps(MOST))?;
    let rise = line.slope - SURE * line.deviation;
    (rise > 0.0)
        .then(|| (line.now + rise * seconds).min(line.now * MOST_TIMES))
        .filter(|rate| rate.is_finite())
}

/// A line through steps: the rate now, its rise, and the standard deviation of that.
struct Line {
    now: f64,
    slope: f64,
    deviation: f64,
}

impl Line {
    fn through(steps: &[(f64, f64)]) -> Option<Self> {
        if steps.len() < LEAST {
            return None;
        }
        let size: f64 = steps.iter().map(|_| 1.0).sum();
        let mean = |of: fn(&(f64, f64)) -> f64| steps.iter().map(of).sum::<f64>() / size;
        let (time, rate) = (mean(|step| step.0), mean(|step| step.1));
        let spread: f64 = steps.iter().map(|step| (step.0 - time).powi(2)).sum();
        let along: f64 = steps.iter().map(|step| (step.0 - time) * (step.1 - rate)).sum();
        let slope = along / spread;
        // Requests come one by one: their count in a step varies as much as it is large.
        let deviation = (rate / STEP / spread).sqrt();
        Some(Self { now: rate - slope * time, slope, deviation })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::counters::{Flow, Piece};

    /// Five minutes in which each second brings what is said of it.
    fn rates(arrivals: impl Fn(f64) -> f64) -> Rates {
        let at = |second: u32| Duration::from_secs(u64::from(second));
        let mut rates = Rates::new(Duration::ZERO);
        for second in 0..300 {
            let flow = Flow { arrivals: arrivals(f64::from(second)), ..Flow::default() };
            rates.add(&Piece { from: at(second), to: at(second + 1), flow, is_used: false });
        }
        rates.look(at(300));
        rates
    }

    #[test]
    fn a_rise_is_looked_ahead_of() {
        let expected = ahead(&rates(|second| 10.0 + second * 0.05), 200.0).unwrap();
        assert!((32.0..=35.0).contains(&expected), "{expected}");
    }

    #[test]
    fn neither_a_steady_nor_a_falling_rate_is() {
        assert_eq!(ahead(&rates(|_| 10.0), 200.0), None);
        assert_eq!(ahead(&rates(|second| 30.0 - second * 0.05), 200.0), None);
        assert_eq!(ahead(&rates(|_| 0.0), 200.0), None);
    }

    #[test]
    fn it_never_looks_further_than_double() {
        let expected = ahead(&rates(|second| second * 0.1), 3600.0).unwrap();
        assert!((55.0..=60.1).contains(&expected), "{expected}");
    }

    #[test]
    fn what_chance_may_do_is_no_rise() {
        assert_eq!(ahead(&rates(|second| 0.1 + second * 0.0003), 200.0), None);
    }
}
