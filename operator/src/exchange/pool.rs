//! One pool as the exchange sees it: what each of its peers is told, what it said, and what follows from that. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use corral_scaler::Heard as Load;
use corral_wire::exchange::MAX_OFF_GPU;
use corral_wire::{
    Directive, OffGpu, PlanDoc, PlanState, PoolKeys, PoolRef, Position, Relief, Report, ServePermission,
    Signed,
};

use super::divisor::{Count, Orders, PodFacts};
use super::draining::{self, Draining, MOST_NAMED};
use super::load::{self, PoolLoad};
use super::peer::{Heard, Peer, Peers, PodSight, Role};
use super::relief::{Permits, PodLoad};
use super::stance::{Stance, stances};

/// The load index, in thousandths, from which on a pod cannot take over from others.
const LOADED: u32 = 1000;

/// What a pool's peers are told, beside what is for pods alone.
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

/// One pool.
#[derive(Debug)]
pub struct PoolState {
    pool: PoolRef,
    offer: Offer,
    plan_state: PlanState,
    peers: Peers,
    count: Count,
    orders: Orders,
    permits: Permits,
    /// UIDs of the pods that are told to retire.
    retiring: BTreeSet<String>,
    /// The highest position that a peer has answered with from above ours.
    overtaken: Option<Position>,
    /// When pods last said that requests had come.
    last_came: Option<Duration>,
}

impl PoolState {
    /// A pool nobody of which is known yet.
    pub fn new(pool: PoolRef, offer: Offer) -> Self {
        let orders = Orders { divisor: offer.stored_divisor.max(1), serve: BTreeSet::new() };
        let plan_state = state_of(&offer.plan);
        Self {
            pool,
            offer,
            plan_state,
            peers: Peers::default(),
            count: Count::default(),
            orders,
            permits: Permits::default(),
            retiring: BTreeSet::new(),
            overtaken: None,
            last_came: None,
        }
    }

    /// Takes what the reconciler wrote; whether peers must be told something new.
    pub fn take_offer(&mut self, offer: Offer) -> bool {
        let plan_state = state_of(&offer.plan);
        if offer.term != self.offer.term {
            self.overtaken = None;
            self.peers.begin_term();
        }
        let news = plan_state != self.plan_state || offer.term != self.offer.term;
        self.plan_state = plan_state;
        self.offer = offer;
        news
    }

    /// Takes the pods and activators that exist now; whether they changed.
    pub fn take_peers(&mut self, now: Duration, sights: Vec<PodSight>) -> bool {
        self.peers.take(now, sights)
    }

    /// Sets which pods are told to retire from now on; whether any must be told something new. That one is gone is no news
    /// to the others.
    pub fn take_retirement(&mut self, pods: BTreeSet<String>) -> bool {
        let turns = |peer: &Peer| pods.contains(&peer.sight.uid) != self.retiring.contains(&peer.sight.uid);
        let changed = self.peers.pods().any(turns);
        self.retiring = pods;
        changed
    }

    /// What the pods said of their load, each with its UID; a pod that never said anything is left out.
    pub fn heard(&self) -> Vec<(String, Load)> {
        let heard = |peer: &Peer| Some((peer.sight.uid.clone(), load_of(peer.heard()?)));
        self.peers.pods().filter_map(heard).collect()
    }

    /// What the pods have to do, summed.
    pub fn load(&self, now: Duration) -> PoolLoad {
        let recent = self.last_came.is_some_and(|at| now.saturating_sub(at) < load::RECENT);
        self.peers.pods().fold(PoolLoad { recent, ..PoolLoad::default() }, |sum, peer| {
            sum.and(peer.sight.ready && !peer.sight.terminating, peer.fresh(now))
        })
    }

    /// The peers that can be called.
    pub fn reachable(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.peers.reachable()
    }

    /// Works D and the permissions out anew; whether the orders changed.
    pub fn step(&mut self, now: Duration, led_for: Duration) -> bool {
        let facts: Vec<PodFacts> = self.peers.pods().map(facts).collect();
        let orders = self.count.step(now, led_for, self.offer.stored_divisor, &facts);
        let changed = orders != self.orders;
        self.orders = orders;
        self.step_relief(now, led_for) || changed
    }

