//! The plan: every policy that selects a pool, merged, in the form that crosses the wire.
//!
//! A plan is refused whole when it holds a field this version does not know: a limit that is silently ignored is a
//! limit that fails open. Everything here is data; `corral-limiter` compiles it and says what is wrong with it.

mod identity;
mod limit;
mod queue;
mod tokens;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::{
    identity::{ApiKeyDoc, ExemptDoc, IdentityDoc, TierDoc, Unauthenticated},
    limit::{
        Action, AdaptiveDoc, Algorithm, BadKeyPart, EndpointClass, ExceedDoc, HeaderDoc, KeyPart, LimitDoc,
        Mode, Oversize, PathDoc, RateDoc, ResetDoc, Scope,
    },
    queue::{CostModel, EndpointPriorityDoc, PriorityDoc, QueueDoc},
    tokens::TokensDoc,
};

/// The newest plan version this build writes and reads. A plan Secret has one key a version, `plan.v<N>.json`.
pub const PLAN_VERSION: u32 = 1;

/// One pool's plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanDoc {
    /// [`PLAN_VERSION`] of the writer.
    pub version: u32,
    /// The pool it is for.
    pub pool: PoolRef,
    /// Raised by one with each change of the content; the highest wins. A standalone sidecar counts its reloads.
    pub sequence: u64,
    /// Whom a request is charged to.
    pub identity: IdentityDoc,
    /// The queue in front of Ollama.
    pub queue: QueueDoc,
    /// How tokens are counted.
    #[serde(default, skip_serializing_if = "TokensDoc::is_default")]
    pub tokens: TokensDoc,
    /// The tiers of its clients, each name once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<TierDoc>,
    /// The tier of whoever has no other; none: such clients are in no tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_tier: Option<String>,
    /// The priorities of classes of endpoints, each class once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoint_priorities: Vec<EndpointPriorityDoc>,
    /// Whom limits do not apply to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exempt: Vec<ExemptDoc>,
    /// All limits that apply, in any order: order never changes a decision.
    pub limits: Vec<LimitDoc>,
}

impl PlanDoc {
    /// SHA-256, in lower-case hex, of what the plan says; its sequence is left out, so that a digest tells whether
    /// two plans differ in content.
    pub fn digest(&self) -> String {
        let content = Self { sequence: 0, ..self.clone() };
        hex::encode(Sha256::digest(serde_json::to_vec(&content).unwrap_or_default()))
    }
}

/// Names a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolRef {
    /// The pool's namespace; `standalone` on a laptop.
    pub namespace: String,
    /// The pool's name.
    pub name: String,
}
