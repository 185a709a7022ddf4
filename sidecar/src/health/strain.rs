//! Two signs that Ollama itself has too much to do, whatever waits in front of it: it says so, or it is slow to say
//! anything.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use corral_limiter::Nanos;

/// A probe that takes longer is slow.
const SLOW: Duration = Duration::from_millis(500);
/// Of so many probes more than half must be slow.
const PROBES: u32 = 5;
/// So large a share of answers that say "busy" is a sign.
const BUSY: f64 = 0.05;
/// The time constant by which answers are forgotten.
const FORGET: Duration = Duration::from_secs(10);

/// The last probes, one bit each, set if it was slow.
#[derive(Debug, Default)]
pub struct Probes(AtomicU8);

impl Probes {
    /// One more took this long, or failed after it. There is only one who probes.
    pub fn took(&self, time: Duration) {
        let before = self.0.load(Ordering::Relaxed);
        let kept = (1_u8 << PROBES) - 1;
        self.0.store((before << 1 | u8::from(time > SLOW)) & kept, Ordering::Relaxed);
    }

    /// Whether more than half of the last ones were slow.
    pub fn are_slow(&self) -> bool {
        self.0.load(Ordering::Relaxed).count_ones() * 2 > PROBES
    }
}

/// What share of Ollama's recent answers said that it is busy.
#[derive(Debug, Default)]
pub struct Answers {
    seen_at: Option<Nanos>,
    /// Totals, as last told.
    busy_total: u64,
    whole_total: u64,
    /// What of them is not forgotten.
    busy: f64,
    whole: f64,
}

impl Answers {
    /// Takes in how many there have ever been, and tells whether enough of the recent ones said "busy".
    pub fn are_busy(&mut self, now: Nanos, busy_total: u64, whole_total: u64) -> bool {
        let passed: Duration = now.since(self.seen_at.unwrap_or(now)).into();
        let kept = (-passed.as_secs_f64() / FORGET.as_secs_f64()).exp();
        let fresh = |total: u64, before: &mut u64| {
            let more = total.saturating_sub(std::mem::replace(before, total));
            f64::from(u32::try_from(more).unwrap_or(u32::MAX))
        };
        self.busy = self.busy * kept + fresh(busy_total, &mut self.busy_total);
        self.whole = self.whole * kept + fresh(whole_total, &mut self.whole_total);
        self.seen_at = Some(now);
        // One answer of long ago is none.
        self.busy >= 0.5 && self.busy >= BUSY * (self.busy + self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_of_the_last_five_probes_make_slow() {
        let probes = Probes::default();
        let told: Vec<bool> = [600, 600, 100, 600, 100, 100, 100, 100]
            .into_iter()
            .map(|millis| {
                probes.took(Duration::from_millis(millis));
                probes.are_slow()
            })
            .collect();
        assert_eq!(told, [false, false, false, true, true, false, false, false]);
    }

    #[test]
    fn one_busy_answer_in_twenty_is_a_sign_until_it_is_forgotten() {
        let at = Nanos::from_secs;
        let mut answers = Answers::default();
        assert!(!answers.are_busy(at(0), 0, 100), "none said so");
        assert!(!answers.are_busy(at(1), 1, 120), "one of over a hundred");
        assert!(answers.are_busy(at(2), 10, 121));
        assert!(!answers.are_busy(at(60), 10, 121), "long ago");
        assert!(answers.are_busy(at(61), 11, 121), "the only one there is");
    }
}
