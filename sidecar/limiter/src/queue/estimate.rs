//! How long a request of a model holds its slot, learned from those that did.

use hashbrown::HashMap;

use crate::{ModelName, Nanos};

/// How many models are remembered: clients can name any number of them.
const MOST_MODELS: usize = 256;
/// The weight of one sample against what was known, as a divisor.
const WEIGHT: u64 = 8;

/// Mean service times, the most recently learned of them.
#[derive(Debug, Default)]
pub(super) struct ServiceTimes {
    means: HashMap<ModelName, Learned>,
    samples: u64,
}

#[derive(Debug)]
struct Learned {
    mean: Nanos,
    /// The number of the latest sample.
    latest: u64,
}

impl ServiceTimes {
    /// The mean, weighted towards what was last seen; none before the first sample.
    pub(super) fn mean(&self, model: &ModelName) -> Option<Nanos> {
        self.means.get(model).map(|learned| learned.mean)
    }

    pub(super) fn learn(&mut self, model: &ModelName, took: Nanos) {
        self.samples = self.samples.saturating_add(1);
        let latest = self.samples;
        if let Some(learned) = self.means.get_mut(model) {
            let kept = learned.mean.0.saturating_sub(learned.mean.0 / WEIGHT);
            *learned = Learned { mean: Nanos(kept.saturating_add(took.0 / WEIGHT)), latest };
            return;
        }
        if self.means.len() >= MOST_MODELS {
            self.forget_oldest();
        }
        self.means.insert(model.clone(), Learned { mean: took, latest });
    }

    fn forget_oldest(&mut self) {
        let oldest = self.means.iter().min_by_key(|(_, learned)| learned.latest);
        if let Some(model) = oldest.map(|(model, _)| model.clone()) {
            self.means.remove(&model);
        }
    }
}