    fn step_relief(&mut self, now: Duration, led_for: Duration) -> bool {
        let loads: Vec<PodLoad> = self.peers.pods().map(|peer| self.pod_load(now, peer)).collect();
        let before: Vec<bool> = loads.iter().map(|pod| self.permits.permits(&pod.uid)).collect();
        let permitted = self.permits.step(now, led_for, &loads);
        !loads.iter().map(|pod| permitted.contains(&pod.uid)).eq(before)
    }

    fn pod_load(&self, now: Duration, peer: &Peer) -> PodLoad {
        let heard = peer.fresh(now);
        // Kubernetes knows of more than the sidecar does: of Ollama's container, and of the node. Of a pod that may leave
        // it may also know sooner that it has left.
        let seen_ready = peer.sight.ready || self.permits.holds(&peer.sight.uid);
        let ready = |report: &Report| report.ready && seen_ready && !report.draining;
        PodLoad {
            uid: peer.sight.uid.clone(),
            terminating: peer.sight.terminating,
            // One that is told to go is out as good as at once.
            away: self.retiring.contains(&peer.sight.uid)
                || heard.is_none_or(|report| report.relief != Relief::Taken && !ready(report)),
            relief: heard.map_or(Relief::Unneeded, |report| report.relief),
            loaded: heard.is_some_and(|report| report.gauges.load_permille >= LOADED),
        }
    }

    /// The next message to a peer, signed, and its place; none when it is gone or nothing can be signed.
    pub fn message(&mut self, now: Duration, uid: &str) -> Option<(Position, Signed)> {
        let directive = self.directive(uid)?;
        if directive.relief {
            self.permits.said(uid, now);
        }
        let peer = self.peers.get_mut(uid)?;
        let position = peer.next(self.offer.term);
        peer.last_said = Some((position, directive.relief));
        peer.least_divisor = peer.least_divisor.map(|least| least.min(directive.divisor));
        let signed = self.offer.keys.sign(uid, position, &directive).ok()?;
        Some((position, signed))
    }

    /// The plan, and what is ordered of pods: no order names an activator.
    fn directive(&self, uid: &str) -> Option<Directive> {
        let held = self.peers.get(uid)?.report().and_then(|report| report.plan.as_ref());
        let plan = (held != Some(&self.plan_state)).then(|| (*self.offer.plan).clone());
        let may = self.orders.serve.contains(uid);
        let serve = if may { ServePermission::Granted } else { ServePermission::Wait };
        let relief = self.permits.permits(uid);
        let (pool, divisor) = (self.pool.clone(), self.orders.divisor);
        Some(Directive { pool, plan, divisor, serve, relief, retire: self.retiring.contains(uid) })
    }

    /// Takes a peer's answer to what stood at `asked`; what it gives cause to.
    pub fn hear(
        &mut self,
        now: Duration,
        uid: &str,
        asked: Position,
        answer: &Signed,
    ) -> Result<Cause, corral_wire::VerifyError> {
        let report: Report = self.offer.keys.open(uid, Some(asked), answer)?;
        let overtakes = answer.position > asked;
        if overtakes {
            self.overtaken = self.overtaken.max(Some(answer.position));
        }
        let Some(peer) = self.peers.get_mut(uid) else {
            return Ok(Cause { settles: overtakes, stirs: false });
        };
        let (before, is_pod) = (peer.fresh(now), peer.sight.role == Role::Pod);
        let cause = Cause {
            stirs: is_pod && before.is_none_or(|before| stirs(before, &report)),
            settles: overtakes
                || report.draining
                || before.is_none_or(|before| settling(before) != settling(&report))
                || peer.least_divisor != Some(report.divisor),
        };
        if is_pod && load::came(peer.report(), &report) {
            self.last_came = Some(now);
        }
        match peer.last_said {
            Some((last, true)) if last == asked => self.permits.said(uid, now),
            Some((last, false)) if last == asked && answer.position == asked => self.permits.taken_back(uid),
            _ => {}
        }
        peer.hear(now, report);
        Ok(cause)
    }

