//! The `PodDisruptionBudget`: how many pods node drains may take at one time, and never so few that one waits for ever.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::PodCounts;
use super::values::int_or_string;
use crate::names;
use crate::pool::validate::ValidPool;

/// The budget: as many as a rollout may take, and as many more as are missing for want of a node.
pub fn budget(pool: &ValidPool, counts: PodCounts) -> PodDisruptionBudget {
    let spec = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(max_unavailable(pool, counts))),
        min_available: None,
        selector: Some(LabelSelector {
            match_labels: Some(names::selector(&pool.name)),
            ..LabelSelector::default()
        }),
        // A pod that serves nobody is no loss, whatever else is missing.
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
    };
    PodDisruptionBudget { metadata: pool.object_meta(&pool.name), spec: Some(spec), status: None }
}

/// Rounded up, and at least 1: where a rollout makes new pods first, a drain still has to take an old one. A pod that no
/// node has room for is missing already: counted against the allowance, it would hold up every drain.
fn max_unavailable(pool: &ValidPool, counts: PodCounts) -> i32 {
    let replicas = counts.replicas.max(1);
    let wanted = match int_or_string(&pool.spec.max_unavailable()) {
        IntOrString::Int(pods) => pods,
        IntOrString::String(text) => {
            let percent: i32 = text.trim_end_matches('%').parse().unwrap_or(0);
            replicas.saturating_mul(percent).saturating_add(99) / 100
        }
    };
    wanted.max(1).saturating_add_unsigned(counts.unschedulable).min(replicas)
}
