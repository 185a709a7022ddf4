//! `corral-sidecar explain`: what would become of a request now, and by which limit; nothing is charged for asking.
//!
//! Inside a pod the running sidecar is asked over its control socket, and answers from its live state. On a laptop the
//! plan of policy files answers, with nothing used yet. The judgement itself is the data path's own
//! ([`crate::proxy`]): the same routes, the same identity, the same limiter.

mod laptop;
mod print;
mod request;
mod words;

use std::net::IpAddr;

use corral_limiter::Usage;
use corral_wire::{KeyPart, Mode};
use serde::{Deserialize, Serialize};

pub use self::laptop::{LaptopError, on_a_laptop};
pub use self::request::{Ask, BadRequest};
pub(crate) use self::words::{not_for, requested, says, urgency};
pub(crate) use crate::proxy::explain;

/// What would become of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// Method and path.
    pub request: String,
    /// Whom it would be charged to; none where it does not come so far.
    pub client: Option<Charged>,
    /// Where it stands among those who wait for a slot; none where it needs none, or does not come so far.
    pub place: Option<Box<Placed>>,
    /// Its model, in normal form.
    pub model: Option<String>,
    /// What it will probably cost; none where nothing is inferred.
    pub estimate: Option<Estimate>,
    /// Every limit of the plan, those that apply first.
    pub limits: Vec<Judged>,
    /// What would happen.
    pub outcome: Outcome,
}

/// Whom a request is charged to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Charged {
    /// The client of its API key, if that is known.
    pub name: Option<String>,
    /// Where it comes from, trusted proxies seen through.
    pub address: IpAddr,
    /// Its tier, if it is in one.
    pub tier: Option<String>,
}

/// Where a request stands among those who wait for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// How urgent it is: `critical`, `high`, `medium` or `low`.
    pub priority: String,
    /// What its client weighs against others of that priority.
    pub weight: u32,
}

/// What a request will probably cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// For how long it holds a slot, in milliseconds; 0: nothing is known of its model yet.
    pub slot_ms: u64,
}

impl From<Usage> for Estimate {
    fn from(usage: Usage) -> Self {
        let Usage { input, output, slot } = usage;
        Self { input_tokens: input, output_tokens: output, slot_ms: slot.millis_ceil() }
    }
}

/// What one limit has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// `namespace/policy/limit`.
    pub limit: String,
    /// Whether it refuses or only counts.
    pub mode: Mode,
    /// What it keeps one bucket each for.
    pub per: Vec<KeyPart>,
    /// Why it does not apply; none: it does.
    pub not_for: Option<String>,
    /// What it would do, in a few words: `admits`, `refuses for 1.97s`; empty where it does not apply.
    pub says: String,
    /// Whether it is the one that decides; none is when all admit.
    pub decides: bool,
    /// Its buckets, as they are for this request; empty where it does not apply.
    pub buckets: Vec<Bucket>,
}

/// One bucket of a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// The policy's numbers: `60 requests per 1m`.
    pub limit: String,
    /// What is used of what this pod lets through; above `capacity` while there is debt.
    pub used: u64,
    /// What is left of it now.
    pub remaining: u64,
    /// The most that can be left.
    pub capacity: u64,
    /// What the request would take, as estimated; in seconds of slots rounded up.
    pub requested: u64,
    /// Until one more would be admitted, in milliseconds, rounded up; 0: now, or nobody knows.
    pub next_ms: u64,
}

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The status that Corral itself would answer with; none: the request would go on to Ollama.
    pub status: Option<u16>,
    /// In words.
    pub text: String,
}
