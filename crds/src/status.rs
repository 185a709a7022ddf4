//! What the operator says about a pool and a policy. Sidecars write none of it.

mod scaling;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::scaling::{ScalingDecision, ScalingNumbers, ScalingStatus};
use crate::bounds;

/// What the operator says about a pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OllamaPoolStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that exist; the scale subresource reads it.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Pods of the newest revision.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Pods that are ready and have been for long enough.
    #[serde(default)]
    pub available_replicas: i32,
    /// Pods that the pool should have: by what it has to do, within its bounds, in autoscaling's mode `Builtin`; else as
    /// `spec.replicas` says. While pods that have to go still finish what they have, `replicas` is above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// Why it is as large as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<ScalingStatus>,
    /// GPUs that the pool's pods ask for, all together.
    #[serde(default)]
    pub gpus: i32,
    /// Selects the pool's pods; the scale subresource reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Where clients reach the pool from inside the cluster, as `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub endpoint: Option<String>,
    /// How it stands. `Ready`: it serves as asked. `Reconciling`: that is being brought about. `UpdateAvailable`: this
    /// operator would render the pods otherwise; it changes them with the next change of the spec that concerns them, or
    /// when the annotation `corral.dev/update` of the pool gets a value that it never had, such as the time. `ResolvedRefs`, where
    /// the pool names Secrets with API keys: each is there, and all that stands in it counts. `ScalingActive`: the operator decides
    /// how many pods there are. `ScalingLimited`: there would be more pods, or fewer, if something did not hold them. `MetricsAvailable`:
    /// enough pods tell what they do; while it is False the pool does not shrink. `AutoscalingConflict`, only while it is so: somebody
    /// else scales the pool as well.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The limits in force on this pool, of all policies; there are at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = bounds::MAX_POOL_LIMITS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["policy", "name"]))]
    pub effective_limits: Vec<EffectiveLimit>,
}

/// What the operator says about a policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitPolicyStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The names of the pools it targets, for people: the first three, and how many more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub targets: Option<String>,
    /// The priorities that are in force because of it, by tier or class of endpoints, for people: as in `premium=high,Embed=low`,
    /// the first six, and how many more. What another policy says instead is not among them, nor what only counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub priorities: Option<String>,
    /// How many limits it has.
    #[serde(default)]
    pub limit_count: i32,
    /// The worst of each condition over all its pools: `Accepted`, `ResolvedRefs`, `Programmed`. `AncestorsTruncated` where it
    /// has more pools than `ancestors` has room for: they are enforced as the others, and their own statuses tell of them.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How it stands with each pool, at most 16 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = bounds::MAX_TARGETS), extend("x-kubernetes-list-type" = "atomic"))]
    pub ancestors: Vec<PolicyAncestorStatus>,
    /// Its limits, and what each of them bounds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = bounds::MAX_LIMITS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub limits: Vec<LimitStatus>,
}

/// How a policy stands with one pool, in the shape that Gateway API policies share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAncestorStatus {
    /// The pool.
    pub ancestor_ref: AncestorRef,
    /// Who says so.
    #[schemars(length(max = bounds::MAX_NAME))]
    pub controller_name: String,
    /// `Accepted`, `ResolvedRefs`, `Programmed`.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Names a pool that a policy applies to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AncestorRef {
    /// Its API group.
    #[schemars(length(max = bounds::MAX_TARGET_WORD))]
    pub group: String,
    /// Its kind.
    #[schemars(length(max = bounds::MAX_TARGET_WORD))]
    pub kind: String,
    /// Its name, in the policy's namespace.
    #[schemars(length(max = bounds::MAX_NAME))]
    pub name: String,
}

impl AncestorRef {
    /// The pool of this name.
    pub fn pool(name: &str) -> Self {
        Self {
            group: crate::GROUP.to_owned(),
            kind: crate::policy::TARGET_KIND.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// One limit of a policy, and what it bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitStatus {
    /// The limit's name.
    #[schemars(length(max = bounds::MAX_LIMIT_NAME))]
    pub name: String,
    /// What becomes of it.
    pub state: LimitState,
    /// The policy whose limit of the same name is in force instead, where another is; with the pool where pools differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub by: Option<String>,
    /// The most that it lets through, in words, with the pods that serve now.
    #[schemars(length(max = 1024))]
    pub bound: String,
}

/// One limit in force on a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveLimit {
    /// The name of its policy.
    #[schemars(length(max = bounds::MAX_NAME))]
    pub policy: String,
    /// Its name in that policy.
    #[schemars(length(max = bounds::MAX_LIMIT_NAME))]
    pub name: String,
    /// Whether it refuses.
    pub state: LimitState,
    /// The most that it lets through, in words, with the pods that serve now.
    #[schemars(length(max = 1024))]
    pub summary: String,
}

/// What becomes of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LimitState {
    /// It refuses what exceeds it.
    Enforced,
    /// It only counts.
    Shadow,
    /// Its policy is not accepted as it is now: what was last accepted of it stays in force.
    Stale,
    /// It is a default, and another policy has a limit of the same name.
    Replaced,
    /// A policy of precedence Override has a limit of the same name.
    Overridden,
}
