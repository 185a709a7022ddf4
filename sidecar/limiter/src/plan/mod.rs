//! The plan in the form that requests are decided by: checked, sorted, and without a string on the hot path.

mod bound;
mod compile;
mod limit;
mod matching;
mod priority;
mod rate;

use std::sync::Arc;

use corral_wire::{CostModel, EndpointClass, PoolRef, TokensDoc, Unauthenticated};
use hashbrown::HashMap;
use ipnet::IpNet;

pub use self::{
    bound::Bound,
    compile::{CompileError, CompileErrors, compile},
    limit::{Limit, LimitInfo},
    matching::Mismatch,
    rate::Rate,
};
pub(crate) use self::{
    limit::{Exceed, Scaled, UNSCALED},
    matching::{Covering, Traits},
    rate::Factor,
};
use self::{
    matching::{Exemption, MatchTable},
    priority::Tier,
};
use crate::{KnownClient, QueueBounds, queue::Priority};

/// The policy that the built-in limits are told by. No policy of a pool can have this name: no namespace has a dot.
pub const BUILT_IN_POLICY: &str = "corral.dev/built-in";

/// A compiled plan. Immutable; shared by `Arc`.
#[derive(Debug)]
pub struct Plan {
    sequence: u64,
    digest: String,
    pool: PoolRef,
    queue: QueueBounds,
    cost_model: CostModel,
    trusted_proxies: Vec<IpNet>,
    clients: HashMap<[u8; 32], Arc<KnownClient>>,
    digest_key: Option<String>,
    unauthenticated: Unauthenticated,
    headers: Vec<String>,
    priority_header: Option<String>,
    endpoint_priorities: Vec<(EndpointClass, Priority)>,
    tokens: TokensDoc,
    tiers: Vec<Tier>,
    default_tier: Option<String>,
    exemptions: Vec<Exemption>,
    has_shadow: bool,
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

    /// What a request costs in the queue.
    pub fn cost_model(&self) -> CostModel {
        self.cost_model
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

    /// The headers that limits and priorities go by, in lower case, sorted.
    pub fn headers(&self) -> &[String] {
        &self.headers
    }

    /// How tokens are counted.
    pub fn tokens(&self) -> &TokensDoc {
        &self.tokens
    }

    /// Whether it has limits that only count.
    pub(crate) fn has_shadow(&self) -> bool {
        self.has_shadow
    }

    /// Whether a request that is let in is looked at once more, to be counted.
    pub(crate) fn looks_twice(&self) -> bool {
        self.has_shadow || self.has_exemptions()
    }

    /// Whether limits do not apply to somebody.
    pub(crate) fn has_exemptions(&self) -> bool {
        !self.exemptions.is_empty()
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
