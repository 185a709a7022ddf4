//! What the operator says about a pool and a policy. Sidecars write none of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// when the annotation `corral.dev/update` of the pool gets a value that it never had, such as the time.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The limits in force on this pool, of all policies; there are at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = bounds::MAX_POOL_LIMITS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub effective_limits: Vec<LimitStatus>,
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
    /// How many limits it has.
    #[serde(default)]
    pub limit_count: i32,
    /// The worst of each condition over all its pools: `Accepted`, `ResolvedRefs`, `Programmed`.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How it stands with each pool.
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

/// One limit, and what it bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitStatus {
    /// In a policy's status the limit's name, in a pool's `policy/limit`.
    #[schemars(length(max = 320))]
    pub name: String,
    /// Whether it refuses.
    pub state: LimitState,
    /// The most that it lets through, in words, with the pods that serve now.
    #[schemars(length(max = 1024))]
    pub bound: String,
}

/// Whether a limit refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LimitState {
    /// It refuses what exceeds it.
    Enforced,
    /// It only counts.
    Shadow,
    /// Its policy is not accepted as it is now: what was last accepted of it stays in force.
    Stale,
}
