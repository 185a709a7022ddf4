//! What the core decides by: the pods as Kubernetes and as they themselves tell of them, and the Deployment as it was last
//! read. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use corral_scaler::{Heard, Held, Observation, Phase, PodSeen, Scarce, Shortage};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};

use super::moment::{Present, on_line};
use crate::names::DELETION_COST;
use crate::pool::apply::replicas;
use crate::pool::observe::{condition, homeless, is_dying, is_placed, lacks};

/// A Deployment, as far as a decision goes by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeploymentSeen {
    /// Pods that it asks for.
    pub replicas: u32,
    /// Pods that Kubernetes counted for it, without those on their way out.
    pub exist: u32,
    /// A change of its pods is on its way.
    pub rollout: bool,
    /// Its controller has not looked at it yet: whether a change of its pods is on its way is not known.
    pub unseen: bool,
    /// Since when a quota keeps pods of it from existing.
    pub over_quota: Option<Duration>,
}

impl DeploymentSeen {
    /// What there is to see of a Deployment at `present`.
    pub fn of(deployment: &Deployment, present: Present) -> Self {
        let status = deployment.status.clone().unwrap_or_default();
        let unseen = status.observed_generation < deployment.metadata.generation;
        let outdated = status.updated_replicas.unwrap_or(0) < status.replicas.unwrap_or(0);
        let failing = status.conditions.iter().flatten().find(|condition| {
            let message = condition.message.as_deref().unwrap_or_default();
            condition.type_ == "ReplicaFailure"
                && condition.status == "True"
                && message.contains("exceeded quota")
        });
        let since = |time: Option<&_>| time.map_or(present.moment(), |time| present.moment_of(time));
        Self {
            replicas: u32::try_from(replicas(deployment)).unwrap_or(0),
            exist: u32::try_from(status.replicas.unwrap_or(0)).unwrap_or(0),
            rollout: outdated,
            unseen,
            over_quota: failing.map(|condition| since(condition.last_transition_time.as_ref())),
        }
    }
}

/// What is seen of a pool. `resource` is the extended resource that its pods ask for.
pub fn observation(
    deployment: &DeploymentSeen,
    pods: &[Arc<Pod>],
    heard: Vec<(String, Heard)>,
    resource: Option<&str>,
    present: Present,
) -> Observation {
    let mut heard: HashMap<String, Heard> = heard.into_iter().collect();
    let seen = pods.iter().filter_map(|pod| {
        let heard = pod.metadata.uid.as_ref().and_then(|uid| heard.remove(uid));
        seen(pod, heard, present)
    });
    Observation {
        replicas: deployment.replicas,
        exist: deployment.exist,
        rollout: deployment.rollout,
        pods: seen.collect(),
        held: Held::default(),
        shortage: shortage(deployment, pods, resource, present),
    }
}

fn seen(pod: &Pod, heard: Option<Heard>, present: Present) -> Option<PodSeen> {
    let meta = &pod.metadata;
    let status = pod.status.as_ref();
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True");
    let scheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "True");
    let since = |condition: &PodCondition| {
        condition.last_transition_time.as_ref().map(|time| present.moment_of(time))
    };
    Some(PodSeen {
        uid: meta.uid.clone()?,
        name: meta.name.clone()?,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        phase: phase(status),
        ready: ready.is_some(),
        ready_since: ready.and_then(since),
        restarts: status.map_or(0, restarts),
        created: meta.creation_timestamp.as_ref().map_or(present.moment(), |time| present.moment_of(time)),
        scheduled: scheduled.and_then(since),
        terminating: meta.deletion_timestamp.is_some(),
        deletion_cost: deletion_cost(pod),
        heard: heard.map(|heard| Heard { at: on_line(heard.at), ..heard }),
    })
}

fn phase(status: Option<&PodStatus>) -> Phase {
    match status.and_then(|status| status.phase.as_deref()) {
        Some("Running") => Phase::Running,
        Some("Unknown") => Phase::Unknown,
        _ => Phase::Pending,
    }
}

/// The most that one container of it was restarted, as the ReplicaSet's controller counts.
fn restarts(status: &PodStatus) -> u32 {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.map(|container| u32::try_from(container.restart_count).unwrap_or(0)).max().unwrap_or(0)
}

/// What the pod's annotation says, as Kubernetes reads it: what is no number counts as 0.
pub(super) fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod.metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// Why some pods have no place, and since when. Those that will have the room of a pod that ends are not short of one.
fn shortage(
    deployment: &DeploymentSeen,
    pods: &[Arc<Pod>],
    resource: Option<&str>,
    present: Present,
) -> Option<Shortage> {
    let leaving = pods.iter().filter(|pod| is_dying(pod) && is_placed(pod)).count();
    let mut homeless: Vec<(Duration, &PodCondition)> =
        pods.iter().filter(|pod| !is_dying(pod)).filter_map(|pod| homeless_since(pod, present)).collect();
    if homeless.len() <= leaving {
        return deployment.over_quota.map(|since| Shortage { of: Scarce::Quota, since });
    }
    homeless.sort_by_key(|(since, _)| *since);
    let gpu = homeless.iter().find(|(_, condition)| lacks(condition, resource));
    let of = if gpu.is_some() { Scarce::Gpu } else { Scarce::Node };
    gpu.or(homeless.first()).map(|(since, _)| Shortage { of, since: *since })
}

/// What is said of a pod that no node has room for, and since when.
fn homeless_since(pod: &Pod, present: Present) -> Option<(Duration, &PodCondition)> {
    let homeless = homeless(pod)?;
    let since = homeless.last_transition_time.as_ref().or(pod.metadata.creation_timestamp.as_ref());
    Some((since.map_or(present.moment(), |time| present.moment_of(time)), homeless))
}
