//! From a valid pool to the objects that make it true. Pure: no client, no clock, no environment.
//!
//! Each part of the pod has a file; [`pod`] puts them together, [`mod@template`] merges the user's `podTemplate` over them
//! and refuses what would open a way around the limits.

pub mod activator;
pub mod deployment;
pub mod disruption;
pub mod ollama;
pub mod pod;
pub mod secrets;
pub mod service;
pub mod sidecar;
pub mod template;
mod values;

use serde_json::Value;

use super::revision::inputs::RevisionId;
use super::validate::ValidPool;
use template::TemplateInvalid;

/// What builders need beside the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The sidecar's image where a pool names none: the one of the operator's release.
    pub sidecar_image: String,
}

/// The objects of a pool, built and seen by nobody yet. The Secrets are apart: they are written before the pods that
/// mount them, and live on whatever becomes of the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Where clients reach the pool.
    pub service: Value,
    /// Its pods.
    pub deployment: Value,
    /// How many of them node drains may take.
    pub budget: Value,
}

/// Why the objects of a pool cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The `podTemplate` is refused.
    #[error(transparent)]
    Template(#[from] TemplateInvalid),
    /// An object could not be written as JSON.
    #[error("an object could not be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// How many pods there are to be, and how many there cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodCounts {
    /// How many are asked for, those that still finish what they have with them.
    pub replicas: i32,
    /// How many no node has room for: they must hold up neither a rollout nor a drain.
    pub unschedulable: u32,
}

/// The pod template, as this operator renders it.
pub fn template(pool: &ValidPool, defaults: &Defaults) -> Result<Value, BuildError> {
    Ok(template::merged(pool, &pod::template(pool, defaults))?)
}

/// Builds the rest of it around the pod template of the revision `id`.
pub fn build(
    pool: &ValidPool,
    id: &RevisionId,
    template: Value,
    counts: PodCounts,
) -> Result<Prepared, BuildError> {
    let service = serde_json::to_value(service::service(pool))?;
    let deployment = deployment::deployment(pool, id, template, counts)?;
    let budget = serde_json::to_value(disruption::budget(pool, counts))?;
    Ok(Prepared { service, deployment, budget })
}
