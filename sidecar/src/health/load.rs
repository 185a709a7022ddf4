//! The load index: how near this pod is to refusing for want of capacity, smoothed.
//!
//! At 1 the next request waits as long as any may, or is refused. What limits refuse is no load at all.

use std::time::Duration;

use corral_limiter::Nanos;

/// What a refusal for want of capacity says of the load, whatever the queue says: what was just refused would have
/// waited too long. Above 1, so that the mean gets to 1 within a few seconds.
const REFUSED: f64 = 1.5;
/// No sample is above this, so that a wild estimate is forgotten as soon as a full queue is.
const HIGHEST: f64 = 2.0;
/// What each sign of Ollama adds.
const SUPPORT: f64 = 0.25;

/// How the load index is made.
#[derive(Debug, Clone, Copy)]
pub struct LoadSettings {
    /// The time constant of the mean; 2 s.
    pub smooth: Duration,
    /// For how long a refusal counts as an overload; 2 s, the shortest time in which a client comes back.
    pub refusal_counts: Duration,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self { smooth: Duration::from_secs(2), refusal_counts: Duration::from_secs(2) }
    }
}

/// What is seen at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadSample {
    /// What the queue itself says: 1 at its bounds.
    pub queue: f64,
    /// The queue has refused since the sample before.
    pub refused: bool,
    /// At least 5 % of Ollama's recent answers said that it is busy: more was sent than it takes.
    pub upstream_busy: bool,
    /// Half of the recent probes took longer than 500 ms.
    pub probes_slow: bool,
}

/// The index, from sample to sample.
#[derive(Debug)]
pub struct LoadIndex {
    settings: LoadSettings,
    mean: f64,
    sampled_at: Option<Nanos>,
    refused_at: Option<Nanos>,
}

impl LoadIndex {
    /// Without load.
    pub fn new(settings: LoadSettings) -> Self {
        Self { settings, mean: 0.0, sampled_at: None, refused_at: None }
    }

    /// Takes a sample in, and tells the index.
    pub fn step(&mut self, now: Nanos, sample: LoadSample) -> f64 {
        if sample.refused {
            self.refused_at = Some(now);
        }
        let refusing = self.refused_at.is_some_and(|at| now.since(at) < self.settings.refusal_counts.into());
        let seen = sample.queue.max(if refusing { REFUSED } else { 0.0 }).min(HIGHEST);
        let passed: Duration = now.since(self.sampled_at.unwrap_or(now)).into();
        let weight = 1.0 - (-passed.as_secs_f64() / self.settings.smooth.as_secs_f64().max(0.001)).exp();
        self.mean += (seen - self.mean) * weight;
        self.sampled_at = Some(now);
        let signs = u32::from(sample.upstream_busy) + u32::from(sample.probes_slow);
        self.mean + SUPPORT * f64::from(signs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The index every half second.
    fn course(samples: impl IntoIterator<Item = LoadSample>) -> Vec<f64> {
        let mut index = LoadIndex::new(LoadSettings::default());
        let at = |step: usize| Nanos::from_millis(500 * step as u64);
        samples.into_iter().enumerate().map(|(step, sample)| index.step(at(step), sample)).collect()
    }

    fn queue(queue: f64) -> LoadSample {
        LoadSample { queue, ..LoadSample::default() }
    }

    #[test]
    fn what_lasts_counts_and_what_passes_does_not() {
        let lasting = course([queue(1.0); 21]);
        assert!(lasting[4] > 0.6 && lasting[4] < 0.7, "after 2 s: {}", lasting[4]);
        assert!(lasting[20] > 0.98 && lasting[20] < 1.0, "after 10 s: {}", lasting[20]);
        let flicker = (0..100).map(|step| queue(f64::from(step % 2)));
        assert!(course(flicker).iter().all(|index| *index < 0.7));
    }

    #[test]
    fn refusals_are_load_for_a_moment_also_where_the_queue_tells_nothing() {
        let refused = LoadSample { refused: true, ..LoadSample::default() };
        let always = course([refused; 12]);
        assert!(always[5] > 1.0, "after 2.5 s: {}", always[5]);
        let once = course([[LoadSample::default(); 1].as_slice(), &[refused], &[queue(0.0); 30]].concat());
        assert!(once.iter().all(|index| *index < 1.0), "one burst is no overload: {once:?}");
        assert!(*once.last().unwrap() < 0.01);
    }

    #[test]
    fn a_wild_estimate_is_forgotten_as_soon_as_a_full_queue() {
        let wild = course([[queue(1000.0); 40].as_slice(), &[queue(0.0); 8]].concat());
        assert!(wild[39] <= HIGHEST && wild[46] < 0.5, "{wild:?}");
    }

    #[test]
    fn signs_of_ollama_weigh_a_quarter_each_and_are_no_overload_alone() {
        let both = LoadSample { upstream_busy: true, probes_slow: true, ..LoadSample::default() };
        assert_eq!(course([both; 3]), [0.5; 3]);
        assert_eq!(course([LoadSample { probes_slow: false, ..both }; 3]), [0.25; 3]);
    }
}
