//! The life of one request: who asks, for what, may it, may it now, and the answer.

pub(crate) mod admission;
mod body;
mod canary;
mod cors;
mod cross_site;
mod departed;
mod dice;
mod discard;
mod ending;
mod forward;
mod framing;
mod head;
mod headers;
mod identify;
mod inspect;
mod judge;
mod limits;
mod lookout;
mod ps;
mod pulse;
mod record;
mod refused;
mod request;
mod residency;
mod respond;
mod route;
mod settings;
mod tokens;
mod trouble;
mod upstream;
mod vigil;
mod wording;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use corral_limiter::{Nanos, Plan};
use parking_lot::Mutex;

pub(crate) use dice::Dice;
pub(crate) use framing::{Fault, Framing, MAX_HEAD};
pub(crate) use request::handle;
pub use settings::{ProxySettings, StallBounds};

use crate::core::Core;
use inspect::{Asked, BodyBudget};
use residency::Residency;
use route::Endpoint;
use tokens::{Learned, Reckoning};
use upstream::Upstream;

/// What all requests share.
pub(crate) struct Proxy {
    pub(crate) core: Arc<Core>,
    pub(crate) settings: ProxySettings,
    pub(crate) dice: Dice,
    upstream: Upstream,
    budget: BodyBudget,
    residency: Mutex<Residency>,
    learned: Mutex<Learned>,
}

impl Proxy {
    pub(crate) fn new(core: Arc<Core>, settings: ProxySettings) -> Self {
        let upstream = Upstream::new(settings.upstream, settings.connect_timeout);
        let budget = BodyBudget::new(settings.body_budget_bytes);
        let residency = Mutex::new(Residency::new(settings.hold_loaded));
        let learned = Mutex::default();
        Self { core, settings, dice: Dice::new(), upstream, budget, residency, learned }
    }

    /// Reckons what a request will probably cost; none where nothing is inferred, which takes no slot.
    fn reckon(&self, asked: &Asked<'_>, endpoint: &Endpoint) -> Option<Reckoning> {
        let plan = self.core.plan();
        let tokens = plan.as_deref().map(Plan::tokens).cloned().unwrap_or_default();
        Reckoning::of(asked, endpoint, &tokens, &self.learned.lock())
    }

    /// Watches Ollama's runners, until it is dropped.
    pub(crate) async fn watch(self: &Arc<Self>) {
        tokio::join!(lookout::watch(self), vigil::watch(self), admission::recall(&self.core));
    }
}

/// What the requests of one connection share.
pub(crate) struct Connection {
    /// The TCP peer.
    pub(crate) peer: IpAddr,
    /// Our own address that it came in on.
    pub(crate) local: IpAddr,
    /// From when on the next answer closes it.
    pub(crate) ages_out: Nanos,
    /// No drain had begun when it was made.
    pub(crate) early: bool,
    /// The first request of it whose framing is in doubt; set by whoever reads its bytes.
    pub(crate) fault: Mutex<Option<Fault>>,
    served: AtomicU64,
}

impl Connection {
    pub(crate) fn new(peer: IpAddr, local: IpAddr, ages_out: Nanos, early: bool) -> Self {
        Self { peer, local, ages_out, early, fault: Mutex::new(None), served: AtomicU64::new(0) }
    }

    /// Counts one more request, and says what is wrong with its framing.
    fn next_fault(&self) -> Option<Fault> {
        let request = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        self.fault.lock().filter(|fault| fault.request <= request)
    }
}
