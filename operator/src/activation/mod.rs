//! The leader's side of activation: activators hear which pods are ready, and are heard of what they hold. The plan they hear
//! by the exchange, as pods do.
//!
//! Two tasks for each activator. One keeps a call open that the activator answers as soon as it holds more than was known,
//! so that a pool without pods is woken at once; the other tells news, over a connection of its own. Those of a pool that is
//! gone hear that as the last. What is decided is in [`state`] and [`stand`], which are pure; here is only who calls when.

pub mod stand;
pub mod state;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use corral_scaler::{Held, Holder};
use corral_wire::{Backend, PoolKeys, PoolRef, Signed};
use futures::channel::mpsc::UnboundedReceiver;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::clock::{SharedClock, jittered};
use crate::exchange::peer::PodSight;
use crate::exchange::transport::{Link, Transport};
use crate::lease::Lease;
use crate::listeners::Listeners;
use stand::{Need, Part, Stand};
use state::{Activators, Call, Standing};

/// After a call that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// For so long is tried to tell an activator that its pool is gone.
const FAREWELL: Duration = Duration::from_secs(30);
/// The longest that it takes to say so once.
const BRIEFLY: Duration = Duration::from_secs(5);
/// For so long neither a pod nor an activator came in place of those that end: Kubernetes makes none any more, as in a
/// namespace that is being deleted, where a pool is not gone before its pods are. Longer than its controllers are away when
/// others of them take over.
const LEFT_ALONE: Duration = Duration::from_secs(30);
/// From one answer to the next call, so that a crowd that comes one by one is heard of a few times only.
const BETWEEN: Duration = Duration::from_millis(20);

/// What there is of a pool's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// One is ready.
    Served,
    /// One may be ready some time.
    Coming,
    /// None is, but for those that end.
    Nobody,
}

/// What is known of the activators of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What they hold.
    pub held: Held,
    /// Who of them would hold what comes.
    pub holder: Holder,
    /// Why they would not, where they would not, as far as their pods show it.
    pub lack: Option<String>,
    /// Whether they stand in the Service, so that its last pod may be told to go.
    pub stands: bool,
}

struct Entry {
    state: Activators,
    stand: Stand,
    need: Need,
    /// Why none of them holds what comes, if none does.
    lack: Option<String>,
    news: watch::Sender<()>,
    callers: HashMap<String, (IpAddr, [AbortHandle; 2])>,
    /// All of them end.
    end: bool,
    /// Since when they do, and no pod is there either.
    left_since: Option<Duration>,
    /// The UID of the pool: one of the same name that was made anew has other activators, and other keys.
    pool: String,
}

struct Inner {
    transport: Arc<dyn Transport>,
    lease: Arc<Lease>,
    clock: SharedClock,
    pools: Mutex<HashMap<PoolRef, Entry>>,
    /// Pools that are known to have none.
    without: Mutex<HashSet<PoolRef>>,
    stirred: Listeners,
}

/// The leader's side of activation. A clone is the same one.
#[derive(Clone)]
pub struct Activations {
    inner: Arc<Inner>,
}

impl Entry {
    fn part(&mut self, now: Duration) -> Part {
        let holds = self.state.held(now).requests > 0;
        self.stand.part((self.need, holds), now)
    }

    /// Whether no pod comes: what is held is answered then, and nothing more is held.
    fn is_hopeless(&self, now: Duration) -> bool {
        self.need == Need::Nothing
            || self.left_since.is_some_and(|since| now.saturating_sub(since) >= LEFT_ALONE)
    }

    /// Tells at once whether a pod comes, where that has changed.
    fn tell_whether_one_comes(&mut self, now: Duration) {
        if self.state.stop(self.is_hopeless(now)) {
            self.news.send_replace(());
        }
    }

    /// Takes that no pod comes beside these: what is held is answered now, for nobody else would.
    fn dismiss(&mut self, backends: Vec<Backend>, now: Duration) {
        let told = [self.state.tell(backends, None, now), self.state.stop(true)];
        if told.contains(&true) {
            self.news.send_replace(());
        }
    }

