//! Which models Ollama has lately answered for, and so has loaded.

use std::time::Duration;

use corral_limiter::ModelName;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The most models remembered: more than fit into any pod at one time.
const MAX_MODELS: usize = 64;
/// How long an answer proves anything: a little less than Ollama's default `keep_alive`.
const FRESH: Duration = Duration::from_mins(4);

/// The models that answered, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    models: Mutex<Vec<(ModelName, Instant)>>,
}

impl Loaded {
    /// A model has answered.
    pub(crate) fn answered(&self, model: &ModelName) {
        let mut models = self.models.lock();
        models.retain(|(other, _)| other != model);
        if models.len() == MAX_MODELS {
            models.remove(0);
        }
        models.push((model.clone(), Instant::now()));
    }

    /// Whether a model is loaded, as far as is known.
    pub(crate) fn contains(&self, model: &ModelName) -> bool {
        let fresh = |since: Instant| Instant::now().saturating_duration_since(since) < FRESH;
        self.models.lock().iter().any(|(other, since)| other == model && fresh(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_model_is_taken_for_loaded_for_a_while_after_it_answered() {
        let loaded = Loaded::default();
        let model = |name: &str| ModelName::parse(name).unwrap();
        loaded.answered(&model("tiny"));
        assert!(loaded.contains(&model("Tiny:latest")) && !loaded.contains(&model("other")));
        tokio::time::advance(FRESH).await;
        assert!(!loaded.contains(&model("tiny")));
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let loaded = Loaded::default();
        for n in 0..1000 {
            loaded.answered(&ModelName::parse(&format!("m{n}")).unwrap());
        }
        assert_eq!(loaded.models.lock().len(), MAX_MODELS);
    }
}
