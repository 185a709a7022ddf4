//! The life of one request: who asks, for what, may it, may it now, and the answer.

pub(crate) mod admission;
mod api_key;
mod body;
mod canary;
mod cors;
mod cross_site;
mod departed;
mod dice;
mod discard;
mod dispatch;
mod embed;
mod ending;
mod explain;
mod forward;
mod framing;
mod head;
mod headers;
mod identify;
mod inspect;
mod judge;
mod limits;
mod listener;
mod lookout;
mod models;
mod patience;
mod ps;
mod pulse;
mod record;
mod refused;
mod request;
mod residency;
mod respond;
mod retry;
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
use std::time::Duration;

use corral_limiter::{HeadFacts, Nanos, Plan};
use corral_wire::CostModel;
use parking_lot::Mutex;

pub(crate) use api_key::NoClient;
pub(crate) use dice::Dice;
pub(crate) use explain::explain;
pub(crate) use framing::{Fault, Framing, MAX_HEAD};
pub(crate) use request::handle;
pub(crate) use settings::LOOK_INTERVAL;
pub use settings::{ProxySettings, StallBounds};
pub(crate) use wording::seconds;

use crate::core::Core;
use inspect::{Asked, BodyBudget};
use models::Models;
use residency::Residency;
use route::Endpoint;
pub(crate) use tokens::Learned;
use tokens::{Reckoning, Whose};
use trouble::Signs;
use upstream::Upstream;

/// How often the wall clock is looked at: by so much a window by the clock may be late when that is set.
const WALL_INTERVAL: Duration = Duration::from_secs(5);

/// What all requests share.
pub(crate) struct Proxy {
    pub(crate) core: Arc<Core>,
    pub(crate) settings: ProxySettings,
    pub(crate) dice: Dice,
    upstream: Upstream,
    budget: BodyBudget,
    residency: Mutex<Residency>,
    signs: Mutex<Signs>,
    models: Models,
    retries: Mutex<retry::Budget>,
}

impl Proxy {
    pub(crate) fn new(core: Arc<Core>, settings: ProxySettings) -> Self {
        let upstream = Upstream::new(settings.upstream, settings.connect_timeout, Arc::clone(&core.metrics));
        let budget = BodyBudget::new(settings.body_budget_bytes);
        let residency = Mutex::new(Residency::new(settings.hold_loaded));
        let (signs, models, retries) = (Mutex::default(), Models::default(), Mutex::default());
        Self { core, settings, dice: Dice::new(), upstream, budget, residency, signs, models, retries }
    }

    /// Reckons what a request will probably cost; none where nothing is inferred, which takes no slot.
    fn reckon(&self, asked: &Asked<'_>, endpoint: &Endpoint, whose: &HeadFacts) -> Option<Reckoning> {
        reckon(&self.core, asked, endpoint, whose)
    }

    /// By what the queue reckons, as the plan has it.
    fn cost_model(&self) -> CostModel {
        self.core.plan().map(|plan| plan.cost_model()).unwrap_or_default()
    }

    async fn look_at_the_wall(&self) {
        loop {
            tokio::time::sleep(WALL_INTERVAL).await;
            self.core.look_at_the_wall();
        }
    }

    /// Watches Ollama's runners, and what limits wait for, until it is dropped.
    pub(crate) async fn watch(self: &Arc<Self>) {
        tokio::join!(
            lookout::watch(self),
            vigil::watch(self),
            models::watch(self),
            admission::recall(&self.core),
            self.core.health.watch_breaker(self.core.clock()),
            self.look_at_the_wall()
        );
    }
}

fn reckon(core: &Core, asked: &Asked<'_>, endpoint: &Endpoint, whose: &HeadFacts) -> Option<Reckoning> {
    let plan = core.plan();
    let whose = Whose(core.clients.digest(whose));
    let tokens = plan.as_deref().map(Plan::tokens).cloned().unwrap_or_default();
    Reckoning::of(asked, endpoint, &tokens, (&core.learned.lock(), whose))
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
