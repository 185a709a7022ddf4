//! From the plan on the wire to a [`Plan`], or to everything that is wrong with it at once.

mod errors;
mod identity;
mod limits;
mod queue;
mod rates;

use std::sync::Arc;

use corral_wire::{Action, Algorithm, EndpointClass, KeyPart, Mode, PLAN_VERSION, PlanDoc, Scope};

use self::errors::Errors;
pub use self::errors::{CompileError, CompileErrors};
use super::{
    BUILT_IN_POLICY, Exceed, Limit, LimitInfo, Plan, Rate, Scaled, UNSCALED,
    matching::{Cover, MatchTable},
};
use crate::Nanos;

/// Compiles a plan. The operator runs it before it sends one, the sidecar before it obeys one: the same function, so
/// that what is accepted there is enforced here.
pub fn compile(doc: &PlanDoc) -> Result<Plan, CompileErrors> {
    let mut errors = Errors::default();
    errors.check(doc.version == PLAN_VERSION, "version", || {
        format!("this build reads plan version {PLAN_VERSION}, not {}", doc.version)
    });
    // Another version may mean something else by the same words: nothing more can be said of it.
    let plan = if errors.is_empty() { read(doc, &mut errors) } else { None };
    plan.ok_or(CompileErrors(errors.0))
}

fn read(doc: &PlanDoc, errors: &mut Errors) -> Option<Plan> {
    let queue = queue::read(&doc.queue, errors);
    let identity = identity::read(doc, errors);
    let endpoint_priorities = queue::read_endpoints(&doc.endpoint_priorities, errors);
    let mut limits = limits::read(doc, errors);
    if !errors.is_empty() {
        return None;
    }
    limits.push(metadata_limit());
    limits.sort_by(|a, b| a.info.identity().cmp(&b.info.identity()));
    number_pers(&mut limits);
    Some(Plan {
        sequence: doc.sequence,
        digest: doc.digest(),
        pool: doc.pool.clone(),
        queue,
        cost_model: doc.queue.cost_model,
        trusted_proxies: identity.trusted_proxies,
        clients: identity.clients,
        digest_key: doc.identity.digest_key.clone(),
        unauthenticated: doc.identity.unauthenticated,
        headers: headers_of(&limits, doc.identity.priority_header.as_ref()),
        priority_header: doc.identity.priority_header.clone(),
        endpoint_priorities,
        tokens: doc.tokens.clone(),
        tiers: identity.tiers,
        default_tier: doc.default_tier.clone(),
        exemptions: identity.exemptions,
        has_shadow: limits.iter().any(|limit| limit.mode == Mode::Shadow),
        table: MatchTable::new(&limits),
        limits,
    })
}

/// Gives limits with the same `per` the same number.
fn number_pers(limits: &mut [Limit]) {
    let mut pers: Vec<Vec<KeyPart>> = limits.iter().map(|limit| limit.per.clone()).collect();
    pers.sort();
    pers.dedup();
    for limit in limits {
        limit.per_id = pers.binary_search(&limit.per).unwrap_or(0);
    }
}

/// The headers that limits and priorities go by.
fn headers_of(limits: &[Limit], priority: Option<&String>) -> Vec<String> {
    let kept = limits.iter().flat_map(|limit| limit.per.iter()).filter_map(|part| match part {
        KeyPart::Header(name) => Some(name.to_string()),
        _ => None,
    });
    let matched =
        limits.iter().flat_map(|limit| limit.cover.headers.iter().map(|(name, _)| name.to_string()));
    sorted(kept.chain(matched).chain(priority.cloned()).collect())
}

/// Metadata costs Ollama little, but not nothing: 20 a second for each client IP, 20 of them at one instant.
fn metadata_limit() -> Limit {
    let rate = Rate { count_milli: 20_000, window: Nanos::from_secs(1), burst: 20 };
    Limit {
        info: Arc::new(LimitInfo::new(BUILT_IN_POLICY, "metadata", Some(rate), None)),
        mode: Mode::Enforce,
        cover: Cover { endpoints: vec![EndpointClass::Metadata], ..Cover::default() },
        per: vec![KeyPart::ClientIP],
        per_id: 0,
        scope: Scope::Pod,
        algorithm: Algorithm::TokenBucket,
        day: None,
        exceed: Exceed { action: Action::Reject, max_wait: Nanos::ZERO, rejects_oversize: false },
        adaptive_min: None,
        scales: vec![Scaled { milli: UNSCALED, tiers: Vec::new() }],
        exemptions: Vec::new(),
    }
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list.dedup();
    list
}