    fn stop(&self) {
        for (_, callers) in self.callers.values() {
            callers.iter().for_each(AbortHandle::abort);
        }
    }
}

impl Activations {
    /// With nobody yet.
    pub fn new(transport: Arc<dyn Transport>, lease: Arc<Lease>, clock: SharedClock) -> Self {
        let inner = Inner {
            transport,
            lease,
            clock,
            pools: Mutex::default(),
            without: Mutex::default(),
            stirred: Listeners::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Names every pool, from now on, of which an activator says what the size of the pool should be looked at for.
    pub fn stirs(&self) -> UnboundedReceiver<PoolRef> {
        self.inner.stirred.listen()
    }

    /// Sets the keys and the term to speak to the activators of a pool with, and what it needs them for. `uid` is the pool's.
    pub fn offer(&self, pool: &PoolRef, uid: &str, (keys, term): (PoolKeys, u64), need: Need) {
        if need == Need::Zero {
            self.inner.without.lock().remove(pool);
        }
        let mut pools = self.inner.pools.lock();
        if pools.get(pool).is_some_and(|entry| entry.pool != uid) {
            self.bid_farewell(pool, pools.remove(pool));
        }
        let entry = pools.entry(pool.clone()).or_insert_with(|| Entry {
            state: Activators::new(pool.clone(), keys.clone(), term),
            stand: Stand::default(),
            need,
            lack: None,
            news: watch::Sender::new(()),
            callers: HashMap::new(),
            end: false,
            left_since: None,
            pool: uid.to_owned(),
        });
        entry.state.take_keys(keys, term);
        entry.need = need;
        entry.tell_whether_one_comes(self.inner.clock.now());
    }

    /// Sets which activators a pool has, and why none of them holds what comes where none does; one that ends still holds what it
    /// holds. A pool that nothing was offered for has none.
    pub fn take(&self, pool: &PoolRef, activators: &[PodSight], lack: String) {
        let now = self.inner.clock.now();
        let mut pools = self.inner.pools.lock();
        let Some(entry) = pools.get_mut(pool) else { return };
        let running: Vec<(&PodSight, IpAddr)> =
            activators.iter().filter_map(|sight| Some((sight, sight.ip?))).collect();
        entry.state.take(running.iter().map(|(sight, _)| (sight.uid.as_str(), standing(sight))));
        entry.lack = Some(lack);
        entry.end = !activators.is_empty() && activators.iter().all(|sight| sight.terminating);
        if !entry.end {
            entry.left_since = None;
            entry.tell_whether_one_comes(now);
        }
        self.recast(pool, entry, &running);
    }

    /// What the activators of a pool are there for now; none where nothing was offered for any.
    pub fn part(&self, pool: &PoolRef) -> Option<Part> {
        let now = self.inner.clock.now();
        self.inner.pools.lock().get_mut(pool).map(|entry| entry.part(now))
    }

    /// Takes who stands in a pool's Service, as it was written.
    pub fn wrote(&self, pool: &PoolRef, part: Part, uids: BTreeSet<String>) {
        let now = self.inner.clock.now();
        if let Some(entry) = self.inner.pools.lock().get_mut(pool) {
            entry.stand.wrote(part, uids, now);
        }
    }

    /// Takes what there is of the pods of a pool, which has this UID; what is known of its activators, none where it has none.
    pub fn look(&self, pool: &PoolRef, uid: &str, pods: Outlook) -> Option<Seen> {
        let now = self.inner.clock.now();
        let mut pools = self.inner.pools.lock();
        if pools.get(pool).is_some_and(|entry| entry.pool != uid) {
            self.bid_farewell(pool, pools.remove(pool));
        }
        let entry = pools.get_mut(pool)?;
        entry.stand.look(pods == Outlook::Served, now);
        let is_left = entry.end && pods == Outlook::Nobody;
        entry.left_since = is_left.then(|| entry.left_since.unwrap_or(now));
        entry.tell_whether_one_comes(now);
        let Entry { state, stand, lack, .. } = entry;
        let holder = state.holder(now);
        Some(Seen {
            held: state.held(now),
            holder,
            lack: lack.clone().filter(|_| holder != Holder::Heard),
            stands: stand.stands(|uid| state.is_heard(uid, now), now),
        })
    }

    /// Takes whether the last pod of a pool is to go; whether its activators are to do something else than they do.
    pub fn leave(&self, pool: &PoolRef, leaves: bool) -> bool {
        let now = self.inner.clock.now();
        self.inner.pools.lock().get_mut(pool).is_some_and(|entry| {
            entry.stand.leave(leaves);
            let part = entry.part(now);
            entry.stand.is_due(part)
        })
    }

    /// The term that an activator of a pool obeys in place of ours, as after a Secret was restored from a backup.
    pub fn overtaken_by(&self, pool: &PoolRef) -> Option<u64> {
        self.inner.pools.lock().get(pool).and_then(|entry| entry.state.overtaken_by())
    }

    /// A pool has no activators, and is not to be looked at for that again.
    pub fn without(&self, pool: &PoolRef) {
        if let Some(entry) = self.inner.pools.lock().remove(pool) {
            entry.stop();
        }
        self.inner.without.lock().insert(pool.clone());
    }

    /// Whether it is known that a pool has none.
    pub fn is_without(&self, pool: &PoolRef) -> bool {
        self.inner.without.lock().contains(pool)
    }

    /// Sets which pods of a pool are ready, and how long until one is.
    pub fn tell(&self, pool: &PoolRef, backends: Vec<Backend>, start_left: Option<Duration>) {
        let now = self.inner.clock.now();
        let mut pools = self.inner.pools.lock();
        let Some(entry) = pools.get_mut(pool) else { return };
        if entry.state.tell(backends, start_left, now) {
            entry.news.send_replace(());
        }
    }

    /// What is held for a pool; nothing where it has no activator that says so.
    pub fn held(&self, pool: &PoolRef) -> Held {
        let now = self.inner.clock.now();
        self.inner.pools.lock().get_mut(pool).map(|entry| entry.state.held(now)).unwrap_or_default()
    }

    /// A pool is being deleted: these pods are ready as yet, no other comes, and its activators are told so.
    pub fn dismiss(&self, pool: &PoolRef, backends: Vec<Backend>) {
        let now = self.inner.clock.now();
        if let Some(entry) = self.inner.pools.lock().get_mut(pool) {
            entry.dismiss(backends, now);
        }
    }

    /// Ends it with pools that are gone.
    pub fn retain(&self, keep: impl Fn(&PoolRef) -> bool) {
        self.inner.without.lock().retain(&keep);
        let mut pools = self.inner.pools.lock();
        let gone: Vec<PoolRef> = pools.keys().filter(|pool| !keep(pool)).cloned().collect();
        for pool in gone {
            self.bid_farewell(&pool, pools.remove(&pool));
        }
    }

    /// Has each activator of a pool that is gone told so, as the last that it hears: what it holds is answered then.
    fn bid_farewell(&self, pool: &PoolRef, entry: Option<Entry>) {
        let Some(mut entry) = entry else { return };
        entry.stop();
        entry.dismiss(Vec::new(), self.inner.clock.now());
        let state = Arc::new(Mutex::new(entry.state));
        for (uid, (ip, _)) in entry.callers {
            let door = self.inner.transport.door(ip);
            tokio::spawn(self.clone().tell_the_end((pool.clone(), uid), Arc::clone(&state), door));
        }
    }

    async fn tell_the_end(
        self,
        (pool, uid): (PoolRef, String),
        state: Arc<Mutex<Activators>>,
        mut door: Box<dyn Link>,
    ) {
        let until = self.inner.clock.now().saturating_add(FAREWELL);
        while self.inner.lease.is_held() && self.inner.clock.now() < until {
            let now = self.inner.clock.now();
            let Some((asked, message)) = state.lock().message(&uid, Call::Tell, now) else { return };
            let said = timeout(BRIEFLY, speak((&pool, &uid), door.as_mut(), &message)).await;
            if let Ok(Some(answer)) = said {
                let heard = state.lock().hear(&uid, asked, &answer, now);
                if heard.is_ok() && answer.position == asked {
                    return;
                }
            }
            sleep(jittered(AGAIN, 20)).await;
        }
    }

    /// Starts and stops callers, so that there are two for each activator.
    fn recast(&self, pool: &PoolRef, entry: &mut Entry, running: &[(&PodSight, IpAddr)]) {
        entry.callers.retain(|uid, (ip, callers)| {
            let kept = running.iter().any(|(known, at)| known.uid == *uid && at == ip);
            if !kept {
                callers.iter().for_each(AbortHandle::abort);
            }
            kept
        });
        for (PodSight { uid, .. }, ip) in running {
            let news = entry.news.subscribe();
            entry.callers.entry(uid.clone()).or_insert_with(|| {
                let listens = self.clone().listen(pool.clone(), uid.clone(), self.inner.transport.door(*ip));
                let tells = self.clone().bring_news(
                    pool.clone(),
                    uid.clone(),
                    (self.inner.transport.door(*ip), news),
                );
                (*ip, [tokio::spawn(listens).abort_handle(), tokio::spawn(tells).abort_handle()])
            });
        }
    }

    /// Keeps a call open that is answered when there is something to hear.
    async fn listen(self, pool: PoolRef, uid: String, mut door: Box<dyn Link>) {
        loop {
            let answered = self.call(&pool, &uid, door.as_mut(), Call::Listen).await;
            sleep(if answered { BETWEEN } else { jittered(AGAIN, 20) }).await;
        }
    }

    /// Tells what has changed as soon as it has.
    async fn bring_news(
        self,
        pool: PoolRef,
        uid: String,
        (mut door, mut news): (Box<dyn Link>, watch::Receiver<()>),
    ) {
        // What holds now is told by whoever listens.
        news.mark_unchanged();
        while news.changed().await.is_ok() {
            while !self.call(&pool, &uid, door.as_mut(), Call::Tell).await {
                sleep(jittered(AGAIN, 20)).await;
            }
        }
    }

    /// One call; whether it was answered.
    async fn call(&self, pool: &PoolRef, uid: &str, door: &mut dyn Link, call: Call) -> bool {
        if !self.inner.lease.is_held() {
            return false;
        }
        let now = self.inner.clock.now();
        let message =
            self.inner.pools.lock().get_mut(pool).and_then(|entry| entry.state.message(uid, call, now));
        let Some((asked, message)) = message else { return false };
        let Some(answer) = speak((pool, uid), door, &message).await else { return false };
        let mut pools = self.inner.pools.lock();
        let Some(entry) = pools.get_mut(pool) else { return false };
        match entry.state.hear(uid, asked, &answer, self.inner.clock.now()) {
            Ok(true) => {
                self.inner.stirred.tell(pool);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(pool = %pool.name, activator = uid, %error, "an activator is not believed");
                return false;
            }
        }
        true
    }
}

/// Says something to an activator; what it answers, if it does.
async fn speak((pool, uid): (&PoolRef, &str), door: &mut dyn Link, message: &Signed) -> Option<Signed> {
    let text = serde_json::to_vec(message).ok()?;
    let answered = door.call(text.into()).await;
    let answer = answered.inspect_err(|error| {
        tracing::debug!(pool = %pool.name, activator = uid, %error, "an activator did not answer");
    });
    serde_json::from_slice(&answer.ok()?).ok()
}

fn standing(sight: &PodSight) -> Standing {
    match sight {
        _ if sight.terminating => Standing::Ends,
        _ if sight.takes_traffic() => Standing::Ready,
        _ => Standing::Unready,
    }
}
