//! The exchange, as a pod answers it: a signed directive comes in, a signed report goes out.
//!
//! | answer | when | body |
//! | --- | --- | --- |
//! | 200 | obeyed | signed report |
//! | 409 | genuine, but not above what was obeyed | signed report, whose position lets a leader jump above it |
//! | 400 | not a signed directive, or one that cannot be read | one line |
//! | 401 | no key of the pool made the signature | one line |
//! | 413 | more than [`MAX_DIRECTIVE_BYTES`] | one line |
//! | 429 | its source has two under way, or all sources together 32 (see [`crate::admin`]) | one line |
//! | 421 | genuine, but for another pod or pool | one line |
//! | 503 | there are no keys yet | one line |
//!
//! A plan that this build cannot read or compile does not spoil the rest of its directive: D and `serve` are obeyed,
//! the last good plan stays, and the report says why.

pub mod keys;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corral_limiter::ModelName;
use corral_wire::exchange::{MAX_DIRECTIVE_BYTES, MAX_MODELS, MAX_OFF_GPU, MAX_REPORT_BYTES};
use corral_wire::{
    Directive, PLAN_VERSION, PlanState, PoolKeys, PoolRef, Position, Purpose, Report, ServePermission,
    Signed, VerifyError,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{debug, warn};

pub use keys::KeyError;

use crate::core::Core;
use crate::metrics::DirectiveResult;
use crate::plan::read::{from_value, named};
use crate::plan::{Orders, PlanStore};

/// The longest name of a model that is told, in bytes.
const MAX_MODEL_BYTES: usize = 128;

/// Answers directives. It verifies, compiles and writes to the disk: hand it to a blocking thread.
pub struct Exchange {
    keys_dir: PathBuf,
    pod_uid: String,
    store: Arc<PlanStore>,
    epoch: u64,
}

/// What goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A signed report.
    Report(StatusCode, Signed),
    /// No report: whoever asked has not shown that it may have one.
    Refusal(StatusCode, String),
}

/// A directive with its plan still unread, and whatever else a newer operator may say left alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Received {
    pool: PoolRef,
    #[serde(default)]
    plan: Option<Value>,
    divisor: NonZeroU32,
    serve: ServePermission,
    #[serde(default)]
    relief: bool,
    #[serde(default)]
    retire: bool,
}

impl Purpose for Received {
    const DOMAIN: &'static str = Directive::DOMAIN;
}

impl Exchange {
    /// For the pod `pod_uid`, with the keys in `keys_dir`. `epoch` marks this life of the process.
    pub fn new(keys_dir: PathBuf, pod_uid: String, store: Arc<PlanStore>, epoch: u64) -> Self {
        Self { keys_dir, pod_uid, store, epoch }
    }

    /// Answers the body of one request.
    pub fn answer(&self, body: &[u8]) -> Reply {
        let (reply, result) = match self.obey(body) {
            Ok((reply, result)) => (reply, result),
            Err((status, why)) => {
                debug!(%status, why, "directive refused");
                (Reply::Refusal(status, why), DirectiveResult::Refused)
            }
        };
        self.store.core().metrics.directive(result);
        reply
    }

    fn obey(&self, body: &[u8]) -> Result<(Reply, DirectiveResult), (StatusCode, String)> {
        if body.len() > MAX_DIRECTIVE_BYTES {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "a directive is smaller".to_owned()));
        }
        let signed: Signed = serde_json::from_slice(body)
            .map_err(|_| (StatusCode::BAD_REQUEST, "this is no signed directive".to_owned()))?;
        // Read each time: two small files in memory, and a rotated key counts at once.
        let keys = keys::read(&self.keys_dir).map_err(|e| {
            warn!(error = %e, "the keys of the pool cannot be read");
            (StatusCode::SERVICE_UNAVAILABLE, "this pod has no keys yet".to_owned())
        })?;
        self.store.core().take_keys(&keys);
        let received: Received = keys.open(&self.pod_uid, None, &signed).map_err(|error| refusal(&error))?;
        if received.pool != *self.store.pool() {
            let line = format!("this pod belongs to pool {}", named(self.store.pool()));
            return Err((StatusCode::MISDIRECTED_REQUEST, line));
        }
        let obeyed = self.store.obey(signed.position, received.orders());
        let (status, result) = match obeyed {
            Ok(()) => (StatusCode::OK, DirectiveResult::Obeyed),
            Err(_) => (StatusCode::CONFLICT, DirectiveResult::Behind),
        };
        let report = self.signed_report(&keys, signed.position)?;
        Ok((Reply::Report(status, report), result))
    }

    fn signed_report(&self, keys: &PoolKeys, answers: Position) -> Result<Signed, (StatusCode, String)> {
        let (mut report, obeyed) = self.report();
        loop {
            let signed = keys
                .sign_answer(&self.pod_uid, obeyed, answers, &report)
                .map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
            if fits(&signed) || !shorten(&mut report) {
                return Ok(signed);
            }
        }
    }

    fn report(&self) -> (Report, Position) {
        let core = self.store.core();
        let view = self.store.view();
        let readiness = core.health.readiness();
        let plan =
            core.plan().map(|plan| PlanState { sequence: plan.sequence(), digest: plan.digest().to_owned() });
        let report = Report {
            pool: self.store.pool().clone(),
            plan_versions: vec![PLAN_VERSION],
            plan,
            plan_error: view.plan_error,
            divisor: core.divisor().get(),
            serve: if view.serve { ServePermission::Granted } else { ServePermission::Wait },
            able_to_serve: core.health.able_to_serve(),
            ready: readiness.ready(),
            reason: readiness.reason.word().to_owned(),
            relief: core.desk.view().relief,
            retiring: core.health.retiring(),
            draining: core.health.draining(),
            drain_left_ms: core.health.drain_left(Instant::now()).map(millis),
            off_gpu: core.health.off_gpu().into_iter().take(MAX_OFF_GPU).collect(),
            models: loaded(core),
            epoch: self.epoch,
            counters: core.counters(),
            gauges: core.gauges(),
        };
        (report, view.obeyed)
    }
}

impl Received {
    fn orders(self) -> Orders {
        Orders {
            plan: self.plan.map(from_value),
            divisor: self.divisor,
            serve: self.serve,
            relief: self.relief,
            retire: self.retire,
        }
    }
}

/// The models that are loaded, as far as is known.
fn loaded(core: &Core) -> Vec<String> {
    let cut = |model: ModelName| {
        let name = model.as_str();
        name.get(..name.floor_char_boundary(MAX_MODEL_BYTES)).unwrap_or(name).to_owned()
    };
    core.loaded_models().into_iter().take(MAX_MODELS).map(cut).collect()
}

fn fits(signed: &Signed) -> bool {
    serde_json::to_vec(signed).is_ok_and(|text| text.len() <= MAX_REPORT_BYTES)
}

/// Leaves one thing out that others are worth more than. Says whether there was one.
fn shorten(report: &mut Report) -> bool {
    report.models.pop().is_some() || report.off_gpu.pop().is_some()
}

fn millis(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn refusal(error: &VerifyError) -> (StatusCode, String) {
    let status = match error {
        VerifyError::BadSignature => StatusCode::UNAUTHORIZED,
        VerifyError::OtherPod { .. } => StatusCode::MISDIRECTED_REQUEST,
        VerifyError::OtherQuestion | VerifyError::BadBody(_) => StatusCode::BAD_REQUEST,
    };
    (status, error.to_string())
}

#[cfg(test)]
#[path = "exchange/tests.rs"]
mod tests;
