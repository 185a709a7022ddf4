//! The exchange: the leader tells every pool pod what holds, each 2 s and at once on news, and hears how it is. Activators
//! are told the plan in the same way: [`peer`] says what they have no part in.
//!
//! One task a peer, so that a slow one holds nobody up; at most [`PARALLEL`] calls at one time. All that is decided is in
//! [`pool`] and [`divisor`], which are pure; here is only who calls when. Nothing here writes to Kubernetes: what
//! must be written (D, a term, a sequence) is told to the reconciler as a [`Standing`] that changed.

pub mod divisor;
pub mod draining;
pub mod load;
pub mod peer;
pub mod pool;
pub mod programmed;
pub mod relief;
pub mod stance;
pub mod transport;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use corral_scaler::Heard;
use corral_wire::{OffGpu, PlanState, PoolRef, Signed};
use futures::channel::mpsc::UnboundedReceiver;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{interval, sleep};

use crate::clock::{SharedClock, jittered};
use crate::lease::Lease;
use crate::listeners::Listeners;
use draining::Draining;
use load::PoolLoad;
use peer::PodSight;
use pool::{Cause, Offer, PoolState};
use programmed::{Programmed, out_of_reach, programmed};
use transport::{Link, Transport};

/// The most calls at one time, over all pools.
pub const PARALLEL: usize = 64;
/// From one call of a peer to the next, when there is no news; jittered.
pub const EVERY: Duration = Duration::from_secs(2);
/// How often what follows from time alone is worked out.
const TICK: Duration = Duration::from_millis(500);

/// What the reconcilers want to know of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The plan on offer.
    pub plan: PlanState,
    /// How far it has come.
    pub programmed: Programmed,
    /// Which pods run and do not answer, if none does.
    pub out_of_reach: Option<String>,
    /// D, which the plan Secret must hold before newcomers may serve.
    pub divisor: u32,
    /// The term in use.
    pub term: u64,
    /// The leader must take a term above this one.
    pub overtaken_by: Option<u64>,
    /// The next plan must have a sequence above this one.
    pub outrun_by: Option<u64>,
    /// Pods that are not ready, each with its own word for why.
    pub unready: Vec<(String, String)>,
    /// Pods that drain, by their own word; at most [`draining::MOST_NAMED`].
    pub draining: Vec<Draining>,
    /// Pods with models that are loaded and not wholly on their GPU; at most [`draining::MOST_NAMED`].
    pub off_gpu: Vec<(String, Vec<OffGpu>)>,
}

struct Entry {
    state: PoolState,
    news: watch::Sender<()>,
    callers: HashMap<String, (IpAddr, AbortHandle)>,
    told: Option<Standing>,
}

struct Inner {
    transport: Arc<dyn Transport>,
    lease: Arc<Lease>,
    clock: SharedClock,
    pools: Mutex<HashMap<PoolRef, Entry>>,
    listeners: Listeners,
    stirred: Listeners,
    led_since: Mutex<Option<Duration>>,
    permits: Semaphore,
}

/// The leader's side of the exchange. A clone is the same one.
#[derive(Clone)]
pub struct Exchange {
    inner: Arc<Inner>,
}

