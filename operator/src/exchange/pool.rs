//! One pool as the exchange sees it: what each pod is told, what it said, and what follows from that. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use corral_wire::exchange::MAX_OFF_GPU;
use corral_wire::{
    Directive, OffGpu, PLAN_VERSION, PlanDoc, PlanState, PoolKeys, PoolRef, Position, Relief, Report,
    ServePermission, Signed,
};

use super::divisor::{Count, Orders, PodFacts};
use super::draining::{self, Draining, MOST_NAMED};
use super::programmed::{PodPlan, Programmed, programmed};
use super::relief::{Permits, PodLoad};

/// After this long without a word a pod is called silent.
pub const SILENCE: Duration = Duration::from_secs(10);

/// The load index, in thousandths, from which on a pod cannot take over from others.
const LOADED: u32 = 1000;

/// What Kubernetes knows about a pod of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSight {
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Where it is reached; none before it has an address or while its sidecar does not run.
    pub ip: Option<IpAddr>,
    /// Kubernetes calls it ready.
    pub ready: bool,
    /// It is being deleted.
    pub terminating: bool,
}

/// What a pool's pods are told, beside D.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The pool's keys.
    pub keys: PoolKeys,
    /// The leader's term for this pool.
    pub term: u64,
    /// The plan, and its digest.
    pub plan: Arc<PlanDoc>,
    /// D in the plan Secret.
    pub stored_divisor: u32,
}

#[derive(Debug)]
struct Peer {
    sight: PodSight,
    first_seen: Duration,
    sent: u64,
    /// The last message, and whether it permits the pod to be out for its load.
    last_said: Option<(Position, bool)>,
    heard: Option<Heard>,
    /// The least D that may be in force: a call without an answer may have been obeyed.
    least_divisor: Option<u32>,
    /// When its drain ends at the latest.
    drained_by: Option<Duration>,
}

#[derive(Debug)]
struct Heard {
    at: Duration,
    report: Report,
}

impl Peer {
    /// What it last said, unless that is long ago.
    fn fresh(&self, now: Duration) -> Option<&Report> {
        self.heard.as_ref().filter(|heard| !is_silent(now, heard.at)).map(|heard| &heard.report)
    }

    fn new(sight: PodSight, now: Duration) -> Self {
        Self {
            sight,
            first_seen: now,
            sent: 0,
            last_said: None,
            heard: None,
            least_divisor: None,
            drained_by: None,
        }
    }
}

/// One pool.
#[derive(Debug)]
pub struct PoolState {
    pool: PoolRef,
    offer: Offer,
    plan_state: PlanState,
    peers: BTreeMap<String, Peer>,
    count: Count,
    orders: Orders,
    permits: Permits,
    /// The highest position that a pod has answered with from above ours.
    overtaken: Option<Position>,
}

impl PoolState {
    /// A pool nobody of which is known yet.
    pub fn new(pool: PoolRef, offer: Offer) -> Self {
        let orders =
            Orders { divisor: offer.stored_divisor.max(1), serve: std::collections::BTreeSet::new() };
        let plan_state = state_of(&offer.plan);
        Self {
            pool,
            offer,
            plan_state,
            peers: BTreeMap::new(),
            count: Count::default(),
            orders,
            permits: Permits::default(),
            overtaken: None,
        }
    }

    /// Takes what the reconciler wrote; whether pods must be told something new.
    pub fn take_offer(&mut self, offer: Offer) -> bool {
        let plan_state = state_of(&offer.plan);
        if offer.term != self.offer.term {
            self.overtaken = None;
            self.peers.values_mut().for_each(|peer| peer.sent = 0);
        }
        let news = plan_state != self.plan_state || offer.term != self.offer.term;
        self.plan_state = plan_state;
        self.offer = offer;
        news
    }

    /// Takes the pods that exist now; whether they changed.
    pub fn take_pods(&mut self, now: Duration, pods: Vec<PodSight>) -> bool {
        let before: Vec<PodSight> = self.peers.values().map(|peer| peer.sight.clone()).collect();
        self.peers.retain(|uid, _| pods.iter().any(|pod| pod.uid == *uid));
        for sight in pods {
            let peer = self.peers.entry(sight.uid.clone()).or_insert_with(|| Peer::new(sight.clone(), now));
            // Silence counts from when its sidecar began to run.
            if peer.sight.ip.is_none() && sight.ip.is_some() {
                peer.first_seen = now;
            }
            peer.sight = sight;
        }
        !before.iter().eq(self.peers.values().map(|peer| &peer.sight))
    }

