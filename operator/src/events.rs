//! Events: what a person sees under `kubectl describe`. One is sent when a condition flips, and never decides anything.

use std::collections::HashMap;
use std::sync::Arc;

use corral_crds::status::ScalingDecision;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use parking_lot::Mutex;

use crate::names::MANAGER;

/// The most bytes of a note; the API server refuses more than 1024.
const MAX_NOTE_BYTES: usize = 1000;
/// The most notes that are remembered as told; beyond it all are forgotten, and told as new ones.
const MAX_NOTES: usize = 512;

/// Sends events.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
    /// One for each note: a recorder takes what happens to one object for one reason for a series, and shows its first
    /// note for all of it. A series of ours is of equal notes.
    recorders: Arc<Mutex<HashMap<String, Recorder>>>,
}

impl Events {
    /// Sends as `instance`, this process.
    pub fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(instance) };
        Self { client, reporter, recorders: Arc::default() }
    }

    fn recorder(&self, note: &str) -> Recorder {
        let mut recorders = self.recorders.lock();
        if recorders.len() >= MAX_NOTES && !recorders.contains_key(note) {
            recorders.clear();
        }
        let fresh = || Recorder::new(self.client.clone(), self.reporter.clone());
        recorders.entry(note.to_owned()).or_insert_with(fresh).clone()
    }

    /// Tells of each condition that is not as it was: another status, or another reason.
    pub async fn tell(&self, about: &ObjectReference, before: &[Condition], after: &[Condition]) {
        // What is still being brought about is what keeps the pool from being ready, and told already.
        for condition in after.iter().filter(|condition| condition.type_ != "Reconciling") {
            let old = before.iter().find(|old| old.type_ == condition.type_);
            let same =
                old.is_some_and(|old| old.status == condition.status && old.reason == condition.reason);
            if !same && is_news(condition, old) {
                self.send(about, condition).await;
            }
        }
    }

    /// Tells of a change of a pool's size.
    pub async fn scaled(&self, about: &ObjectReference, decision: &ScalingDecision) {
        let ScalingDecision { from, to, message, .. } = decision;
        let note = cut(&format!("from {from} to {to}: {message}"));
        let reason = if to > from { "ScaledUp" } else { "ScaledDown" };
        self.publish(about, (EventType::Normal, reason, "Scale"), note).await;
    }

    /// Tells that `spec.replicas` was changed for nothing: whoever did so was told that it was done.
    pub async fn overruled(&self, about: &ObjectReference, replicas: i32) {
        let note = format!(
            "spec.replicas is {replicas} now, which changes nothing: the pool scales itself. \
             autoscaling.minReplicas and maxReplicas bound it; with autoscaling.mode Disabled spec.replicas is its size"
        );
        self.publish(about, (EventType::Warning, "ReplicasIgnored", "Scale"), note).await;
    }

    async fn send(&self, about: &ObjectReference, condition: &Condition) {
        let note = cut(&format!("{}={}: {}", condition.type_, condition.status, condition.message));
        let kind = if is_warning(condition) { EventType::Warning } else { EventType::Normal };
        self.publish(about, (kind, &condition.reason, "Reconcile"), note).await;
    }

    async fn publish(
        &self,
        about: &ObjectReference,
        (type_, reason, action): (EventType, &str, &str),
        note: String,
    ) {
        let recorder = self.recorder(&note);
        let (reason, action) = (reason.to_owned(), action.to_owned());
        let event = Event { type_, reason, note: Some(note), action, secondary: None };
        if let Err(error) = recorder.publish(&event, about).await {
            tracing::debug!(%error, "an event was not sent");
        }
    }
}

/// What is on its way is no news, nor that nothing has ever been wrong, nor what comes and goes with a pool's load: each change
/// of its size is told by itself.
fn is_news(condition: &Condition, old: Option<&Condition>) -> bool {
    match condition.reason.as_str() {
        "Reconciling" | "Starting" | "RollingOut" | "UpToDate" | "Disabled" | "External"
        | "DesiredWithinRange" | "TooFewReplicas" | "RolloutInProgress" => false,
        "AllOnGPU" | "ScalingActive" | "ReportsHeard" => old.is_some(),
        _ => true,
    }
}

/// Most conditions say that something is as it should be; some say that it is not.
fn is_warning(condition: &Condition) -> bool {
    let says_wrong =
        ["GPUFallback", "ScalingLimited", "AutoscalingConflict"].contains(&condition.type_.as_str());
    let wrong = if says_wrong { "True" } else { "False" };
    condition.status == wrong
}

fn cut(note: &str) -> String {
    let end = (0..=MAX_NOTE_BYTES.min(note.len())).rev().find(|end| note.is_char_boundary(*end));
    note.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}
