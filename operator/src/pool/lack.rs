//! Why no activator of a pool holds what comes, where none does: what Kubernetes says of their pods. Pure.

use std::sync::Arc;

use corral_crds::condition::Reason;
use corral_wire::ports;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;

use super::observe::{Trouble, is_ready, trouble};
use super::obstacle::rejected;

/// The most pods of a kind that are named.
const NAMED: usize = 3;

/// How a pod stands that Kubernetes sees nothing wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Ready,
    Runs,
    Begins,
}

/// What is missing, and what to do. One that is ready is taken to be one that is not heard.
pub(super) fn lack(deployment: Option<&Deployment>, pods: &[Arc<Pod>]) -> String {
    let live: Vec<&Pod> = pods.iter().map(Arc::as_ref).filter(|pod| is_live(pod)).collect();
    let status = deployment.and_then(|deployment| deployment.status.as_ref());
    let refused = status.and_then(rejected).map(|why| format!("its pods are refused: {why}"));
    let troubles = live.iter().filter_map(|pod| trouble(pod)).map(in_words).take(NAMED);
    let unheard = format!(
        "ready, but not heard: the operator must reach port {} of it, which a NetworkPolicy or a mesh may close",
        ports::ADMIN
    );
    let rest = [
        (Standing::Ready, unheard.as_str()),
        (Standing::Runs, "runs, and is not ready: its log says why"),
        (Standing::Begins, "does not run yet"),
    ];
    let rest = rest.into_iter().filter_map(|(standing, what)| named(&live, standing, what));
    let all: Vec<String> = refused.into_iter().chain(troubles).chain(rest).collect();
    if all.is_empty() { "it has no pod".to_owned() } else { all.join("; ") }
}

fn is_live(pod: &Pod) -> bool {
    !matches!(phase(pod), Some("Succeeded" | "Failed")) && pod.metadata.deletion_timestamp.is_none()
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref().and_then(|status| status.phase.as_deref())
}

fn in_words(Trouble { reason, message }: Trouble) -> String {
    if reason == Reason::Unschedulable {
        return format!("{message} (an activator asks for no GPU, and tolerates no taint)");
    }
    message
}

fn standing(pod: &Pod) -> Option<Standing> {
    if trouble(pod).is_some() {
        return None;
    }
    Some(match phase(pod) {
        _ if is_ready(pod) => Standing::Ready,
        Some("Running") => Standing::Runs,
        _ => Standing::Begins,
    })
}

/// Those that stand like this, by name.
fn named(pods: &[&Pod], like: Standing, what: &str) -> Option<String> {
    let found = pods.iter().filter(|pod| standing(pod) == Some(like));
    let names: Vec<&str> = found.filter_map(|pod| pod.metadata.name.as_deref()).take(NAMED).collect();
    (!names.is_empty()).then(|| format!("{}: {what}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, status: &Value) -> Arc<Pod> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap())
    }

    fn running(name: &str, ready: &str) -> Arc<Pod> {
        pod(name, &json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}))
    }

    #[test]
    fn each_thing_that_may_be_wrong_is_told_with_what_it_is_about() {
        assert_eq!(lack(None, &[]), "it has no pod");
        let quota = json!({"status": {"conditions": [{"type": "ReplicaFailure", "status": "True",
            "message": "exceeded quota: small"}]}});
        let quota: Deployment = serde_json::from_value(quota).unwrap();
        assert_eq!(lack(Some(&quota), &[]), "its pods are refused: exceeded quota: small");
        let homeless = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/3 nodes are available: 3 had untolerated taint {gpu}"}]});
        assert_eq!(
            lack(None, &[pod("a", &homeless)]),
            "a: 0/3 nodes are available: 3 had untolerated taint {gpu} (an activator asks for no GPU, and tolerates \
             no taint)"
        );
        let pull = json!({"phase": "Pending", "containerStatuses": [{"name": "activator", "image": "x", "imageID": "",
            "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image x"}}}]});
        assert_eq!(lack(None, &[pod("a", &pull)]), "a, container activator: Back-off pulling image x");
        assert_eq!(lack(None, &[pod("a", &json!({"phase": "Pending"}))]), "a: does not run yet");
        assert_eq!(
            lack(None, &[running("a", "False"), running("b", "True"), running("c", "True")]),
            "b, c: ready, but not heard: the operator must reach port 11436 of it, which a NetworkPolicy or a mesh may \
             close; a: runs, and is not ready: its log says why"
        );
    }

    #[test]
    fn pods_at_their_end_are_none() {
        let mut ends = running("a", "True");
        let time = serde_json::from_value(json!("2026-07-06T06:00:00Z")).unwrap();
        Arc::make_mut(&mut ends).metadata.deletion_timestamp = Some(time);
        assert_eq!(lack(None, &[ends, pod("b", &json!({"phase": "Failed"}))]), "it has no pod");
    }
}
