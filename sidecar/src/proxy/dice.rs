//! Randomness that need not be secret: request ids, jitter, ages. One counter, mixed; no system call per use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The step of `SplitMix64`.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A source of numbers that do not repeat between processes.
#[derive(Debug)]
pub(crate) struct Dice {
    state: AtomicU64,
}

impl Dice {
    /// Seeded by the system; without its help by nothing, which only makes ids guessable.
    pub(crate) fn new() -> Self {
        let mut seed = [0; 8];
        let _ = getrandom::fill(&mut seed);
        Self { state: AtomicU64::new(u64::from_ne_bytes(seed)) }
    }

    /// Any number.
    pub(crate) fn number(&self) -> u64 {
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From zero up to `most`, each alike.
    pub(crate) fn up_to(&self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.number() % nanos.saturating_add(1).max(1))
    }

    /// `length` and up to a fifth more or less.
    pub(crate) fn about(&self, length: Duration) -> Duration {
        length / 5 * 4 + self.up_to(length / 5 * 2)
    }

    /// A request id: 16 hex digits.
    pub(crate) fn request_id(&self) -> String {
        format!("{:016x}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_bounds_and_is_not_constant() {
        let dice = Dice::new();
        let ages: Vec<Duration> = (0..1000).map(|_| dice.about(Duration::from_mins(1))).collect();
        assert!(ages.iter().all(|age| (48..=72).contains(&age.as_secs())));
        assert!(ages.iter().any(|age| age.as_secs() < 54) && ages.iter().any(|age| age.as_secs() > 66));
        assert_eq!(dice.up_to(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn request_ids_differ() {
        let dice = Dice::new();
        assert_ne!(dice.request_id(), dice.request_id());
    }
}
