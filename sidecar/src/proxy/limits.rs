//! `GET /corral/v1/limits`: what applies to the caller, in the policy's numbers and in this pod's.
//!
//! Looking changes nothing, as far as limits go: the look itself is metadata, and counts as such.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use corral_limiter::{Explained, HeadFacts, Limit, LimitInfo, Mismatch, Plan, Standing, Usage};
use corral_wire::{Action, Algorithm, EndpointClass, KeyPart, Mode, Scope};
use serde::Serialize;
use serde_json::{Value, json};

use super::{route, wording};
use crate::core::Core;

/// The whole answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    /// Whom the caller is charged as: the client of its API key, or its address.
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    /// The plan in force.
    plan: u64,
    /// Among how many pods a pool's limits are shared.
    pods: NonZeroU32,
    limits: Vec<ShownLimit<'a>>,
}

/// One limit.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownLimit<'a> {
    policy: &'a str,
    limit: &'a str,
    endpoints: &'a [EndpointClass],
    /// Names and patterns. Empty: every model.
    models: &'a [String],
    per: &'a [KeyPart],
    scope: Scope,
    algorithm: Algorithm,
    action: Action,
    /// The longest that the action lets a request wait, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_wait_ms: Option<u64>,
    /// The policy's numbers by unit: rates as `60 per 1m`, what counts at one time as a number.
    #[serde(flatten)]
    numbers: BTreeMap<&'static str, Value>,
    /// The policy's bursts by unit, where the algorithm has one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    burst: BTreeMap<&'static str, u64>,
    /// How much of the numbers is in force now, in percent; only where the limit adapts.
    #[serde(skip_serializing_if = "Option::is_none")]
    adaptive_percent: Option<f64>,
    /// The most that the limit lets through, in words.
    bound: String,
    /// How the caller stands on this pod; empty where that hangs on the model.
    this_pod: Vec<ShownStanding>,
}

/// One bucket of the caller on this pod, in this pod's share of the numbers.
#[derive(Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct ShownStanding {
    unit: &'static str,
    /// What this pod lets through in a window, or at one time.
    quota: u64,
    /// The most that `remaining` can be.
    capacity: u64,
    /// Above `capacity` while there is debt.
    used: u64,
    used_percent: u64,
    remaining: u64,
    /// Milliseconds until one more would be admitted; 0: now, or nobody knows.
    next_ms: u64,
    /// Milliseconds until `remaining` is `capacity` again.
    full_ms: u64,
    /// The endpoint classes that share this bucket.
    endpoints: Vec<EndpointClass>,
}

/// What the limits say of the caller at each endpoint there is.
type Said = Vec<(EndpointClass, Vec<Explained>)>;

/// What applies to whoever asks. Limits in shadow mode are nobody's business but the operator's.
pub(crate) fn show(core: &Core, caller: &HeadFacts) -> Bytes {
    let Some(plan) = core.plan() else {
        return Bytes::from_static(b"{}");
    };
    let pods = core.divisor();
    let said = said(core, caller);
    let stats = core.limit_stats();
    let in_force = |info: &Arc<LimitInfo>| {
        stats.iter().find(|stats| stats.limit == *info).map_or(1000, |stats| stats.adaptive_milli)
    };
    let applying =
        plan.limits().iter().filter(|limit| limit.mode() == Mode::Enforce && applies(limit, &said));
    let limits = applying.map(|limit| shown(&plan, limit, pods, (&said, in_force(limit.info())))).collect();
    let client = match &caller.client {
        Some(client) => client.name.clone(),
        None => caller.client_ip.to_string(),
    };
    let tier = plan.tier_of(caller);
    let shown = Shown { client, tier, plan: plan.sequence(), pods, limits };
    serde_json::to_vec(&shown).unwrap_or_default().into()
}

fn said(core: &Core, caller: &HeadFacts) -> Said {
    let ask = |(endpoint, path)| {
        let head = HeadFacts { endpoint, path, ..caller.clone() };
        (endpoint, core.explain(&head, None, Usage::default()))
    };
    route::all().map(ask).collect()
}

