//! When requests come, and how long they take.

use std::f64::consts::TAU;
use std::time::Duration;

use crate::agenda::Time;
use crate::random::Random;

/// How many requests a second, and when.
#[derive(Debug, Clone)]
pub(crate) enum Load {
    /// From each of these moments on so many; before the first none.
    Pieces(Vec<(Time, f64)>),
    /// Around a mean, this far to both sides, with such a period.
    Sine { mean: f64, swing: f64, period: Duration },
}

impl Load {
    pub(crate) fn steady(rate: f64) -> Self {
        Self::Pieces(vec![(Time::ZERO, rate)])
    }

    /// `low`, but `high` between two moments.
    pub(crate) fn step(low: f64, high: f64, [from, to]: [u64; 2]) -> Self {
        let at = Time::from_secs;
        Self::Pieces(vec![(Time::ZERO, low), (at(from), high), (at(to), low)])
    }

    /// Requests a second at that moment.
    pub(crate) fn rate(&self, now: Time) -> f64 {
        match self {
            Self::Pieces(pieces) => {
                pieces.iter().take_while(|(from, _)| *from <= now).last().map_or(0.0, |(_, rate)| *rate)
            }
            Self::Sine { mean, swing, period } => {
                mean + swing * (TAU * now.as_secs_f64() / period.as_secs_f64()).sin()
            }
        }
    }

    fn most(&self) -> f64 {
        match self {
            Self::Pieces(pieces) => pieces.iter().map(|(_, rate)| *rate).fold(0.0, f64::max),
            Self::Sine { mean, swing, .. } => mean + swing,
        }
    }

    /// When the next one comes: independently of each other, thinned to the rate of the moment (Lewis and Shedler, 1979).
    pub(crate) fn next(&self, now: Time, end: Time, random: &mut Random) -> Option<Time> {
        let most = self.most();
        let mut at = now;
        while most > 0.0 && at <= end {
            at += Duration::from_secs_f64(random.exponential(1.0 / most));
            if random.unit() * most < self.rate(at) {
                return Some(at);
            }
        }
        None
    }
}

/// How long a request holds a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Service {
    /// Seconds on average.
    Exponential(f64),
    /// Any number of seconds between these, alike.
    Uniform(f64, f64),
}

impl Service {
    /// Seconds.
    pub(crate) fn mean(self) -> f64 {
        match self {
            Self::Exponential(mean) => mean,
            Self::Uniform(least, most) => f64::midpoint(least, most),
        }
    }

    pub(crate) fn draw(self, random: &mut Random) -> Duration {
        let seconds = match self {
            Self::Exponential(mean) => random.exponential(mean),
            Self::Uniform(least, most) => least + (most - least) * random.unit(),
        };
        Duration::from_secs_f64(seconds)
    }
}

#[test]
fn as_many_come_as_the_rate_says() {
    let loads = [
        Load::step(1.0, 5.0, [1000, 2000]),
        Load::Sine { mean: 3.0, swing: 2.0, period: Duration::from_secs(1000) },
    ];
    for load in loads {
        let (mut random, mut at, mut came) = (Random::new(1, 0), Time::ZERO, 0.0);
        let end = Time::from_secs(4000);
        while let Some(next) = load.next(at, end, &mut random).filter(|next| *next <= end) {
            (at, came) = (next, came + 1.0);
        }
        let expected: f64 = (0..4000).map(|second| load.rate(Time::from_secs(second))).sum();
        assert!((came / expected - 1.0_f64).abs() < 0.05, "{came} came, {expected} were expected");
    }
}