    /// The D that the plan Secret must hold before newcomers may serve.
    pub fn wanted_divisor(&self) -> u32 {
        self.orders.divisor
    }

    /// The leader's term in use.
    pub fn term(&self) -> u64 {
        self.offer.term
    }

    /// A term above which the leader must go, when a peer obeyed a higher one.
    pub fn overtaken_by(&self) -> Option<u64> {
        self.overtaken.map(|position| position.term)
    }

    /// A plan sequence above which the next plan must go: a peer holds another plan that is not older.
    pub fn outrun_by(&self) -> Option<u64> {
        let is_ahead =
            |held: &&PlanState| **held != self.plan_state && held.sequence >= self.plan_state.sequence;
        let ahead = self.peers.plans().filter(is_ahead);
        ahead.map(|held| held.sequence).max()
    }

    /// How those that run stand to the plan on offer.
    pub fn stances(&self, now: Duration) -> Vec<Stance<'_>> {
        stances(&self.peers, now, &self.plan_state)
    }

    /// Names of pods with the reason why they are not ready, by their own word. What a silent one said is no longer so.
    pub fn unready(&self, now: Duration) -> Vec<(String, String)> {
        let told = self.peers.pods().filter_map(|peer| {
            let report = peer.fresh(now)?;
            (!report.ready).then(|| (peer.sight.name.clone(), report.reason.clone()))
        });
        told.collect()
    }

    /// Pods that drain, with what is left to do, by their own word; at most [`MOST_NAMED`].
    pub fn draining(&self, now: Duration) -> Vec<Draining> {
        let told = self.peers.pods().filter_map(|peer| {
            let requests = draining::requests(peer.fresh(now)?);
            Some(Draining { pod: peer.sight.name.clone(), requests, until: peer.drained_by? })
        });
        told.take(MOST_NAMED).collect()
    }

    /// Pods with models that are not wholly on their GPU, by their own word; at most [`MOST_NAMED`].
    pub fn off_gpu(&self) -> Vec<(String, Vec<OffGpu>)> {
        let told = self.peers.pods().filter_map(|peer| {
            let models = &peer.report()?.off_gpu;
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

/// What a report gives cause to, at once; anything else waits for the next tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cause {
    /// To look at the size of the pool.
    pub stirs: bool,
    /// To work out what the pods are told, and what the reconcilers want to know.
    pub settles: bool,
}

/// Whether a report is cause to look at the size of the pool: it serves or no longer, is done, is another process, or more
/// than twice as many wait as before. A queue that comes and goes, or gets shorter, can wait for the next tick.
fn stirs(before: &Report, now: &Report) -> bool {
    let turns = |report: &Report| {
        let done = report.gauges.in_flight == 0 && report.gauges.queued == 0;
        (report.ready, report.retiring, report.draining, report.retiring && done, report.epoch)
    };
    turns(before) != turns(now) || now.gauges.queued > before.gauges.queued.saturating_mul(2)
}

/// The report without what moves all the time: most reports of a thousand pods are no cause to look at all others.
fn settling(report: &Report) -> impl PartialEq {
    let loaded = report.gauges.load_permille >= LOADED;
    let plan = (&report.plan, &report.plan_error, &report.plan_versions, report.divisor);
    let standing = (report.serve, report.able_to_serve, report.ready, &report.reason, report.draining);
    (plan, standing, report.relief, report.retiring, &report.off_gpu, loaded)
}

fn load_of(heard: &Heard) -> Load {
    let report = &heard.report;
    Load {
        at: heard.at,
        epoch: report.epoch,
        counters: report.counters,
        gauges: report.gauges,
        models: report.models.clone(),
        retiring: report.retiring,
        ready: report.ready,
    }
}

fn state_of(plan: &PlanDoc) -> PlanState {
    PlanState { sequence: plan.sequence, digest: plan.digest() }
}

fn facts(peer: &Peer) -> PodFacts {
    let report = peer.report();
    PodFacts {
        uid: peer.sight.uid.clone(),
        serves: report.map_or(peer.sight.ready, |report| report.serve == ServePermission::Granted),
        able: report.is_some_and(|report| report.able_to_serve),
        terminating: peer.sight.terminating,
        divisor: peer.least_divisor,
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
