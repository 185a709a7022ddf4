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
/// The most [`Report::off_gpu`] names.
pub const MAX_OFF_GPU: usize = 4;

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
    /// Whether the pod has begun to drain.
    pub draining: bool,
    /// The longest that a drain which has begun still takes, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_left_ms: Option<u64>,
    /// Models that are loaded, and not wholly on the GPU, of a pod that has one; at most [`MAX_OFF_GPU`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub off_gpu: Vec<OffGpu>,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Inference requests that reached the limits.
    pub arrivals: u64,
    /// Answers completed by Ollama.
    pub completions: u64,
    /// Refused because the queue was full or the wait too long.
    pub capacity_rejects: u64,
    /// Refused by a limit.
    pub policy_rejects: u64,
    /// Milliseconds that slots were held, summed over slots.
    pub slot_millis: u64,
    /// Tokens of prompts that were charged.
    pub tokens_in: u64,
    /// Tokens of answers that were charged.
    pub tokens_out: u64,
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
