//! One limit: what it covers, what it counts for whom, and what becomes of what exceeds it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One named limit of one policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The paths it covers. Empty: every path of its endpoint classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathDoc>,
    /// The models it covers: names in normal form, or patterns with `*` over the normal form. Empty: every model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// The tiers it covers. Empty: every client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<String>,
    /// Headers that a request must have, all of them, to be covered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderDoc>,
    /// Where a client must come from to be covered. Empty: anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<String>,
    /// What a bucket is kept for: one per distinct combination of these.
    pub per: Vec<KeyPart>,
    /// Whether the numbers hold for the pool or for each pod.
    pub scope: Scope,
    /// How its rates are counted.
    #[serde(default, skip_serializing_if = "Algorithm::is_default")]
    pub algorithm: Algorithm,
    /// When the windows of [`Algorithm::FixedWindow`] begin, for windows of a day; none: at midnight UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<ResetDoc>,
    /// Requests over time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RateDoc>,
    /// Tokens of prompts and answers over time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<RateDoc>,
    /// Tokens of prompts over time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<RateDoc>,
    /// Tokens of answers over time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<RateDoc>,
    /// Seconds for which slots of Ollama are held, over time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_seconds: Option<RateDoc>,
    /// Requests at one time: waiting and running, from admission until the slot is released. At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Requests that wait for a slot at one time. At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u32>,
    /// Prompt tokens of requests that wait for a slot at one time, as estimated. At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_tokens: Option<u32>,
    /// What becomes of what exceeds it.
    #[serde(default, skip_serializing_if = "ExceedDoc::is_default")]
    pub on_exceed: ExceedDoc,
    /// Whether its numbers follow how Ollama fares; none: they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveDoc>,
}

/// A rate with its burst. Slot seconds are seconds here, not what buckets count them in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateDoc {
    /// How many are let through in a window, in thousandths (`1.5/s` is 1500); at least 1.
    pub count_milli: u64,
    /// The window, in seconds; 1 to 31 days.
    pub window_seconds: u64,
    /// How many may come at one instant; at least 1. Algorithms that count windows do not look at it.
    pub burst: u64,
}

/// How a rate is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// A bucket that refills steadily (GCRA).
    #[default]
    TokenBucket,
    /// One after the other at an even pace; what comes too early waits, as many as the burst says.
    LeakyBucket,
    /// The window before, weighted by how much of it still counts, and this one.
    SlidingWindow,
    /// Every request by its time. Requests only, at most 10,000 in a window.
    SlidingLog,
    /// Windows of a minute, an hour or a day by the clock.
    FixedWindow,
}

impl Algorithm {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When days begin.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResetDoc {
    /// Minutes after midnight; 0 to 1439.
    pub minute_of_day: u16,
    /// A time zone of the IANA database, such as `Europe/Kyiv`.
    pub time_zone: String,
}

/// What becomes of a request that exceeds a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExceedDoc {
    /// What is done.
    pub action: Action,
    /// The longest that [`Action::Queue`] and [`Action::Delay`] let it wait, in milliseconds; none for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait_ms: Option<u64>,
    /// What becomes of one that costs more than the limit can ever hold.
    #[serde(default)]
    pub oversize: Oversize,
}

impl ExceedDoc {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is done with a request that exceeds a limit; of several limits the first of these wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// 429.
    #[default]
    Reject,
    /// It starts when the limit allows, in order of arrival, before it joins the queue.
    Delay,
    /// It waits in the queue until the limit allows.
    Queue,
    /// It is not charged, and gets a slot only when nobody else wants it.
    Deprioritize,
}

/// What becomes of a request that costs more than a limit can ever hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Oversize {
    /// It is admitted when nothing else is used, and leaves a debt.
    #[default]
    Debt,
    /// 400: it will never be admitted.
    Reject,
}

/// How a limit's numbers follow how Ollama fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdaptiveDoc {
    /// How little of its numbers is left at least, in thousandths; 1 to 1000.
    pub min_milli: u32,
}

/// A header that a request must have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderDoc {
    /// Its name, in lower case; one of the trusted ones.
    pub name: String,
    /// Its value, byte for byte.
    pub value: String,
}

/// Paths that a limit covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PathDoc {
    /// This one.
    Exact(String),
    /// Those that begin with it, whole segments only: `/v1` covers `/v1/messages`, not `/v12`.
    Prefix(String),
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

/// One part of what a bucket is kept for; written as `Client`, `Header:x-team` and so on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum KeyPart {
    /// Who is charged: the API key if one is known, else the client's IP.
    Client,
    /// The client of the API key; everybody without a known one together.
    ApiKey,
    /// The client's IP: an IPv4 address, or the /64 of an IPv6 address.
    ClientIP,
    /// The tier; everybody without one together.
    Tier,
    /// The model, in normal form: every spelling of one model shares a bucket.
    Model,
    /// The endpoint class: the API families of one class share a bucket.
    Endpoint,
    /// Everybody together. Stands alone.
    Global,
    /// The value of a header that the pool trusts, by its name in lower case; everybody without it together.
    Header(Box<str>),
}

/// A text that is no part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of Client, ApiKey, ClientIP, Tier, Model, Endpoint, Global and Header:<name>")]
pub struct BadKeyPart(String);

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("Client"),
            Self::ApiKey => f.write_str("ApiKey"),
            Self::ClientIP => f.write_str("ClientIP"),
            Self::Tier => f.write_str("Tier"),
            Self::Model => f.write_str("Model"),
            Self::Endpoint => f.write_str("Endpoint"),
            Self::Global => f.write_str("Global"),
            Self::Header(name) => write!(f, "Header:{name}"),
        }
    }
}

impl From<KeyPart> for String {
    fn from(part: KeyPart) -> Self {
        part.to_string()
    }
}

impl TryFrom<String> for KeyPart {
    type Error = BadKeyPart;

    fn try_from(text: String) -> Result<Self, BadKeyPart> {
        text.parse()
    }
}

impl FromStr for KeyPart {
    type Err = BadKeyPart;

    fn from_str(text: &str) -> Result<Self, BadKeyPart> {
        let header = |name: &str| Self::Header(name.to_ascii_lowercase().into());
        Ok(match text {
            "Client" => Self::Client,
            "ApiKey" => Self::ApiKey,
            "ClientIP" => Self::ClientIP,
            "Tier" => Self::Tier,
            "Model" => Self::Model,
            "Endpoint" => Self::Endpoint,
            "Global" => Self::Global,
            _ => match text.strip_prefix("Header:") {
                Some(name) if !name.is_empty() => header(name),
                _ => return Err(BadKeyPart(text.chars().take(64).collect())),
            },
        })
    }
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
