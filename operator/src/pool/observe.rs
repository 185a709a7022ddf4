//! What there is to see of a pool's pods.

use std::net::IpAddr;
use std::sync::Arc;

use corral_crds::condition::Reason;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::runtime::reflector::Store;

use crate::exchange::pool::PodSight;
use crate::names::{POOL_LABEL, SIDECAR};

/// What keeps a pod from serving, by Kubernetes' own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in words.
    pub message: String,
}

/// What is seen of a pool's pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodsSeen {
    /// Pods that no node has room for.
    pub unschedulable: u32,
    /// Pods that have a node, those that are being deleted with them.
    pub placed: u32,
    /// Pods that are being deleted.
    pub terminating: u32,
    /// Those of them that have a node, whose room others will have.
    pub leaving: u32,
    /// What keeps pods from serving, the gravest first.
    pub troubles: Vec<Trouble>,
}

impl PodsSeen {
    /// How many pods are missing for want of a node now, when the room of those that leave is counted as free: of the
    /// replicas asked for, or of the pods that there are, whichever shows more.
    pub fn short(&self, replicas: u32) -> u32 {
        replicas.saturating_sub(self.placed).max(self.unschedulable.saturating_sub(self.leaving))
    }
}

/// The pods of a pool that are not at their end.
pub fn pods_of(store: &Store<Pod>, namespace: &str, pool: &str) -> Vec<Arc<Pod>> {
    let is_ours = |pod: &Arc<Pod>| {
        let labels = pod.metadata.labels.as_ref();
        pod.metadata.namespace.as_deref() == Some(namespace)
            && labels.and_then(|labels| labels.get(POOL_LABEL)).is_some_and(|label| label == pool)
            && !has_ended(pod)
    };
    let mut pods: Vec<Arc<Pod>> = store.state().into_iter().filter(is_ours).collect();
    pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    pods
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// What keeps pods from serving. `resource` is the extended resource they ask for.
pub fn look(pods: &[Arc<Pod>], resource: Option<&str>) -> PodsSeen {
    let waiting = pods.iter().filter_map(|pod| unschedulable(pod, resource));
    let mut troubles: Vec<Trouble> = waiting.collect();
    let unschedulable = u32::try_from(troubles.len()).unwrap_or(u32::MAX);
    troubles.extend(pods.iter().flat_map(|pod| stuck(pod)));
    let count = |is: fn(&Pod) -> bool| {
        let found = pods.iter().filter(|pod| is(pod)).count();
        u32::try_from(found).unwrap_or(u32::MAX)
    };
    PodsSeen {
        unschedulable,
        placed: count(is_placed),
        terminating: count(is_dying),
        leaving: count(|pod| is_placed(pod) && is_dying(pod)),
        troubles,
    }
}

fn is_placed(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

fn is_dying(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn unschedulable(pod: &Pod, resource: Option<&str>) -> Option<Trouble> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    if scheduled.status != "False" || scheduled.reason.as_deref() != Some("Unschedulable") {
        return None;
    }
    let message = scheduled.message.clone().unwrap_or_default();
    let lacks_gpu = resource.is_some_and(|name| message.contains(&format!("Insufficient {name}")));
    let reason = if lacks_gpu { Reason::InsufficientGPU } else { Reason::Unschedulable };
    let name = pod.metadata.name.clone().unwrap_or_default();
    Some(Trouble { reason, message: format!("{name}: {message}") })
}

fn stuck(pod: &Pod) -> Vec<Trouble> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    statuses(pod).filter_map(|container| stuck_container(name, container)).collect()
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status: &PodStatus| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    })
}

fn stuck_container(pod: &str, container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            Reason::ImagePullFailed
        }
        "CrashLoopBackOff" | "RunContainerError" | "CreateContainerError" | "CreateContainerConfigError" => {
            Reason::CrashLooping
        }
        _ => return None,
    };
    let message = waiting.message.clone().unwrap_or_default();
    Some(Trouble { reason, message: format!("{pod}, container {}: {message}", container.name) })
}

/// The pods as the exchange sees them.
pub fn sights(pods: &[Arc<Pod>]) -> Vec<PodSight> {
    pods.iter().filter_map(|pod| sight(pod)).collect()
}

fn sight(pod: &Pod) -> Option<PodSight> {
    let running = statuses(pod).any(|container| {
        container.name == SIDECAR && container.state.as_ref().is_some_and(|s| s.running.is_some())
    });
    let status = pod.status.as_ref();
    let ip: Option<IpAddr> = status.and_then(|status| status.pod_ip.as_ref()?.parse().ok());
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    Some(PodSight {
        uid: pod.metadata.uid.clone()?,
        name: pod.metadata.name.clone()?,
        ip: ip.filter(|_| running),
        ready: conditions
            .into_iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        terminating: pod.metadata.deletion_timestamp.is_some(),
    })
}
