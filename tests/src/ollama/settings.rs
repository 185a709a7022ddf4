//! What a scripted Ollama is started with.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

/// Architectures that have one slot whatever `OLLAMA_NUM_PARALLEL` says (`Scheduler.load` in `server/sched.go`, the same
/// from v0.24.0 to v0.33.0-rc2).
pub(crate) const ONE_SLOT: [&str; 11] = [
    "mllama",
    "qwen3vl",
    "qwen3vlmoe",
    "qwen35",
    "qwen35moe",
    "qwen3next",
    "lfm2",
    "lfm2moe",
    "nemotron_h",
    "nemotron_h_moe",
    "nemotron_h_omni",
];

/// One model in its store.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Normal form, `registry.ollama.ai/library/tiny:latest`.
    pub(crate) name: String,
    /// The spelling by which the legacy embeddings endpoint, which minds case, knows it.
    pub(crate) written: String,
    pub(crate) embeds: bool,
    /// Its architecture, `details.family`.
    pub(crate) family: &'static str,
    pub(crate) stops_after_z: bool,
    pub(crate) load_error: Option<String>,
}

impl ModelSpec {
    /// A model that answers every prompt with the alphabet over and over, until it is told to stop.
    pub fn endless(name: &str) -> Self {
        let name = name.to_owned();
        let normal = format!("registry.ollama.ai/library/{}:latest", name.to_ascii_lowercase());
        Self {
            name: normal,
            written: name,
            embeds: false,
            family: "llama",
            stops_after_z: false,
            load_error: None,
        }
    }

    /// A model that says the alphabet once and stops: 27 tokens.
    pub fn alphabet(name: &str) -> Self {
        Self { stops_after_z: true, ..Self::endless(name) }
    }

    /// A model that only embeds.
    pub fn embedding(name: &str) -> Self {
        Self { embeds: true, family: "bert", ..Self::endless(name) }
    }

    /// The same model of another architecture, as `qwen3vl`.
    #[must_use]
    pub fn family(self, family: &'static str) -> Self {
        Self { family, ..self }
    }

    /// How many slots its runner has where `OLLAMA_NUM_PARALLEL` says so many: models that cannot complete have one,
    /// and so have some architectures.
    pub(crate) fn slots(&self, num_parallel: usize) -> usize {
        if self.embeds || ONE_SLOT.contains(&self.family) { 1 } else { num_parallel.max(1) }
    }

    /// A model whose load fails with this text.
    pub fn broken(name: &str, error: &str) -> Self {
        Self { load_error: Some(error.to_owned()), ..Self::endless(name) }
    }
}

/// How fast things go; it can be changed while the server runs.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From a request's arrival until it holds a runner, with the model loaded. A client that leaves in it leaks.
    pub schedule: Duration,
    /// For a model to load.
    pub load: Duration,
    /// Reading the prompt: from the slot to the first token.
    pub prompt: Duration,
    /// Each token.
    pub token: Duration,
}

impl Default for Pace {
    /// Scheduling takes a millisecond, the rest no time.
    fn default() -> Self {
        Self {
            schedule: Duration::from_millis(1),
            load: Duration::ZERO,
            prompt: Duration::ZERO,
            token: Duration::ZERO,
        }
    }
}

/// What a scripted Ollama is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `OLLAMA_NUM_PARALLEL`: slots a loaded model. At least 1; embedding models, and those of some architectures, have 1
    /// whatever it says.
    pub num_parallel: usize,
    /// `OLLAMA_MAX_QUEUE`: how many wait for a load before the next gets 503. At least 1.
    pub max_queue: usize,
    /// `OLLAMA_MAX_LOADED_MODELS`, or as many as the memory holds. 0: any number.
    pub max_loaded: usize,
    /// `OLLAMA_CONTEXT_LENGTH`, in tokens.
    pub context_length: i64,
    /// Its models.
    pub models: Vec<ModelSpec>,
    /// Its speed.
    pub pace: Pace,
}

impl Default for Settings {
    /// One slot, a queue of two, room for any number of models, 2048 tokens of context; models `tiny` and `slow` (endless), `tinyz` (27 tokens) and
    /// `tinybert` (embeds): the server that the recorded exchanges come from.
    fn default() -> Self {
        Self {
            num_parallel: 1,
            max_queue: 2,
            max_loaded: 0,
            context_length: 2048,
            models: vec![
                ModelSpec::endless("tiny"),
                ModelSpec::endless("slow"),
                ModelSpec::alphabet("tinyz"),
                ModelSpec::embedding("tinybert"),
            ],
            pace: Pace::default(),
        }
    }
}

/// Lets generation go on one step at a time: a test that opens it once and sees one token knows that nothing held
/// the token back.
#[derive(Debug, Clone)]
pub struct Gate {
    steps: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn shut() -> Self {
        Self { steps: Arc::new(Semaphore::new(0)) }
    }

    /// Lets one token, or one end, through.
    pub fn step(&self) {
        self.steps.add_permits(1);
    }

    pub(crate) async fn pass(&self) {
        if let Ok(step) = self.steps.acquire().await {
            step.forget();
        }
    }
}

/// Whether the runners have stopped, behind a server that answers.
#[derive(Debug, Clone)]
pub(crate) struct Wedge(Arc<watch::Sender<bool>>);

impl Default for Wedge {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Wedge {
    pub(crate) fn set(&self, stopped: bool) {
        self.0.send_replace(stopped);
    }

    /// Waits until the runners work.
    pub(crate) async fn passed(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.0.subscribe().wait_for(|stopped| !stopped).await;
    }
}
