//! The plan in the form that requests are decided by: checked, sorted, and without a string on the hot path.

mod bound;
mod compile;
mod matching;
mod rate;

use std::{fmt, num::NonZeroU32, sync::Arc};

use corral_wire::{EndpointClass, KeyPart, Mode, PoolRef, Scope, TokensDoc, Unauthenticated};
use hashbrown::HashMap;
use ipnet::IpNet;

use self::matching::MatchTable;
pub use self::{
    bound::Bound,
    compile::{CompileError, CompileErrors, compile},
    rate::Rate,
};
pub(crate) use self::{bound::share_of, matching::ModelId};
use crate::{KnownClient, ModelName, QueueBounds, Unit};

/// The policy that the built-in limits are told by. No policy of a pool can have this name: no namespace has a dot.
pub const BUILT_IN_POLICY: &str = "corral.dev/built-in";

/// A compiled plan. Immutable; shared by `Arc`.
#[derive(Debug)]
pub struct Plan {
    sequence: u64,
    digest: String,
    pool: PoolRef,
    queue: QueueBounds,
    trusted_proxies: Vec<IpNet>,
    clients: HashMap<[u8; 32], Arc<KnownClient>>,
    digest_key: Option<String>,
    unauthenticated: Unauthenticated,
    headers: Vec<String>,
    tokens: TokensDoc,
    /// In ascending order of identity.
    limits: Vec<Limit>,
    table: MatchTable,
}

impl Plan {
    /// The sequence of its document.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The digest of its document, [`corral_wire::PlanDoc::digest`].
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The pool it is for.
    pub fn pool(&self) -> &PoolRef {
        &self.pool
    }

    /// The bounds of the queue.
    pub fn queue(&self) -> QueueBounds {
        self.queue
    }

    /// Proxies whose `X-Forwarded-For` is believed. Empty: none is.
    pub fn trusted_proxies(&self) -> &[IpNet] {
        &self.trusted_proxies
    }

    /// Whose an API key is, by its digest; none when it is nobody's.
    pub fn client_of(&self, digest: &[u8; 32]) -> Option<&Arc<KnownClient>> {
        self.clients.get(digest)
    }

    /// With which [`corral_wire::KeyDigester`] API keys are to be looked up, by its id; none when no key is known.
    pub fn digest_key(&self) -> Option<&str> {
        self.digest_key.as_deref()
    }

    /// What becomes of a request without a known API key.
    pub fn unauthenticated(&self) -> Unauthenticated {
        self.unauthenticated
    }

    /// The headers that limits go by, in lower case, sorted.
    pub fn headers(&self) -> &[String] {
        &self.headers
    }

    /// How tokens are counted.
    pub fn tokens(&self) -> &TokensDoc {
        &self.tokens
    }

    /// Where a limit of this identity stands in [`Self::limits`].
    pub(crate) fn place_of(&self, info: &LimitInfo) -> Option<usize> {
        self.limits.binary_search_by(|limit| limit.info.identity().cmp(&info.identity())).ok()
    }

    /// Every limit, built-in ones too, in ascending order of identity: policy, then name.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }
}

/// What a refusal, a header or a metric says of a limit: its identity (policy and name) and the policy's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LimitInfo {
    /// `namespace/name` of the policy.
    pub policy: String,
    /// The limit's name in it.
    pub name: String,
    pub(crate) rate: Option<Rate>,
    pub(crate) concurrency: Option<NonZeroU32>,
}

impl LimitInfo {
    /// A limit of requests over time and of concurrency.
    pub fn new(policy: &str, name: &str, requests: Option<Rate>, concurrency: Option<NonZeroU32>) -> Self {
        Self { policy: policy.to_owned(), name: name.to_owned(), rate: requests, concurrency }
    }

    /// What it lets through of a unit over time, for the whole scope; none when it bounds none.
    pub fn rate(&self, unit: Unit) -> Option<Rate> {
        self.rate.filter(|_| unit == Unit::Requests)
    }

    /// What it lets be of a unit at one time, for the whole scope; none when it bounds none.
    pub fn most(&self, unit: Unit) -> Option<NonZeroU32> {
        self.concurrency.filter(|_| unit == Unit::Concurrency)
    }

    /// What orders limits and tells them apart.
    pub(crate) fn identity(&self) -> (&str, &str) {
        (&self.policy, &self.name)
    }
}

impl fmt::Display for LimitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.policy, self.name)
    }
}

/// One limit of a plan.
#[derive(Debug, Clone)]
pub struct Limit {
    info: Arc<LimitInfo>,
    mode: Mode,
    endpoints: Vec<EndpointClass>,
    models: Vec<ModelName>,
    model_ids: Box<[ModelId]>,
    per: Vec<KeyPart>,
    scope: Scope,
}

impl Limit {
    /// Its identity and its numbers.
    pub fn info(&self) -> &Arc<LimitInfo> {
        &self.info
    }

    /// Whether it refuses or only counts.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whom its numbers are for.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// What it keeps one bucket each for; sorted, no part twice.
    pub fn per(&self) -> &[KeyPart] {
        &self.per
    }

    /// The endpoint classes it covers; sorted, never empty.
    pub fn endpoints(&self) -> &[EndpointClass] {
        &self.endpoints
    }

    /// The models it covers; sorted. Empty: every model.
    pub fn models(&self) -> &[ModelName] {
        &self.models
    }
}
