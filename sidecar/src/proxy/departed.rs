//! Tells when an exchange may be cut whose client has left before its first byte.
//!
//! Ollama never lets go of a request that is cut before its scheduler has given it to a runner. So it is cut only when
//! that has happened for certain; whatever is in doubt is held.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::Proxy;
use super::pulse::Pulse;
use super::residency::{Head, Need, Residency};

/// However short [`super::ProxySettings::hold_loaded`] is.
pub(crate) const SHORTEST: Duration = Duration::from_millis(10);

/// The place of one request among all that Ollama has been sent. Dropped: it is over, or cut.
pub(crate) struct Flight<'a> {
    residency: &'a Mutex<Residency>,
    id: u64,
    pub(crate) pulse: Arc<Pulse>,
}

impl<'a> Flight<'a> {
    /// A request is sent now.
    pub(crate) fn begin(residency: &'a Mutex<Residency>, need: Need) -> Self {
        let (id, pulse) = residency.lock().dispatched(need, Instant::now());
        Self { residency, id, pulse }
    }

    /// Its answer begins.
    pub(crate) fn answered(&self, head: Head) {
        self.residency.lock().answered(self.id, head, Instant::now());
    }

    /// Whether it is certain that Ollama has it on a runner.
    pub(crate) fn is_aboard(&self) -> bool {
        self.residency.lock().is_aboard(self.id, Instant::now())
    }

    /// Its client takes the answer more slowly than Ollama gives it.
    pub(crate) fn lagging(&self) {
        self.residency.lock().lagging(self.id, Instant::now());
    }

    /// Waits until it is certain that Ollama has it on a runner: [`super::lookout`] finds out.
    pub(crate) async fn scheduled(&self, proxy: &Proxy) {
        let every = (proxy.settings.hold_loaded / 4).max(SHORTEST);
        while !self.residency.lock().is_aboard(self.id, Instant::now()) {
            sleep(every).await;
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.residency.lock().ended(self.id, Instant::now());
    }
}
