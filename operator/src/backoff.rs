//! How long to wait after a failure: per object, doubling, jittered, forgotten on success.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::jittered;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(5);

/// Counts the failures in a row of each object.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: Mutex<HashMap<K, u32>>,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self { failures: Mutex::default() }
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Notes a failure; how long to wait now.
    pub fn failed(&self, key: K) -> Duration {
        let mut failures = self.failures.lock();
        let count = failures.entry(key).or_default();
        let wait = FIRST.saturating_mul(2_u32.saturating_pow((*count).min(16))).min(LONGEST);
        *count = count.saturating_add(1);
        jittered(wait, 20)
    }

    /// Notes a success.
    pub fn succeeded(&self, key: &K) {
        self.failures.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_start_over_after_a_success() {
        let backoff = Backoff::default();
        let waits: Vec<u64> = (0..12).map(|_| backoff.failed("a").as_secs()).collect();
        assert!(waits[0] <= 1 && (6..=9).contains(&waits[3]), "{waits:?}");
        assert!((240..=360).contains(&waits[11]), "{waits:?}");
        assert!(backoff.failed("b").as_secs() <= 1, "another object has failures of its own");
        backoff.succeeded(&"a");
        assert!(backoff.failed("a").as_secs() <= 1);
    }
}