impl Exchange {
    /// An exchange with nobody yet.
    pub fn new(transport: Arc<dyn Transport>, lease: Arc<Lease>, clock: SharedClock) -> Self {
        let inner = Inner {
            transport,
            lease,
            clock,
            pools: Mutex::default(),
            listeners: Listeners::default(),
            stirred: Listeners::default(),
            led_since: Mutex::default(),
            permits: Semaphore::new(PARALLEL),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Names every pool whose standing changes from now on.
    pub fn changes(&self) -> UnboundedReceiver<PoolRef> {
        self.inner.listeners.listen()
    }

    /// Names every pool one of whose pods says, from now on, what the size of the pool should be looked at for.
    pub fn stirs(&self) -> UnboundedReceiver<PoolRef> {
        self.inner.stirred.listen()
    }

    /// Sets which of a pool's pods are told to retire, by their UIDs; it is news to them at once.
    pub fn retire(&self, pool: &PoolRef, pods: BTreeSet<String>) {
        let mut pools = self.inner.pools.lock();
        let Some(entry) = pools.get_mut(pool) else { return };
        if entry.state.take_retirement(pods) {
            entry.news.send_replace(());
        }
    }

    /// What the pods of a pool last said of their load, each with its UID.
    pub fn heard(&self, pool: &PoolRef) -> Vec<(String, Heard)> {
        self.inner.pools.lock().get(pool).map(|entry| entry.state.heard()).unwrap_or_default()
    }

    /// What the pods of a pool have to do now; none before anything was offered to it.
    pub fn load(&self, pool: &PoolRef) -> Option<PoolLoad> {
        let now = self.inner.clock.now();
        self.inner.pools.lock().get(pool).map(|entry| entry.state.load(now))
    }

    /// Sets what a pool's pods and activators are told from now on.
    pub fn offer(&self, pool: &PoolRef, offer: Offer) {
        let mut pools = self.inner.pools.lock();
        let entry = pools.entry(pool.clone()).or_insert_with(|| Entry {
            state: PoolState::new(pool.clone(), offer.clone()),
            news: watch::Sender::new(()),
            callers: HashMap::new(),
            told: None,
        });
        if entry.state.take_offer(offer) {
            entry.news.send_replace(());
        }
        self.settle(pool, entry);
    }

    /// Sets which pods and activators a pool has. A pool that nothing was offered for has none.
    pub fn take_peers(&self, pool: &PoolRef, sights: Vec<PodSight>) {
        let mut pools = self.inner.pools.lock();
        let Some(entry) = pools.get_mut(pool) else { return };
        if entry.state.take_peers(self.inner.clock.now(), sights) {
            self.recast(pool, entry);
        }
        self.settle(pool, entry);
    }

    /// Ends the exchange with pools that are gone.
    pub fn retain(&self, keep: impl Fn(&PoolRef) -> bool) {
        self.inner.pools.lock().retain(|pool, entry| {
            let kept = keep(pool);
            if !kept {
                entry.callers.values().for_each(|(_, caller)| caller.abort());
            }
            kept
        });
    }

    /// How a pool stands; none before anything was offered to it.
    pub fn standing(&self, pool: &PoolRef) -> Option<Standing> {
        let now = self.inner.clock.now();
        self.inner.pools.lock().get(pool).map(|entry| standing(&entry.state, now))
    }

    /// Works out what follows from time alone, for as long as it is polled.
    pub async fn run(&self) {
        let mut ticks = interval(TICK);
        loop {
            ticks.tick().await;
            let mut pools = self.inner.pools.lock();
            for (pool, entry) in pools.iter_mut() {
                self.settle(pool, entry);
            }
        }
    }

    /// Starts and stops callers, so that there is one for each peer that can be called.
    fn recast(&self, pool: &PoolRef, entry: &mut Entry) {
        let wanted: HashMap<String, IpAddr> =
            entry.state.reachable().map(|(uid, ip)| (uid.to_owned(), ip)).collect();
        entry.callers.retain(|uid, (ip, caller)| {
            let kept = wanted.get(uid) == Some(ip);
            if !kept {
                caller.abort();
            }
            kept
        });
        for (uid, ip) in wanted {
            let news = entry.news.subscribe();
            entry.callers.entry(uid.clone()).or_insert_with(|| {
                let caller = self.clone().call_on(pool.clone(), uid, ip, news);
                (ip, tokio::spawn(caller).abort_handle())
            });
        }
    }

    /// Works D out, passes news on to the peers, and a changed standing to whoever listens.
    fn settle(&self, pool: &PoolRef, entry: &mut Entry) {
        let now = self.inner.clock.now();
        if entry.state.step(now, self.led_for(now)) {
            entry.news.send_replace(());
        }
        let standing = standing(&entry.state, now);
        if entry.told.as_ref() != Some(&standing) {
            entry.told = Some(standing);
            self.inner.listeners.tell(pool);
        }
    }

    fn led_for(&self, now: Duration) -> Duration {
        let mut since = self.inner.led_since.lock();
        if !self.inner.lease.is_held() {
            *since = None;
            return Duration::ZERO;
        }
        now.saturating_sub(*since.get_or_insert(now))
    }

    async fn call_on(self, pool: PoolRef, uid: String, ip: IpAddr, mut news: watch::Receiver<()>) {
        let mut link = self.inner.transport.link(ip);
        loop {
            news.mark_unchanged();
            if self.inner.lease.is_held() {
                self.call(&pool, &uid, link.as_mut()).await;
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = sleep(jittered(EVERY, 20)) => {}
            }
        }
    }

    async fn call(&self, pool: &PoolRef, uid: &str, link: &mut dyn Link) {
        let Ok(_permit) = self.inner.permits.acquire().await else { return };
        let now = self.inner.clock.now();
        let message = self.inner.pools.lock().get_mut(pool).and_then(|entry| entry.state.message(now, uid));
        let Some((asked, message)) = message else { return };
        let Ok(text) = serde_json::to_vec(&message) else { return };
        let answer = match link.call(text.into()).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(pool = %pool.name, pod = uid, %error, "a pod did not answer");
                return;
            }
        };
        let Ok(answer) = serde_json::from_slice::<Signed>(&answer) else {
            tracing::debug!(pool = %pool.name, pod = uid, "a pod answered with something else than a report");
            return;
        };
        let mut pools = self.inner.pools.lock();
        let Some(entry) = pools.get_mut(pool) else { return };
        let cause = entry.state.hear(self.inner.clock.now(), uid, asked, &answer).unwrap_or_else(|error| {
            tracing::warn!(pool = %pool.name, pod = uid, %error, "a report is not believed");
            Cause::default()
        });
        if cause.stirs {
            self.inner.stirred.tell(pool);
        }
        if cause.settles {
            self.settle(pool, entry);
        }
    }
}

fn standing(state: &PoolState, now: Duration) -> Standing {
    let stances = state.stances(now);
    Standing {
        plan: state.plan_state().clone(),
        programmed: programmed(&stances),
        out_of_reach: out_of_reach(&stances),
        divisor: state.wanted_divisor(),
        term: state.term(),
        overtaken_by: state.overtaken_by(),
        outrun_by: state.outrun_by(),
        unready: state.unready(now),
        draining: state.draining(now),
        off_gpu: state.off_gpu(),
    }
}
