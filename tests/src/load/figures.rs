//! What is said of many times: the middle and the tail.

use std::time::Duration;

/// Times in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    sorted: Vec<Duration>,
}

impl FromIterator<Duration> for Spread {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut sorted: Vec<Duration> = times.into_iter().collect();
        sorted.sort_unstable();
        Self { sorted }
    }
}

impl Spread {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The least time that is no less than so many in a thousand of all; zero of none.
    pub fn at(&self, permille: usize) -> Duration {
        let place = (self.sorted.len() * permille).div_ceil(1000).saturating_sub(1);
        self.sorted.get(place).copied().unwrap_or_default()
    }

    /// The middle.
    pub fn p50(&self) -> Duration {
        self.at(500)
    }

    /// 99 of 100 are no longer.
    pub fn p99(&self) -> Duration {
        self.at(990)
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        self.at(1000)
    }
}

/// Milliseconds with two decimals: `0.31 ms`.
pub fn in_millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let spread: Spread = (1..=200).rev().map(Duration::from_millis).collect();
        let millis = |time: Duration| time.as_millis();
        assert_eq!((millis(spread.p50()), millis(spread.p99()), millis(spread.longest())), (100, 198, 200));
        assert_eq!(Spread::default().p99(), Duration::ZERO);
    }
}