    /// The pods that can be called.
    pub fn reachable(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.peers.values().filter_map(|peer| Some((peer.sight.uid.as_str(), peer.sight.ip?)))
    }

    /// Works D and the permissions out anew; whether the orders changed.
    pub fn step(&mut self, now: Duration, led_for: Duration) -> bool {
        let facts: Vec<PodFacts> = self.peers.values().map(facts).collect();
        let orders = self.count.step(now, led_for, self.offer.stored_divisor, &facts);
        let changed = orders != self.orders;
        self.orders = orders;
        self.step_relief(now, led_for) || changed
    }

    fn step_relief(&mut self, now: Duration, led_for: Duration) -> bool {
        let loads: Vec<PodLoad> = self.peers.values().map(|peer| self.load(now, peer)).collect();
        let before: Vec<bool> = self.peers.keys().map(|uid| self.permits.permits(uid)).collect();
        let permitted = self.permits.step(now, led_for, &loads);
        !self.peers.keys().map(|uid| permitted.contains(uid)).eq(before)
    }

    fn load(&self, now: Duration, peer: &Peer) -> PodLoad {
        let heard = peer.fresh(now);
        // Kubernetes knows of more than the sidecar does: of Ollama's container, and of the node. Of a pod that may leave
        // it may also know sooner that it has left.
        let seen_ready = peer.sight.ready || self.permits.holds(&peer.sight.uid);
        let ready = |report: &Report| report.ready && seen_ready && !report.draining;
        PodLoad {
            uid: peer.sight.uid.clone(),
            terminating: peer.sight.terminating,
            away: heard.is_none_or(|report| report.relief != Relief::Taken && !ready(report)),
            relief: heard.map_or(Relief::Unneeded, |report| report.relief),
            loaded: heard.is_some_and(|report| report.gauges.load_permille >= LOADED),
        }
    }

    /// The next message to a pod, signed, and its place; none when the pod is gone or nothing can be signed.
    pub fn message(&mut self, now: Duration, uid: &str) -> Option<(Position, Signed)> {
        let directive = self.directive(uid)?;
        if directive.relief {
            self.permits.said(uid, now);
        }
        let peer = self.peers.get_mut(uid)?;
        peer.sent = peer.sent.saturating_add(1);
        let position = Position { term: self.offer.term, sequence: peer.sent };
        peer.last_said = Some((position, directive.relief));
        peer.least_divisor = peer.least_divisor.map(|least| least.min(directive.divisor));
        let signed = self.offer.keys.sign(uid, position, &directive).ok()?;
        Some((position, signed))
    }

    fn directive(&self, uid: &str) -> Option<Directive> {
        let heard = self.peers.get(uid)?.heard.as_ref();
        let held = heard.and_then(|heard| heard.report.plan.as_ref());
        let plan = (held != Some(&self.plan_state)).then(|| (*self.offer.plan).clone());
        let may = self.orders.serve.contains(uid);
        let serve = if may { ServePermission::Granted } else { ServePermission::Wait };
        let relief = self.permits.permits(uid);
        Some(Directive { pool: self.pool.clone(), plan, divisor: self.orders.divisor, serve, relief })
    }

    /// Takes a pod's answer to what stood at `asked`.
    pub fn hear(
        &mut self,
        now: Duration,
        uid: &str,
        asked: Position,
        answer: &Signed,
    ) -> Result<(), corral_wire::VerifyError> {
        let report: Report = self.offer.keys.open(uid, Some(asked), answer)?;
        if answer.position > asked {
            self.overtaken = self.overtaken.max(Some(answer.position));
        }
        if let Some(peer) = self.peers.get_mut(uid) {
            match peer.last_said {
                Some((last, true)) if last == asked => self.permits.said(uid, now),
                Some((last, false)) if last == asked && answer.position == asked => {
                    self.permits.taken_back(uid);
                }
                _ => {}
            }
            peer.least_divisor = Some(report.divisor);
            peer.drained_by = draining::until(peer.drained_by, now, &report);
            peer.heard = Some(Heard { at: now, report });
        }
        Ok(())
    }

