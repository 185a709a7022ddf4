//! The Deployment: how many pods, and how one revision follows another where GPUs are all taken.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::PodCounts;
use super::values::int_or_string;
use crate::names;
use crate::pool::revision::HISTORY;
use crate::pool::revision::inputs::RevisionId;
use crate::pool::validate::ValidPool;

/// The Deployment around the pod template of a revision.
pub fn deployment(
    pool: &ValidPool,
    id: &RevisionId,
    template: Value,
    counts: PodCounts,
) -> Result<Value, serde_json::Error> {
    let spec = &pool.spec;
    let strategy = RollingUpdateDeployment {
        max_surge: Some(int_or_string(&spec.max_surge())),
        max_unavailable: Some(max_unavailable(pool, counts)),
    };
    let mut metadata = pool.object_meta(&pool.name);
    // Not on the pods: a label there would be a change of them.
    metadata.labels.get_or_insert_default().insert(names::REVISION_LABEL.to_owned(), id.to_string());
    let deployment = Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(counts.replicas),
            revision_history_limit: Some(i32::from(HISTORY)),
            // Said, not left out, so that whoever sets it by hand does not stop every later rollout.
            paused: Some(false),
            min_ready_seconds: Some(0),
            progress_deadline_seconds: Some(spec.rollout.progress_deadline_seconds),
            selector: LabelSelector {
                match_labels: Some(names::selector(&pool.name)),
                ..LabelSelector::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(strategy),
            }),
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    let mut object = serde_json::to_value(deployment)?;
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("template".to_owned(), template);
    }
    Ok(object)
}

/// A pod that no node has room for is missing already: counted against the allowance, it would hold up every rollout
/// for as long as it waits.
fn max_unavailable(pool: &ValidPool, counts: PodCounts) -> IntOrString {
    let PodCounts { replicas, unschedulable } = counts;
    let wanted = int_or_string(&pool.spec.max_unavailable());
    if unschedulable == 0 {
        return wanted;
    }
    let pods = match &wanted {
        IntOrString::Int(pods) => *pods,
        IntOrString::String(text) => {
            let percent: i32 = text.trim_end_matches('%').parse().unwrap_or(0);
            replicas.saturating_mul(percent) / 100
        }
    };
    IntOrString::Int(pods.saturating_add_unsigned(unschedulable).min(replicas.max(1)))
}
