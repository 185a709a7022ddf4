//! How long a request of a model holds its slot, learned from those that did.
//!
//! One that had to load its model holds its slot for much longer than those after it, so the longest of the last few
//! does not count: what is told is their mean without it.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::{ModelName, Nanos};

/// How many models are remembered: clients can name any number of them.
const MOST_MODELS: usize = 256;
/// How many samples of a model are kept.
const SAMPLES: usize = 8;

/// Service times, of the models that were last seen.
#[derive(Debug, Default)]
pub(super) struct ServiceTimes {
    models: HashMap<ModelName, Learned>,
    samples: u64,
}

#[derive(Debug, Default)]
struct Learned {
    /// Oldest first.
    times: VecDeque<Nanos>,
    /// The number of the latest sample.
    latest: u64,
}

impl ServiceTimes {
    /// The mean of the last few but the longest of them; of a single one, itself. None before the first.
    pub(super) fn mean(&self, model: &ModelName) -> Option<Nanos> {
        let times = &self.models.get(model)?.times;
        let longest = times.iter().max()?;
        let all = times.iter().fold(0, |sum: u64, time| sum.saturating_add(time.0));
        let others = all.saturating_sub(longest.0).checked_div((times.len() as u64).saturating_sub(1));
        Some(others.map_or(*longest, Nanos))
    }

    pub(super) fn learn(&mut self, model: &ModelName, took: Nanos) {
        if !self.models.contains_key(model) && self.models.len() >= MOST_MODELS {
            self.forget_oldest();
        }
        self.samples = self.samples.saturating_add(1);
        let learned = self.models.entry(model.clone()).or_default();
        learned.latest = self.samples;
        if learned.times.len() == SAMPLES {
            learned.times.pop_front();
        }
        learned.times.push_back(took);
    }

    fn forget_oldest(&mut self) {
        let oldest = self.models.iter().min_by_key(|(_, learned)| learned.latest);
        if let Some(model) = oldest.map(|(model, _)| model.clone()) {
            self.models.remove(&model);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    fn mean(seconds: &[u64]) -> Option<Nanos> {
        let mut times = ServiceTimes::default();
        for seconds in seconds {
            times.learn(&model("m"), Nanos::from_secs(*seconds));
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
        let slower = [[1; 8], [9; 8]].concat();
        assert_eq!(mean(&slower), Some(Nanos::from_secs(9)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut times = ServiceTimes::default();
        for n in 0..1000 {
            times.learn(&model(&format!("m{n}")), Nanos::from_secs(1));
        }
        assert_eq!(times.models.len(), MOST_MODELS);
        assert!(times.mean(&model("m0")).is_none() && times.mean(&model("m999")).is_some());
    }
}
