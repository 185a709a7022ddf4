//! What keeps a pool from serving as asked, the gravest first: by Kubernetes' word, and by that of its pods. Pure.

use std::time::Duration;

use corral_crds::condition::Reason;
use k8s_openapi::api::apps::v1::DeploymentStatus;

use super::facts::Facts;
use crate::exchange::draining::Draining;

/// The most pods that a message names.
const NAMED: usize = 3;
/// To how many seconds the rest of a drain is rounded up: a message that counts every second would be written as often.
const ROUND_TO_SECONDS: u64 = 10;

/// What pods say of themselves, and what that means; those before the drains are graver than a drain.
const ENGINE: [(&str, Reason, &str); 3] = [
    ("OllamaDown", Reason::OllamaDown, "Ollama does not answer in"),
    ("Stalled", Reason::Stalled, "the model has stopped working in"),
    ("BreakerOpen", Reason::BreakerOpen, "Ollama fails what it is sent in"),
];
const LOAD: [(&str, Reason, &str); 2] = [
    ("Overloaded", Reason::Overloaded, "out of the Service for now, with more to do than it can in time:"),
    ("ModelLoading", Reason::ModelLoading, "out of the Service for now, loading a model:"),
];

/// What stands in the way; nothing where it is only a matter of time.
pub(super) fn obstacle(facts: &Facts<'_>, status: &DeploymentStatus) -> Option<(Reason, String)> {
    if let Some(message) = rejected(status) {
        return Some((Reason::PodRejected, message));
    }
    in_kubernetes(facts)
        .or_else(|| in_pods(facts, &ENGINE))
        .or_else(|| drains(facts).map(|message| (Reason::WaitingForDrain, message)))
        .or_else(|| in_pods(facts, &LOAD))
        .or_else(|| unreachable(facts))
        .or_else(|| late(status))
}

/// Pods that cannot start. A GPU that one which drains still holds is coming.
fn in_kubernetes(facts: &Facts<'_>) -> Option<(Reason, String)> {
    let trouble = facts.pods.troubles.first()?;
    if trouble.reason == Reason::InsufficientGPU && facts.pods.terminating > 0 {
        let ending = || "a pod that ends still holds the GPU of the next one".to_owned();
        return Some((Reason::WaitingForDrain, drains(facts).unwrap_or_else(ending)));
    }
    Some((trouble.reason, trouble.message.clone()))
}

fn in_pods(facts: &Facts<'_>, words: &[(&str, Reason, &str)]) -> Option<(Reason, String)> {
    words.iter().find_map(|(word, reason, what)| {
        let pods = said(facts, word);
        (!pods.is_empty()).then(|| (*reason, format!("{what} {}", pods.join(", "))))
    })
}

/// Pods that gave this reason for not being ready.
fn said<'a>(facts: &Facts<'a>, word: &str) -> Vec<&'a str> {
    let unready = facts.standing.map(|standing| standing.unready.as_slice()).unwrap_or_default();
    unready.iter().filter(|(_, reason)| reason == word).map(|(pod, _)| pod.as_str()).take(NAMED).collect()
}

/// What pods that have to go still do, and for how long at most; nothing where none does anything.
fn drains(facts: &Facts<'_>) -> Option<String> {
    let all = facts.standing.map(|standing| standing.draining.as_slice()).unwrap_or_default();
    let busy = all.iter().filter(|drain| drain.requests > 0);
    let told: Vec<String> = busy.map(|drain| told(drain, facts.now)).take(NAMED).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

fn told(drain: &Draining, now: Duration) -> String {
    let left = drain.until.saturating_sub(now).as_secs().saturating_add(1);
    let left = left.div_ceil(ROUND_TO_SECONDS).saturating_mul(ROUND_TO_SECONDS);
    let requests = if drain.requests == 1 { "request" } else { "requests" };
    format!("{}: {} {requests}, at most {left} s", drain.pod, drain.requests)
}

fn unreachable(facts: &Facts<'_>) -> Option<(Reason, String)> {
    let causes = facts.standing?.out_of_reach.clone()?;
    Some((Reason::SidecarUnreachable, causes))
}

fn late(status: &DeploymentStatus) -> Option<(Reason, String)> {
    let late = |_: &str, reason: &str| reason == "ProgressDeadlineExceeded";
    condition(status, "Progressing", late).map(|message| (Reason::ProgressDeadlineExceeded, message))
}

/// Why the API server does not let a Deployment's pods exist, if it does not.
pub(super) fn rejected(status: &DeploymentStatus) -> Option<String> {
    condition(status, "ReplicaFailure", |status, _| status == "True")
}

/// The message of a condition of the Deployment, if its status and reason are as wanted.
fn condition(status: &DeploymentStatus, kind: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<String> {
    let all = status.conditions.iter().flatten();
    let mut found = all.filter(|condition| condition.type_ == kind);
    let found = found.find(|c| wanted(&c.status, c.reason.as_deref().unwrap_or_default()))?;
    Some(found.message.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_told_in_tens_of_seconds_so_that_its_words_rarely_change() {
        let drain =
            |requests| Draining { pod: "chat-1".to_owned(), requests, until: Duration::from_secs(200) };
        let at = |seconds, requests| told(&drain(requests), Duration::from_secs(seconds));
        assert_eq!(at(58, 3), "chat-1: 3 requests, at most 150 s");
        assert_eq!(at(51, 3), at(58, 3));
        assert_eq!(at(61, 1), "chat-1: 1 request, at most 140 s");
        assert_eq!(at(300, 1), "chat-1: 1 request, at most 10 s");
    }
}
