//! `GET /corral/v1/limits`: what applies to the caller, in the policy's numbers and in this pod's.

use std::net::IpAddr;
use std::num::NonZeroU32;

use bytes::Bytes;
use corral_limiter::{HeadFacts, Limit, Plan, Standing, Unit};
use corral_wire::{EndpointClass, KeyPart, Mode, Scope};
use serde::Serialize;

use super::wording;
use crate::core::Core;

const CLASSES: [EndpointClass; 4] =
    [EndpointClass::Chat, EndpointClass::Generate, EndpointClass::Embed, EndpointClass::Metadata];

/// The whole answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    /// Whom the caller is charged as.
    client: IpAddr,
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
    /// Empty: every model.
    models: Vec<&'a str>,
    per: &'a [KeyPart],
    scope: Scope,
    /// The policy's rate, `60 per 1m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<String>,
    /// The policy's burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u64>,
    /// The policy's concurrency.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<NonZeroU32>,
    /// The most that the limit lets through, in words.
    bound: String,
    /// How the caller stands on this pod; empty where that hangs on the model.
    this_pod: Vec<ShownStanding>,
}

/// One bucket of the caller on this pod.
#[derive(Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct ShownStanding {
    unit: &'static str,
    /// What this pod lets through in a window, or at one time.
    quota: u64,
    /// The most that `remaining` can be.
    capacity: u64,
    remaining: u64,
    /// Milliseconds until one more request would be admitted; 0: now, or nobody knows.
    next_ms: u64,
    /// Milliseconds until `remaining` is `capacity` again.
    full_ms: u64,
    /// The endpoint classes that share this bucket.
    endpoints: Vec<EndpointClass>,
}

/// What applies to `client`. Limits in shadow mode are nobody's business but the operator's.
pub(crate) fn show(core: &Core, client: IpAddr) -> Bytes {
    let Some(plan) = core.plan() else {
        return Bytes::from_static(b"{}");
    };
    let pods = core.divisor();
    let standings: Vec<(EndpointClass, Standing)> = CLASSES
        .into_iter()
        .flat_map(|endpoint| {
            let standing = core.standing(&HeadFacts::new(client, endpoint, ""), None);
            standing.into_iter().map(move |standing| (endpoint, standing))
        })
        .collect();
    let enforced = plan.limits().iter().filter(|limit| limit.mode() == Mode::Enforce);
    let limits = enforced.map(|limit| shown(&plan, limit, pods, &standings)).collect();
    let shown = Shown { client, plan: plan.sequence(), pods, limits };
    serde_json::to_vec(&shown).unwrap_or_default().into()
}

fn shown<'a>(
    plan: &Plan,
    limit: &'a Limit,
    pods: NonZeroU32,
    standings: &[(EndpointClass, Standing)],
) -> ShownLimit<'a> {
    let info = limit.info();
    let rate = info.rate(Unit::Requests);
    ShownLimit {
        policy: &info.policy,
        limit: &info.name,
        endpoints: limit.endpoints(),
        models: limit.models().iter().map(String::as_str).collect(),
        per: limit.per(),
        scope: limit.scope(),
        requests: rate.map(|rate| format!("{} per {}", wording::count(&rate), wording::window(rate.window))),
        burst: rate.map(|rate| rate.burst),
        concurrency: info.most(Unit::Concurrency),
        bound: plan.bound(limit, pods).to_string(),
        this_pod: buckets(limit, standings),
    }
}

/// The caller's buckets of one limit; classes that stand alike are told together.
fn buckets(limit: &Limit, standings: &[(EndpointClass, Standing)]) -> Vec<ShownStanding> {
    let mut buckets: Vec<ShownStanding> = Vec::new();
    for (endpoint, standing) in standings.iter().filter(|(_, standing)| standing.limit == *limit.info()) {
        let bucket = ShownStanding {
            unit: standing.unit.as_str(),
            quota: standing.quota,
            capacity: standing.capacity,
            remaining: standing.remaining,
            next_ms: standing.next.millis_ceil(),
            full_ms: standing.full.millis_ceil(),
            endpoints: Vec::new(),
        };
        let alike = |other: &&mut ShownStanding| {
            (other.unit, other.remaining, other.capacity, other.quota)
                == (bucket.unit, bucket.remaining, bucket.capacity, bucket.quota)
        };
        match buckets.iter_mut().find(alike) {
            Some(other) => other.endpoints.push(*endpoint),
            None => buckets.push(ShownStanding { endpoints: vec![*endpoint], ..bucket }),
        }
    }
    buckets
}