/// Whether a limit may say something to a request of the caller, whichever that is.
fn applies(limit: &Limit, said: &Said) -> bool {
    own(limit, said).any(|(_, said)| matches!(said.mismatch, None | Some(Mismatch::Model)))
}

/// What one limit says.
fn own<'a>(limit: &Limit, said: &'a Said) -> impl Iterator<Item = (EndpointClass, &'a Explained)> {
    let info = Arc::clone(limit.info());
    said.iter().filter_map(move |(endpoint, all)| {
        all.iter().find(|said| said.limit == info).map(|said| (*endpoint, said))
    })
}

fn shown<'a>(
    plan: &Plan,
    limit: &'a Limit,
    pods: NonZeroU32,
    (said, adaptive_milli): (&Said, u32),
) -> ShownLimit<'a> {
    let info = limit.info();
    ShownLimit {
        policy: &info.policy,
        limit: &info.name,
        endpoints: limit.endpoints(),
        models: limit.models(),
        per: limit.per(),
        scope: limit.scope(),
        algorithm: limit.algorithm(),
        action: limit.action(),
        max_wait_ms: limit.max_wait().map(corral_limiter::Nanos::millis_ceil),
        numbers: numbers(info),
        burst: bursts(limit),
        adaptive_percent: limit.adaptive_min_milli().map(|_| f64::from(adaptive_milli) / 10.0),
        bound: plan.bound(limit, pods).to_string(),
        this_pod: buckets(limit, said),
    }
}

fn numbers(info: &LimitInfo) -> BTreeMap<&'static str, Value> {
    let rates = info.rates().iter().map(|(unit, rate)| {
        let rate = format!("{} per {}", wording::count(rate), wording::window(rate.window));
        (unit.as_str(), Value::from(rate))
    });
    rates.chain(info.bounds_at_once().iter().map(|(unit, most)| (unit.as_str(), json!(most)))).collect()
}

fn bursts(limit: &Limit) -> BTreeMap<&'static str, u64> {
    if !matches!(limit.algorithm(), Algorithm::TokenBucket | Algorithm::LeakyBucket) {
        return BTreeMap::new();
    }
    limit.info().rates().iter().map(|(unit, rate)| (unit.as_str(), rate.burst)).collect()
}

/// The caller's buckets of one limit; classes that stand alike are told together.
fn buckets(limit: &Limit, said: &Said) -> Vec<ShownStanding> {
    let mut buckets: Vec<ShownStanding> = Vec::new();
    if limit.per().contains(&KeyPart::Model) {
        return buckets;
    }
    for (endpoint, said) in own(limit, said) {
        for standing in &said.standings {
            add(&mut buckets, standing, endpoint);
        }
    }
    buckets
}

fn add(buckets: &mut Vec<ShownStanding>, standing: &Standing, endpoint: EndpointClass) {
    let bucket = bucket(standing);
    let alike = |other: &&mut ShownStanding| {
        (other.unit, other.used, other.capacity, other.quota)
            == (bucket.unit, bucket.used, bucket.capacity, bucket.quota)
    };
    match buckets.iter_mut().find(alike) {
        Some(other) if other.endpoints.contains(&endpoint) => {}
        Some(other) => other.endpoints.push(endpoint),
        None => buckets.push(ShownStanding { endpoints: vec![endpoint], ..bucket }),
    }
}

fn bucket(standing: &Standing) -> ShownStanding {
    let Standing { unit, quota, used, remaining, capacity, .. } = *standing;
    ShownStanding {
        unit: unit.as_str(),
        quota,
        capacity,
        used,
        used_percent: used.saturating_mul(100).checked_div(capacity).unwrap_or(0),
        remaining,
        next_ms: standing.next.millis_ceil(),
        full_ms: standing.full.millis_ceil(),
        endpoints: Vec::new(),
    }
}
