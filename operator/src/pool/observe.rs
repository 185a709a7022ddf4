//! What there is to see of a pool's pods.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use corral_crds::condition::Reason;
use corral_wire::PoolRef;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use kube::ResourceExt;
use kube::runtime::reflector::Store;

use crate::exchange::peer::{PodSight, Role};
use crate::names::{ACTIVATOR, ACTIVATOR_LABEL, POOL_LABEL, SIDECAR};

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
    found(store, namespace, |pod| label(pod).is_some_and(|label| label == pool))
}

/// The same of its activators. No pod of a pool is one, whatever labels it was given.
pub fn activators_of(store: &Store<Pod>, namespace: &str, pool: &str) -> Vec<Arc<Pod>> {
    let is_its = |pod: &Pod| pod.labels().get(ACTIVATOR_LABEL).is_some_and(|label| label == pool);
    found(store, namespace, |pod| is_its(pod) && label(pod).is_none())
}

fn found(store: &Store<Pod>, namespace: &str, is_wanted: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
    let is_ours = |pod: &Arc<Pod>| {
        pod.metadata.namespace.as_deref() == Some(namespace) && is_wanted(pod) && !has_ended(pod)
    };
    let mut pods: Vec<Arc<Pod>> = store.state().into_iter().filter(is_ours).collect();
    pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    pods
}

/// The same of every pool.
pub fn pods_by_pool(store: &Store<Pod>) -> HashMap<PoolRef, Vec<Arc<Pod>>> {
    let mut pools: HashMap<PoolRef, Vec<Arc<Pod>>> = HashMap::new();
    for pod in store.state().into_iter().filter(|pod| !has_ended(pod)) {
        let (Some(namespace), Some(name)) = (pod.metadata.namespace.clone(), label(&pod).cloned()) else {
            continue;
        };
        pools.entry(PoolRef { namespace, name }).or_default().push(pod);
    }
    pools
}

fn label(pod: &Pod) -> Option<&String> {
    pod.labels().get(POOL_LABEL)
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

/// What keeps one pod from serving, whatever resource it asks for.
pub fn trouble(pod: &Pod) -> Option<Trouble> {
    unschedulable(pod, None).or_else(|| stuck(pod).into_iter().next())
}

/// Whether a pod has a node.
pub fn is_placed(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

/// Whether a pod is being deleted.
pub fn is_dying(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn unschedulable(pod: &Pod, resource: Option<&str>) -> Option<Trouble> {
    let homeless = homeless(pod)?;
    let reason = if lacks(homeless, resource) { Reason::InsufficientGPU } else { Reason::Unschedulable };
    let name = pod.metadata.name.clone().unwrap_or_default();
    Some(Trouble { reason, message: format!("{name}: {}", homeless.message.as_deref().unwrap_or_default()) })
}

/// What the scheduler says of a pod that no node has room for.
pub fn homeless(pod: &Pod) -> Option<&PodCondition> {
    let scheduled = condition(pod, "PodScheduled")?;
    let is = scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable");
    is.then_some(scheduled)
}

/// Whether it is this extended resource that the nodes have too little of.
pub fn lacks(homeless: &PodCondition, resource: Option<&str>) -> bool {
    let message = homeless.message.as_deref().unwrap_or_default();
    resource.is_some_and(|name| message.contains(&format!("Insufficient {name}")))
}

/// A pod's condition of this type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
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

/// Whether Kubernetes calls a pod ready.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Pods of one role as the exchange sees them.
pub fn sights(pods: &[Arc<Pod>], role: Role) -> Vec<PodSight> {
    pods.iter().filter_map(|pod| sight(pod, role)).collect()
}

fn sight(pod: &Pod, role: Role) -> Option<PodSight> {
    let peer = match role {
        Role::Pod => SIDECAR,
        Role::Activator => ACTIVATOR,
    };
    let running = statuses(pod).any(|container| {
        container.name == peer && container.state.as_ref().is_some_and(|s| s.running.is_some())
    });
    let status = pod.status.as_ref();
    let ip: Option<IpAddr> = status.and_then(|status| status.pod_ip.as_ref()?.parse().ok());
    Some(PodSight {
        uid: pod.metadata.uid.clone()?,
        name: pod.metadata.name.clone()?,
        role,
        ip: ip.filter(|_| running),
        ready: is_ready(pod),
        terminating: pod.metadata.deletion_timestamp.is_some(),
    })
}
