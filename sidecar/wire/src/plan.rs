//! The plan: every policy that selects a pool, merged, in the form that crosses the wire.
//!
//! A plan is refused whole when it holds a field this version does not know: a limit that is silently ignored is a
//! limit that fails open. Everything here is data; `corral-limiter` compiles it and says what is wrong with it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The newest plan version this build writes and reads. A plan Secret has one key a version, `plan.v<N>.json`.
pub const PLAN_VERSION: u32 = 1;

/// One pool's plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The bounds of the queue in front of Ollama.
    pub queue: QueueDoc,
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolRef {
    /// The pool's namespace; `standalone` on a laptop.
    pub namespace: String,
    /// The pool's name.
    pub name: String,
}

/// How the client behind a connection is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentityDoc {
    /// CIDRs of proxies whose `X-Forwarded-For` is believed, counted from the right. Empty: the TCP peer is the client.
    pub trusted_proxies: Vec<String>,
}

/// The bounds of the queue in front of Ollama. It is per pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueueDoc {
    /// The most requests that wait, all models together. 0: none waits, a busy pod refuses at once.
    pub max_depth: u32,
    /// The longest that one waits, in milliseconds; at least 1.
    pub max_wait_ms: u64,
}

/// One named limit of one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitDoc {
    /// `namespace/name` of the policy. With [`Self::name`] it is the limit's identity, by which counters live on.
    pub policy: String,
    /// The limit's name in its policy.
    pub name: String,
    /// Whether it refuses, or only counts what it would refuse.
    pub mode: Mode,
    /// The endpoint classes it covers. Empty: every inference class, but not metadata.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointClass>,
    /// The models it covers, in normal form. Empty: every model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// What a bucket is kept for: one per distinct combination of these.
    pub per: Vec<KeyPart>,
    /// Whether the numbers hold for the pool or for each pod.
    pub scope: Scope,
    /// Requests over time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RateDoc>,
    /// Requests at one time: waiting and running, from admission until the slot is released. At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

/// A rate with its burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateDoc {
    /// How many are let through in a window, in thousandths (`1.5/s` is 1500); at least 1.
    pub count_milli: u64,
    /// The window, in seconds; 1 to 31 days.
    pub window_seconds: u64,
    /// How many may come at one instant; at least 1.
    pub burst: u64,
}

/// Whether a limit refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// It refuses what exceeds it.
    #[default]
    Enforce,
    /// It counts what it would refuse, and changes nothing that a client can see.
    Shadow,
}

/// What an endpoint is for, whichever API family it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EndpointClass {
    /// `/api/chat`, `/v1/chat/completions`, `/v1/messages`, `/v1/responses`.
    Chat,
    /// `/api/generate`, `/v1/completions`.
    Generate,
    /// `/api/embed`, `/api/embeddings`, `/v1/embeddings`.
    Embed,
    /// Tags, ps, show, version, the model list, `/` and `/corral/v1/limits`: takes no slot.
    Metadata,
}

/// One part of what a bucket is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyPart {
    /// Who is charged: the API key if one is known, else the client's IP.
    Client,
    /// The client's IP: an IPv4 address, or the /64 of an IPv6 address.
    ClientIP,
    /// The model, in normal form: every spelling of one model shares a bucket.
    Model,
    /// The endpoint class: the API families of one class share a bucket.
    Endpoint,
    /// Everybody together. Stands alone.
    Global,
}

/// Whom the numbers of a limit are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// The pool as a whole: each of D serving pods enforces its share.
    #[default]
    Pool,
    /// Each pod has the whole of it.
    Pod,
}
