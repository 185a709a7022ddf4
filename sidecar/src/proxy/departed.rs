//! Tells when an exchange may be cut whose client has left before its first byte.
//!
//! Ollama never lets go of a request that is cut before its scheduler has given it to a runner. So it is cut only when
//! that has happened for certain; whatever is in doubt is held.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::Proxy;
use super::ps::{self, Listed};
use super::residency::{Head, Need, Residency};

/// However short [`super::ProxySettings::hold_loaded`] is.
const SHORTEST: Duration = Duration::from_millis(10);

/// The place of one request among all that Ollama has been sent. Dropped: it is over, or cut.
pub(crate) struct Flight<'a> {
    residency: &'a Mutex<Residency>,
    id: u64,
}

impl<'a> Flight<'a> {
    /// A request is sent now.
    pub(crate) fn begin(residency: &'a Mutex<Residency>, need: Need) -> Self {
        let id = residency.lock().dispatched(need, Instant::now());
        Self { residency, id }
    }

    /// Its answer begins.
    pub(crate) fn answered(&self, head: Head) {
        self.residency.lock().answered(self.id, head, Instant::now());
    }

    /// Its client takes the answer more slowly than Ollama gives it.
    pub(crate) fn stalled(&self) {
        self.residency.lock().stalled(self.id, Instant::now());
    }

    /// Waits until it is certain that Ollama has it on a runner.
    pub(crate) async fn scheduled(&self, proxy: &Proxy) {
        let every = proxy.settings.hold_loaded.max(SHORTEST);
        let mut earlier = self.look(proxy).await;
        loop {
            sleep(every).await;
            if self.residency.lock().is_aboard(self.id, Instant::now()) {
                return;
            }
            let now = self.look(proxy).await;
            if let (Some(earlier), Some(now)) = (&earlier, &now)
                && self.proven(earlier, now)
            {
                return;
            }
            earlier = now;
        }
    }

    /// Asks what is loaded, if the answer could prove anything.
    async fn look(&self, proxy: &Proxy) -> Option<Listed> {
        let useful = self.residency.lock().witnesses(self.id).is_some();
        if useful { ps::ask(&proxy.upstream).await } else { None }
    }

    fn proven(&self, earlier: &Listed, now: &Listed) -> bool {
        let witnesses = self.residency.lock().witnesses(self.id);
        witnesses.is_some_and(|models| models.iter().all(|model| now.settled_since(earlier, model)))
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.residency.lock().ended(self.id, Instant::now());
    }
}
