//! What the operator says of a pool's size.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{bounds, pool::ScalingMode};

/// Why a pool is as large as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// Who decides.
    #[serde(default)]
    pub mode: ScalingMode,
    /// Why it is of this size, in one word.
    #[serde(default)]
    #[schemars(length(max = bounds::MAX_REASON))]
    pub reason: String,
    /// Why, in words and numbers.
    #[serde(default)]
    #[schemars(length(max = bounds::MAX_SENTENCE))]
    pub message: String,
    /// What the size was computed from, in mode `Builtin`. They are as old as half a minute where nothing else changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<ScalingNumbers>,
    /// When `desiredReplicas` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::moment")]
    pub last_scale_time: Option<Time>,
    /// The last changes of `desiredReplicas`, the newest first; at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = bounds::MAX_DECISIONS), extend("x-kubernetes-list-type" = "atomic"))]
    pub decisions: Vec<ScalingDecision>,
}

/// What a size was computed from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingNumbers {
    /// Requests that come each second, refused ones with them if it was for want of room; a decimal text.
    #[schemars(length(max = bounds::MAX_NUMBER))]
    pub arrivals_per_second: String,
    /// How long one holds a slot, in seconds; a decimal text.
    #[schemars(length(max = bounds::MAX_NUMBER))]
    pub service_seconds: String,
    /// Requests that wait.
    pub queued: u32,
    /// How long a pod takes from its node to its first request, in seconds.
    pub startup_seconds: u32,
    /// Pods that this asks for, before bounds and delays.
    pub needed: u32,
}

/// One change of a pool's size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingDecision {
    /// When.
    #[schemars(schema_with = "crate::schema::moment")]
    pub time: Time,
    /// How many pods it should have had until then.
    pub from: i32,
    /// How many since.
    pub to: i32,
    /// Why, in one word.
    #[schemars(length(max = bounds::MAX_REASON))]
    pub reason: String,
    /// Why, in words and numbers.
    #[schemars(length(max = bounds::MAX_SENTENCE))]
    pub message: String,
}
