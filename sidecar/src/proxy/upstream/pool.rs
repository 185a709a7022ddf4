//! Idle connections, the last used on top.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Lease;

/// The most idle connections kept.
const MAX_IDLE: usize = 64;
/// The longest that one is kept idle. Ollama closes none, but it may have been restarted meanwhile.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The idle connections, oldest first.
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<(Lease, Instant)>>,
}

impl Pool {
    /// The connection used last that is still good.
    pub(super) fn take(&self) -> Option<Lease> {
        let mut idle = self.idle.lock();
        let oldest = Instant::now().checked_sub(IDLE_TIMEOUT);
        while let Some((lease, since)) = idle.pop() {
            if oldest.is_some_and(|oldest| since < oldest) {
                // All others are older still.
                idle.clear();
                return None;
            }
            if lease.sender.is_ready() {
                return Some(lease);
            }
        }
        None
    }

    pub(super) fn put(&self, lease: Lease) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE && !lease.sender.is_closed() {
            idle.push((lease, Instant::now()));
        }
    }
}
