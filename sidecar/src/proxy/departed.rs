//! Tells when an exchange may be cut whose client has left before its first byte.
//!
//! Ollama never lets go of a request that is cut before its scheduler has given it to a runner. So it is cut only when
//! that has happened for certain; whatever is in doubt is held.

use std::sync::Arc;
use std::time::Duration;

use corral_limiter::queue::Strain;
use parking_lot::MutexGuard;
use tokio::time::{Instant, sleep};

use super::Proxy;
use super::models::{Sent, Times};
use super::pulse::Pulse;
use super::residency::{Head, Need, Residency};

/// However short [`super::ProxySettings::hold_loaded`] is.
pub(crate) const SHORTEST: Duration = Duration::from_millis(10);

/// The place of one request among all that Ollama has been sent. Dropped: it is over, or cut.
pub(crate) struct Flight<'a> {
    proxy: &'a Proxy,
    need: Need,
    id: u64,
    sent: Sent,
    pub(crate) pulse: Arc<Pulse>,
}

impl<'a> Flight<'a> {
    /// A request is sent now.
    pub(crate) fn begin(proxy: &'a Proxy, need: Need) -> Self {
        let now = Instant::now();
        let mut residency = proxy.residency.lock();
        let sent = Sent { at: now, alone: !residency.is_used(&need.model) };
        let (id, pulse) = residency.dispatched(need.clone(), now);
        Self { proxy, need, id, sent, pulse }
    }

    /// Its answer begins.
    pub(crate) fn answered(&self, head: Head) {
        self.residency().answered(self.id, head, Instant::now());
    }

    /// Its answer shows that Ollama has too much.
    pub(crate) fn strained(&self, sign: Strain) {
        self.proxy.core.strain(&self.need.model, sign);
    }

    /// Its answer is complete, and tells its times.
    pub(crate) fn took(&self, times: Times) {
        self.proxy.models.answered(&self.proxy.core, &self.need.model, times, self.sent);
    }

    /// Whether it is certain that Ollama has it on a runner.
    pub(crate) fn is_aboard(&self) -> bool {
        self.residency().is_aboard(self.id, Instant::now())
    }

    /// Its client takes the answer more slowly than Ollama gives it.
    pub(crate) fn lagging(&self) {
        self.residency().lagging(self.id, Instant::now());
    }

    /// Waits until it is certain that Ollama has it on a runner: [`super::lookout`] finds out.
    pub(crate) async fn scheduled(&self, proxy: &Proxy) {
        let every = (proxy.settings.hold_loaded / 4).max(SHORTEST);
        while !self.is_aboard() {
            sleep(every).await;
        }
    }

    fn residency(&self) -> MutexGuard<'a, Residency> {
        self.proxy.residency.lock()
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.residency().ended(self.id, Instant::now());
    }
}
