//! A request explained by policy files, with nothing used yet and Ollama up.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use corral_limiter::{CompileErrors, LimiterSettings, compile};

use super::{Ask, Explained, explain};
use crate::api_keys;
use crate::config::SlotSettings;
use crate::core::{Core, CoreSettings};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::plan::files::{FileError, PolicyFiles};

/// Why a request is not explained.
#[derive(Debug, thiserror::Error)]
pub enum LaptopError {
    /// The policy files are wrong.
    #[error(transparent)]
    Policies(#[from] FileError),
    /// Their plan is.
    #[error(transparent)]
    Plan(#[from] CompileErrors),
    /// There is no randomness to key hashes with.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The request is.
    #[error("{0}")]
    Request(String),
}

/// Explains a request by the plan of these files.
pub fn on_a_laptop(policies: Vec<PathBuf>, ask: &Ask) -> Result<Explained, LaptopError> {
    let slots = SlotSettings { per_model: None, loaded_models: NonZeroU32::MIN };
    let digester = api_keys::random()?;
    let (_, standalone) = PolicyFiles::open(policies, slots, digester.clone())?;
    let mut hash_key = [0; 16];
    getrandom::fill(&mut hash_key)?;
    let settings = CoreSettings {
        limiter: LimiterSettings { hash_key, keys_per_limit: 1 },
        slots: slots.bounds(standalone.slots_per_model),
    };
    let core = Core::new(settings, Arc::new(Health::new()), Arc::new(Metrics::new()));
    core.take_plan(Arc::new(compile(&standalone.doc)?), NonZeroU32::MIN);
    core.digesters.replace([digester]);
    core.health.plan_accepted();
    core.health.told_to_serve();
    core.health.upstream_answered();
    explain(&core, ask).map_err(LaptopError::Request)
}
