//! The life of one request: who asks, for what, may it, may it now, and the answer.

pub(crate) mod admission;
pub(crate) mod api_key;
pub(crate) mod body;
mod canary;
pub(crate) mod cors;
pub(crate) mod cross_site;
mod departed;
mod dice;
pub(crate) mod discard;
mod dispatch;
mod embed;
mod ending;
mod explain;
mod forward;
mod framing;
pub(crate) mod head;
mod headers;
pub(crate) mod identify;
pub(crate) mod inspect;
mod judge;
mod limits;
mod listener;
mod lookout;
mod models;
mod patience;
mod ps;
mod pulse;
pub(crate) mod record;
pub(crate) mod refused;
mod request;
mod resent;
mod residency;
pub(crate) mod respond;
mod retry;
pub(crate) mod route;
mod settings;
mod tokens;
mod trouble;
pub(crate) mod upstream;
mod vigil;
mod vouched;
mod wording;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corral_limiter::{HeadFacts, Nanos, Plan};
use corral_wire::CostModel;
use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;

pub(crate) use api_key::NoClient;
pub(crate) use dice::Dice;
pub(crate) use explain::explain;
pub(crate) use framing::{Fault, Framing, MAX_HEAD};
pub(crate) use settings::LOOK_INTERVAL;
pub use settings::{ProxySettings, StallBounds};
pub(crate) use vouched::VOUCHED;
pub use vouched::Vouchers;
pub(crate) use wording::seconds;

use crate::core::Core;
use crate::server::Host;
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
}

impl Host for Proxy {
    type Body = body::ReplyBody;

    fn core(&self) -> &Arc<Core> {
        &self.core
    }

    fn settings(&self) -> &ProxySettings {
        &self.settings
    }

    fn dice(&self) -> &Dice {
        &self.dice
    }

    fn answer(
        self: Arc<Self>,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send {
        request::handle(self, connection, request)
    }

    /// Watches Ollama's runners, and what limits wait for.
    async fn watch(self: Arc<Self>) {
        tokio::join!(
            lookout::watch(&self),
            vigil::watch(&self),
            models::watch(&self),
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
    pub(crate) fn next_fault(&self) -> Option<Fault> {
        let request = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        self.fault.lock().filter(|fault| fault.request <= request)
    }
}
