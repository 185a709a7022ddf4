//! How long requests of a model hold their slots, and how good estimates of their cost are, learned from those that did.
//!
//! One that had to load its model holds its slot for much longer than those after it, so the longest of the last few
//! does not count. What waits is known by estimated costs; what they come to in time is the ratio that these few had, so
//! that a prediction does not hang on what costs are told in, nor on whether all are estimated too high.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::{ModelName, Nanos};

/// How many models are remembered: clients can name any number of them.
const MOST_MODELS: usize = 256;
/// How many samples of a model are kept.
const SAMPLES: usize = 16;

/// Service times, of the models that were last seen.
#[derive(Debug, Clone, Default)]
pub(super) struct ServiceTimes {
    models: HashMap<ModelName, Learned>,
    samples: u64,
    /// Over all models, smoothed.
    mean: Option<Nanos>,
}

#[derive(Debug, Clone, Default)]
struct Learned {
    /// Oldest first.
    samples: VecDeque<Sample>,
    /// The number of the latest sample.
    latest: u64,
}

/// One request that is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// How long it held its slot.
    pub(super) took: Nanos,
    /// What it had been estimated to cost.
    pub(super) estimate: u64,
}

impl ServiceTimes {
    /// The mean of the last few but the longest of them; of a single one, itself. None before the first.
    pub(super) fn mean(&self, model: &ModelName) -> Option<Nanos> {
        let (took, _, count) = self.models.get(model)?.sums()?;
        u64::try_from(took.checked_div(count)?).ok().map(Nanos)
    }

    /// Over all models; zero before the first.
    pub(super) fn overall(&self) -> Nanos {
        self.mean.unwrap_or(Nanos::ZERO)
    }

    /// How long a slot is held for what is estimated to cost so much; none before the first sample.
    pub(super) fn time_of(&self, model: &ModelName, cost: u64) -> Option<Nanos> {
        let (took, estimates, _) = self.models.get(model)?.sums()?;
        let time = u128::from(cost).saturating_mul(took).checked_div(estimates)?;
        Some(Nanos(u64::try_from(time).unwrap_or(u64::MAX)))
    }

    /// What is estimated to cost as much as holding a slot for so long; nothing before the first sample.
    pub(super) fn cost_of(&self, model: &ModelName, time: Nanos) -> u64 {
        let Some((took, estimates, _)) = self.models.get(model).and_then(Learned::sums) else { return 0 };
        let cost = u128::from(time.0).saturating_mul(estimates).checked_div(took.max(1)).unwrap_or_default();
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    pub(super) fn learn(&mut self, model: &ModelName, sample: Sample) {
        if !self.models.contains_key(model) && self.models.len() >= MOST_MODELS {
            self.forget_oldest();
        }
        self.samples = self.samples.saturating_add(1);
        let learned = self.models.entry(model.clone()).or_default();
        learned.latest = self.samples;
        if learned.samples.len() == SAMPLES {
            learned.samples.pop_front();
        }
        learned.samples.push_back(sample);
        let before = self.mean.unwrap_or(sample.took);
        let moved = before.0.saturating_mul(7).saturating_add(sample.took.0).checked_div(8);
        self.mean = moved.map(Nanos);
    }

    fn forget_oldest(&mut self) {
        let oldest = self.models.iter().min_by_key(|(_, learned)| learned.latest);
        if let Some(model) = oldest.map(|(model, _)| model.clone()) {
            self.models.remove(&model);
        }
    }
}

impl Learned {
    /// Of the samples but the longest: times, estimates, and how many there are.
    fn sums(&self) -> Option<(u128, u128, u128)> {
        let longest = self.samples.iter().enumerate().max_by_key(|(_, sample)| sample.took)?;
        let alone = self.samples.len() == 1;
        let kept = self.samples.iter().enumerate().filter(|(place, _)| alone || *place != longest.0);
        Some(kept.fold((0, 0, 0), |(took, estimates, count): (u128, u128, u128), (_, sample)| {
            (
                took.saturating_add(sample.took.0.into()),
                estimates.saturating_add(sample.estimate.into()),
                count.saturating_add(1),
            )
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    fn sample(seconds: u64, estimate: u64) -> Sample {
        Sample { took: Nanos::from_secs(seconds), estimate }
    }

    fn mean(seconds: &[u64]) -> Option<Nanos> {
        let mut times = ServiceTimes::default();
        for seconds in seconds {
            times.learn(&model("m"), sample(*seconds, 1));
        }
        times.mean(&model("m"))
    }

    #[test]
    fn the_time_of_a_load_counts_only_while_nothing_else_is_known() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[60]), Some(Nanos::from_secs(60)));
        assert_eq!(mean(&[60, 2]), Some(Nanos::from_secs(2)));
        assert_eq!(mean(&[2, 2, 3, 90, 1]), Some(Nanos::from_secs(2)));
    }

    #[test]
    fn a_change_of_pace_is_followed_after_a_few_requests() {
        assert_eq!(mean(&[1; 50]), Some(Nanos::from_secs(1)));
        let slower = [[1; 16], [9; 16]].concat();
        assert_eq!(mean(&slower), Some(Nanos::from_secs(9)));
    }

    #[test]
    fn what_estimates_come_to_in_time_is_learned_whatever_they_are_told_in() {
        let mut times = ServiceTimes::default();
        assert_eq!(times.time_of(&model("m"), 5), None);
        for _ in 0..4 {
            times.learn(&model("m"), sample(2, 100));
        }
        assert_eq!(times.time_of(&model("m"), 50), Some(Nanos::from_secs(1)));
        assert_eq!(times.time_of(&model("m"), u64::MAX), Some(Nanos(u64::MAX)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut times = ServiceTimes::default();
        for n in 0..1000 {
            times.learn(&model(&format!("m{n}")), sample(1, 1));
        }
        assert_eq!(times.models.len(), MOST_MODELS);
        assert!(times.mean(&model("m0")).is_none() && times.mean(&model("m999")).is_some());
    }
}
