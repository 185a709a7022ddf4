//! What the operator tells an activator, and hears of it: a signed duty comes in, a signed account of what is held goes out.
//!
//! | answer | when | body |
//! | --- | --- | --- |
//! | 200 | obeyed | signed [`Holding`], at once or when there is something to hear |
//! | 409 | genuine, but not above what was obeyed | signed [`Holding`], at once |
//! | 400, 401, 413, 421, 503 | as for a directive, see [`crate::exchange`] | one line |

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corral_wire::activation::{MAX_DUTY_BYTES, MAX_PATIENCE};
use corral_wire::{Duty, Holding, PoolKeys, PoolRef, Position, Signed};
use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::hold::{Hold, Ways};
use crate::core::Core;
use crate::exchange::{Reply, keys, refusal};

/// A crowd comes within moments: the operator hears of all of it, not of its first.
const GATHER: Duration = Duration::from_millis(20);

/// Answers duties. It reads keys from the disk: hand what blocks to a blocking thread.
pub struct Activation {
    keys_dir: PathBuf,
    pod_uid: String,
    pool: PoolRef,
    epoch: u64,
    core: Arc<Core>,
    hold: Arc<Hold>,
    ways: Ways,
    obeyed: Mutex<Position>,
}

/// Who an activator is.
pub(super) struct Identity {
    pub(super) keys_dir: PathBuf,
    pub(super) pod_uid: String,
    pub(super) pool: PoolRef,
    /// Marks this life of the process.
    pub(super) epoch: u64,
}

/// An answer that is owed.
pub struct Owed {
    status: StatusCode,
    asked: Position,
    /// How long it may be kept back, and while no more than so many are held.
    patience: Duration,
    wake_above: u32,
}

impl Owed {
    /// Whether it may be kept back at all.
    pub fn may_be_kept(&self) -> bool {
        !self.patience.is_zero()
    }
}

impl Activation {
    pub(super) fn new(identity: Identity, core: Arc<Core>, hold: Arc<Hold>, ways: Ways) -> Self {
        let Identity { keys_dir, pod_uid, pool, epoch } = identity;
        Self { keys_dir, pod_uid, pool, epoch, core, hold, ways, obeyed: Mutex::default() }
    }

    /// Takes the body of one request. Blocks for a moment.
    pub fn obey(&self, body: &[u8]) -> Result<Owed, Reply> {
        self.take(body).map_err(|(status, why)| {
            tracing::debug!(%status, why, "duty refused");
            Reply::Refusal(status, why)
        })
    }

    fn take(&self, body: &[u8]) -> Result<Owed, (StatusCode, String)> {
        if body.len() > MAX_DUTY_BYTES {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "a duty is smaller".to_owned()));
        }
        let signed: Signed = serde_json::from_slice(body)
            .map_err(|_| (StatusCode::BAD_REQUEST, "this is no signed duty".to_owned()))?;
        let keys = self.keys()?;
        self.core.take_keys(&keys);
        let duty: Duty = keys.open(&self.pod_uid, None, &signed).map_err(|error| refusal(&error))?;
        if duty.pool != self.pool {
            let line = "this activator belongs to another pool".to_owned();
            return Err((StatusCode::MISDIRECTED_REQUEST, line));
        }
        Ok(self.follow(&duty, signed.position))
    }

    /// Under the lock, so that the later of two is the one that stays.
    fn follow(&self, duty: &Duty, at: Position) -> Owed {
        let mut obeyed = self.obeyed.lock();
        if at <= *obeyed {
            let status = StatusCode::CONFLICT;
            return Owed { status, asked: at, patience: Duration::ZERO, wake_above: 0 };
        }
        *obeyed = at;
        self.hold.obey(duty, &self.ways);
        Owed {
            status: StatusCode::OK,
            asked: at,
            patience: Duration::from_millis(duty.patience_ms).min(MAX_PATIENCE),
            wake_above: duty.wake_above,
        }
    }

    fn keys(&self) -> Result<PoolKeys, (StatusCode, String)> {
        keys::read(&self.keys_dir).map_err(|error| {
            warn!(%error, "the keys of the pool cannot be read");
            (StatusCode::SERVICE_UNAVAILABLE, "this activator has no keys yet".to_owned())
        })
    }

    /// Waits until there is something to hear, or for as long as the answer may be kept back.
    pub async fn news(&self, owed: &Owed) {
        if timeout(owed.patience, self.hold.above(owed.wake_above)).await.is_ok() {
            sleep(GATHER).await;
        }
    }

    /// The answer. Blocks for a moment.
    pub fn answer(&self, owed: &Owed) -> Reply {
        let signed = self.keys().and_then(|keys| {
            let obeyed = *self.obeyed.lock();
            keys.sign_answer(&self.pod_uid, obeyed, owed.asked, &self.holding())
                .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        });
        match signed {
            Ok(signed) => Reply::Report(owed.status, signed),
            Err((status, why)) => Reply::Refusal(status, why),
        }
    }

    fn holding(&self) -> Holding {
        let (gauges, counters) = (self.hold.gauges(), self.core.counters());
        Holding {
            pool: self.pool.clone(),
            epoch: self.epoch,
            arrivals: counters.arrivals,
            refused: counters.capacity_rejects,
            requests: gauges.requests,
            bytes: gauges.bytes,
            oldest_wait_ms: gauges.oldest_wait.0 / 1_000_000,
            forwarding: gauges.forwarding,
            ready_pods: gauges.ready_pods,
        }
    }
}