    /// The D that the plan Secret must hold before newcomers may serve.
    pub fn wanted_divisor(&self) -> u32 {
        self.orders.divisor
    }

    /// The leader's term in use.
    pub fn term(&self) -> u64 {
        self.offer.term
    }

    /// A term above which the leader must go, when a pod obeyed a higher one.
    pub fn overtaken_by(&self) -> Option<u64> {
        self.overtaken.map(|position| position.term)
    }

    /// A plan sequence above which the next plan must go: a pod holds another plan that is not older.
    pub fn outrun_by(&self) -> Option<u64> {
        let held = self.peers.values().filter_map(|peer| peer.heard.as_ref()?.report.plan.as_ref());
        let ahead =
            held.filter(|held| **held != self.plan_state && held.sequence >= self.plan_state.sequence);
        ahead.map(|held| held.sequence).max()
    }

    /// How far the plan has come.
    pub fn programmed(&self, now: Duration) -> Programmed {
        let running = self.peers.values().filter(|peer| peer.sight.ip.is_some());
        let pods: Vec<(&str, PodPlan)> =
            running.map(|peer| (peer.sight.name.as_str(), self.pod_plan(now, peer))).collect();
        programmed(&pods)
    }

    fn pod_plan(&self, now: Duration, peer: &Peer) -> PodPlan {
        let last_word = peer.heard.as_ref().map_or(peer.first_seen, |heard| heard.at);
        let Some(heard) = &peer.heard else {
            return if is_silent(now, last_word) { PodPlan::Silent } else { PodPlan::Pending };
        };
        if heard.report.plan.as_ref() == Some(&self.plan_state) {
            return if is_silent(now, last_word) { PodPlan::Silent } else { PodPlan::InForce };
        }
        if !heard.report.plan_versions.contains(&PLAN_VERSION) {
            return PodPlan::TooOld;
        }
        match &heard.report.plan_error {
            Some(error) => PodPlan::Refused(error.clone()),
            None if is_silent(now, last_word) => PodPlan::Silent,
            None => PodPlan::Pending,
        }
    }

    /// Names of pods with the reason why they are not ready, by their own word. What a silent one said is no longer so.
    pub fn unready(&self, now: Duration) -> Vec<(String, String)> {
        let told = self.peers.values().filter_map(|peer| {
            let report = peer.fresh(now)?;
            (!report.ready).then(|| (peer.sight.name.clone(), report.reason.clone()))
        });
        told.collect()
    }

    /// Pods that drain, with what is left to do, by their own word; at most [`MOST_NAMED`].
    pub fn draining(&self, now: Duration) -> Vec<Draining> {
        let told = self.peers.values().filter_map(|peer| {
            let requests = draining::requests(peer.fresh(now)?);
            Some(Draining { pod: peer.sight.name.clone(), requests, until: peer.drained_by? })
        });
        told.take(MOST_NAMED).collect()
    }

    /// Pods with models that are not wholly on their GPU, by their own word; at most [`MOST_NAMED`].
    pub fn off_gpu(&self) -> Vec<(String, Vec<OffGpu>)> {
        let told = self.peers.values().filter_map(|peer| {
            let models = &peer.heard.as_ref()?.report.off_gpu;
            let named = models.iter().take(MAX_OFF_GPU).cloned().collect();
            (!models.is_empty()).then(|| (peer.sight.name.clone(), named))
        });
        told.take(MOST_NAMED).collect()
    }

    /// The plan on offer.
    pub fn plan_state(&self) -> &PlanState {
        &self.plan_state
    }
}

fn is_silent(now: Duration, last_word: Duration) -> bool {
    now.saturating_sub(last_word) >= SILENCE
}

fn state_of(plan: &PlanDoc) -> PlanState {
    PlanState { sequence: plan.sequence, digest: plan.digest() }
}

fn facts(peer: &Peer) -> PodFacts {
    let report = peer.heard.as_ref().map(|heard| &heard.report);
    PodFacts {
        uid: peer.sight.uid.clone(),
        serves: report.map_or(peer.sight.ready, |report| report.serve == ServePermission::Granted),
        able: report.is_some_and(|report| report.able_to_serve),
        terminating: peer.sight.terminating,
        divisor: peer.least_divisor,
    }
}
