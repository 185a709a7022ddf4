//! The exchange: what the leading operator tells a pod, and what the pod answers.
//!
//! Both are snapshots that carry all they need: a missed one loses nothing, a repeated one changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::{PlanDoc, PoolRef};

/// The most bytes of a signed [`Report`]; a longer one is not read.
pub const MAX_REPORT_BYTES: usize = 4096;
/// The most bytes of a signed [`Directive`]: a plan is at most 900 KiB (it must fit a Secret), plus its envelope.
pub const MAX_DIRECTIVE_BYTES: usize = 1024 * 1024;
/// How long [`Directive::relief`] holds, from when the pod hears of it. Without a fresh one the pod is ready again.
pub const RELIEF_LEASE: Duration = Duration::from_secs(10);
/// How long [`Directive::retire`] holds, from when the pod hears of it. Without a fresh one the pod is ready again.
pub const RETIRE_LEASE: Duration = Duration::from_secs(10);
/// The most [`Report::off_gpu`] names.
pub const MAX_OFF_GPU: usize = 4;
/// The most [`Report::models`] names.
pub const MAX_MODELS: usize = 8;

/// What the leading operator tells one pod. The position (term, sequence) that orders it is in its envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Directive {
    /// The pool the pod is told for: a pod of another pool refuses it.
    pub pool: PoolRef,
    /// The plan, when the pod's last report did not show it in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanDoc>,
    /// D: how many pods share each `scope: Pool` limit. At least 1.
    pub divisor: u32,
    /// Whether the pod may be ready. Once given it holds for the pod's life.
    pub serve: ServePermission,
    /// Whether the pod may be out of its Service for its load, for [`RELIEF_LEASE`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub relief: bool,
    /// Whether the pod is to leave its Service because it is chosen to go, for [`RETIRE_LEASE`]: it finishes what it has
    /// and refuses nobody for it. False ends it at once. It is not kept on disk.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retire: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Whether a pod has been counted into D, and so may serve. It is no lease: a granted one is never taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServePermission {
    /// Not yet: the others have not all taken the D that counts this pod.
    #[default]
    Wait,
    /// Serve.
    Granted,
}

/// What a pod answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what is on the wire stays: each is one answer to one question"
)]
pub struct Report {
    /// The pool the pod belongs to.
    pub pool: PoolRef,
    /// The plan versions this build reads.
    pub plan_versions: Vec<u32>,
    /// The plan in force; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanState>,
    /// Why the newest plan offered was not taken, in words; the last good one stays in force. At most 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_error: Option<String>,
    /// D in force.
    pub divisor: u32,
    /// Whether the pod has been told to serve.
    pub serve: ServePermission,
    /// Everything but `serve` is there: Ollama answers.
    pub able_to_serve: bool,
    /// Whether `/readyz` says yes.
    pub ready: bool,
    /// Why it is not ready, one word of the readiness table; empty when it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether it is out of its Service for its load, or would be.
    #[serde(default)]
    pub relief: Relief,
    /// Whether it obeys an order to leave its Service because it is chosen to go, now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retiring: bool,
    /// Whether the pod has begun to drain.
    pub draining: bool,
    /// The longest that a drain which has begun still takes, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_left_ms: Option<u64>,
    /// Models that are loaded, and not wholly on the GPU, of a pod that has one; at most [`MAX_OFF_GPU`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub off_gpu: Vec<OffGpu>,
    /// Models that are loaded, each name cut at 128 bytes; at most [`MAX_MODELS`], and no more than fit the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Marks one life of the process: counters start at 0 when it changes.
    pub epoch: u64,
    /// What has happened since the epoch began.
    pub counters: Counters,
    /// How things stand now.
    pub gauges: Gauges,
}

/// How a pod stands to being out of its Service for its load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relief {
    /// Its load is no reason to be.
    #[default]
    Unneeded,
    /// It would be, and may not.
    Wanted,
    /// It is.
    Taken,
}

/// A model that is not wholly on the GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffGpu {
    /// Its name, cut at 128 bytes.
    pub model: String,
    /// How much of it is on the GPU, in percent, rounded down; at most 99.
    pub gpu_percent: u8,
}

/// Names the plan in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanState {
    /// Its sequence.
    pub sequence: u64,
    /// [`PlanDoc::digest`] of it: equal sequences with unequal digests are different plans.
    pub digest: String,
}

/// Counts since the epoch began; each only grows within it.
///
/// All but `looks` are about requests for inference (chat, generate, embed): what needs no slot, such as `/api/tags`, is in
/// none of them. A request is one arrival however often Ollama is sent it, and a long list to embed is one however many parts it
/// is sent in:
///
/// | what becomes of it | `arrivals` | `retries` | `policy_rejects` | `capacity_rejects` | `completions` |
/// | --- | --- | --- | --- | --- | --- |
/// | Ollama answers it in full, with success | 1 | if it says so | | | 1 |
/// | it waits or runs | 1 | if it says so | | | |
/// | its client leaves, Ollama fails it, or a drain cuts it | 1 | if it says so | | | |
/// | the queue refuses it: full, wait too long, pushed out, timed out, deadline | 1 | if it says so | | 1 | |
/// | a limit refuses it as it comes: by its head or its body, for now (429) or for ever (400) | 1 | | 1 | | |
/// | a limit that it waits for refuses it in the end | 1 | if it says so | 1, then | | |
/// | refused for something else: no such endpoint, a bad head or body, no API key, no room for its body, 503 | | | | | |
///
/// So what a window has asked of a pool is `arrivals - policy_rejects`, less those retries that ask once more for what the
/// queue has refused: `min(retries, capacity_rejects)`, summed over all pods first, for a retry may come to another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Requests about which limits and queue have decided, whatever they said.
    pub arrivals: u64,
    /// Of the arrivals that no limit refused as they came, those that say that they are a retry: their
    /// `x-stainless-retry-count` is above 0.
    pub retries: u64,
    /// Requests that Ollama has answered in full, with success.
    pub completions: u64,
    /// Requests that the queue has refused, on arrival or after a wait; one each.
    pub capacity_rejects: u64,
    /// Requests that a limit has refused; one each.
    pub policy_rejects: u64,
    /// Milliseconds that slots were held, summed over slots; counted when a slot comes back, whatever became of its
    /// request. Slots that are held still are not in it.
    pub slot_millis: u64,
    /// Requests that ended with a slot, which so came back; whatever became of them. One each, however often it had one
    /// before; 0 of a sidecar that does not count them.
    pub releases: u64,
    /// Tokens of prompts that were charged.
    pub tokens_in: u64,
    /// Tokens of answers that were charged.
    pub tokens_out: u64,
    /// Requests that an activator would hold and that ask for no slot, such as lists of models; also those that a limit
    /// refuses, for an activator knows none. They are no work: they only say that a pool is in use. 0 of a sidecar that does
    /// not count them.
    pub looks: u64,
}

/// How things stand at the moment of the report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gauges {
    /// Slots per loaded model.
    pub slots: u32,
    /// Requests inside Ollama.
    pub in_flight: u32,
    /// Requests waiting for a slot.
    pub queued: u32,
    /// For how long all of them will probably hold their slots, summed, in milliseconds; an estimate.
    pub queued_cost_ms: u64,
    /// Age of the oldest waiting request, in milliseconds; 0 when none waits.
    pub oldest_wait_ms: u64,
    /// How long one more request would wait for a slot of the model that is waited for longest, in milliseconds; an
    /// estimate, and 0 while a slot is free or nothing is known.
    pub predicted_wait_ms: u64,
    /// The load index in thousandths: at 1000 one more request would wait as long as any may, or be refused.
    pub load_permille: u32,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool() -> PoolRef {
        PoolRef { namespace: "llm".into(), name: "chat".into() }
    }

    #[test]
    fn a_directive_that_orders_nothing_new_is_what_older_sidecars_know() {
        let serve = ServePermission::Granted;
        let plain = Directive { pool: pool(), plan: None, divisor: 2, serve, relief: false, retire: false };
        let written = json!({ "pool": pool(), "divisor": 2, "serve": "Granted" });
        assert_eq!(serde_json::to_value(&plain).unwrap(), written);
        assert_eq!(serde_json::from_value::<Directive>(written).unwrap(), plain);
        let ordered = serde_json::to_value(Directive { retire: true, ..plain }).unwrap();
        assert_eq!(ordered.get("retire"), Some(&Value::Bool(true)));
    }

    #[test]
    fn a_report_of_an_older_sidecar_says_that_it_does_not_retire_and_names_no_models() {
        let older = json!({
            "pool": pool(), "planVersions": [1], "divisor": 2, "serve": "Granted", "ableToServe": true, "ready": true,
            "draining": false, "epoch": 7, "counters": { "arrivals": 3, "completions": 2 }, "gauges": {},
        });
        let report: Report = serde_json::from_value(older).unwrap();
        assert_eq!((report.retiring, report.models.len(), report.counters.retries), (false, 0, 0));
        assert_eq!((report.counters.arrivals, report.counters.completions, report.counters.looks), (3, 2, 0));
        let written = serde_json::to_value(&report).unwrap();
        assert!(written.get("retiring").is_none() && written.get("models").is_none(), "{written}");
    }

    #[test]
    fn a_report_of_a_newer_sidecar_is_read_as_far_as_this_build_understands() {
        let newer = json!({
            "pool": pool(), "planVersions": [1], "divisor": 2, "serve": "Granted", "ableToServe": true, "ready": false,
            "reason": "Retiring", "retiring": true, "moonPhase": "full", "draining": false, "models": ["tiny:latest"],
            "epoch": 7, "counters": { "retries": 1, "tides": 2 }, "gauges": { "moons": 1 },
        });
        let report: Report = serde_json::from_value(newer).unwrap();
        assert_eq!(
            (report.retiring, report.models, report.counters.retries),
            (true, vec!["tiny:latest".into()], 1)
        );
    }
}
