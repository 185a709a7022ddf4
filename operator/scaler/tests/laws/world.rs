//! A small world: one pool, its ReplicaSet, and its load. Steps of a second, no chance but a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use corral_scaler::{
    Config, Decision, Heard, Held, Observation, Phase, PodSeen, Scaler, Sizing, VICTIM_COST, deletion_order,
};

/// Of the load, and of what pods take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// New requests a second.
    pub(crate) rate: f64,
    /// For how long one holds its slot, in seconds.
    pub(crate) service: u64,
}

pub(crate) struct SimPod {
    pub(crate) seen: PodSeen,
    /// When each that runs ends.
    pub(crate) running: Vec<u64>,
    /// Its share of what waits: whoever has a slot free takes from the others.
    pub(crate) queued: usize,
    ready_at: u64,
    retires: bool,
    /// It tells nothing.
    pub(crate) dark: bool,
    pub(crate) arrivals: u64,
    pub(crate) policy_rejects: u64,
    looks: u64,
    completions: u64,
    slot_millis: u64,
}

impl SimPod {
    pub(crate) fn in_system(&self) -> usize {
        self.running.len() + self.queued
    }

    fn serves(&self) -> bool {
        self.seen.ready && !self.seen.terminating
    }
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) scaler: Scaler,
    pub(crate) load: Load,
    pub(crate) slots: usize,
    pub(crate) startup: u64,
    pub(crate) now: u64,
    pub(crate) pods: Vec<SimPod>,
    /// When each that waits came.
    pub(crate) queue: VecDeque<u64>,
    pub(crate) replicas: u32,
    pub(crate) rollout: bool,
    /// It decides at these seconds after each other, over and over.
    pub(crate) rhythm: Vec<u64>,
    /// Pods stay without a node.
    pub(crate) no_place: bool,
    pub(crate) held: Held,
    /// Every so many seconds so many list models.
    pub(crate) listing: Option<(u64, u32)>,
    pub(crate) decision: Decision,
    /// Desired, second by second.
    pub(crate) desired: Vec<u32>,
    /// Pods that died with work, and why that is a fault.
    pub(crate) broken: usize,
    pub(crate) waits: Vec<u64>,
    pub(crate) wrong: u32,
    made: u64,
    turn: u64,
    due: f64,
    decides_at: u64,
    beats: usize,
    pub(crate) poisson: bool,
    random: u64,
}

impl World {
    /// A pool of so many ready pods with four slots each, sized by work.
    pub(crate) fn new(config: Config, pods: u32) -> Self {
        let mut world = Self {
            config,
            scaler: Scaler::new(at(10_000)),
            load: Load { rate: 0.0, service: 8 },
            slots: 4,
            startup: 60,
            now: 10_000,
            pods: Vec::new(),
            queue: VecDeque::new(),
            replicas: pods,
            rollout: false,
            rhythm: vec![2],
            no_place: false,
            held: Held::default(),
            listing: None,
            decision: Decision::default(),
            desired: Vec::new(),
            broken: 0,
            waits: Vec::new(),
            wrong: 0,
            made: 0,
            turn: 0,
            due: 0.0,
            decides_at: 0,
            beats: 0,
            poisson: false,
            random: 0x9e37_79b9_7f4a_7c15,
        };
        for _ in 0..pods {
            world.make_pod();
        }
        for pod in &mut world.pods {
            pod.ready_at = 0;
            pod.seen = PodSeen {
                node: Some(format!("n{}", pod.seen.uid)),
                phase: Phase::Running,
                ready: true,
                ready_since: Some(at(5000)),
                scheduled: Some(at(4000)),
                created: at(4000),
                ..pod.seen.clone()
            };
        }
        world
    }

    pub(crate) fn by_work(min: u32, max: u32) -> Config {
        Config {
            min,
            max,
            slots_per_pod: 4,
            expected_service: at(8),
            sizing: Sizing::default(),
            ..Config::default()
        }
    }

    /// Lets so many seconds pass under a load.
    pub(crate) fn run(&mut self, seconds: u64, rate: f64) -> &mut Self {
        self.load.rate = rate;
        for _ in 0..seconds {
            self.second();
        }
        self
    }

    pub(crate) fn second(&mut self) {
        self.now += 1;
        self.start_pods();
        self.serve();
        self.arrive();
        self.list();
        self.report();
        if self.now >= self.decides_at {
            self.decide();
            self.decides_at = self.now + self.rhythm[self.beats % self.rhythm.len()];
            self.beats += 1;
        }
        self.replica_set();
        self.desired.push(self.decision.desired);
    }

    /// What is seen now.
    pub(crate) fn seen(&self) -> Observation {
        Observation {
            replicas: self.replicas,
            exist: 0,
            rollout: self.rollout,
            pods: self.pods.iter().map(|pod| pod.seen.clone()).collect(),
            held: self.held,
            shortage: None,
        }
    }

    pub(crate) fn decide(&mut self) {
        let seen = self.seen();
        self.decision = self.scaler.decide(&self.config, &seen, at(self.now));
        self.wrong += self.decision.wrong_victim;
        self.replicas = self.decision.replicas;
        for pod in &mut self.pods {
            pod.retires = self.decision.retire.contains(&pod.seen.uid);
            pod.seen.deletion_cost = self.decision.costs.get(&pod.seen.uid).copied().unwrap_or_default();
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.pods.iter().filter(|pod| !pod.seen.terminating).count()
    }

    /// The most that was desired in the last so many seconds.
    pub(crate) fn most(&self, seconds: usize) -> u32 {
        self.desired.iter().rev().take(seconds).copied().max().unwrap()
    }

    pub(crate) fn make_pod(&mut self) {
        self.made += 1;
        let uid = format!("pod-{:05}", self.made);
        let seen = PodSeen { uid: uid.clone(), name: uid, created: at(self.now), ..PodSeen::default() };
        self.pods.push(SimPod {
            seen,
            running: Vec::new(),
            queued: 0,
            ready_at: self.now + self.startup + 1,
            retires: false,
            dark: false,
            arrivals: 0,
            policy_rejects: 0,
            looks: 0,
            completions: 0,
            slot_millis: 0,
        });
    }

    fn start_pods(&mut self) {
        let now = self.now;
        for pod in self.pods.iter_mut().filter(|pod| !pod.seen.terminating) {
            if pod.seen.node.is_none() && !self.no_place && now > pod.seen.created.as_secs() {
                pod.seen.node = Some(format!("n{}", pod.seen.uid));
                pod.seen.scheduled = Some(at(now));
                pod.ready_at = now + self.startup;
            }
            if pod.seen.node.is_none() {
                continue;
            }
            let is_up = now >= pod.ready_at;
            pod.seen.phase = if is_up { Phase::Running } else { Phase::Pending };
            let ready = is_up && !pod.retires;
            if ready != pod.seen.ready {
                pod.seen.ready = ready;
                pod.seen.ready_since = ready.then(|| at(now));
            }
        }
    }

    fn serve(&mut self) {
        let (now, slots, service) = (self.now, self.slots, self.load.service);
        for pod in &mut self.pods {
            let before = pod.running.len();
            pod.running.retain(|end| *end > now);
            let ended = (before - pod.running.len()) as u64;
            pod.completions += ended;
            pod.slot_millis += ended * service * 1000;
            while pod.running.len() < slots && pod.serves() {
                let Some(came) = self.queue.pop_front() else { break };
                self.waits.push(now - came);
                pod.running.push(now + service);
            }
        }
        self.pods.retain(|pod| !pod.seen.terminating || pod.in_system() > 0);
    }

    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn arrivals(&mut self) -> u64 {
        if !self.poisson {
            self.due += self.load.rate;
            let whole = self.due.floor();
            self.due -= whole;
            return whole as u64;
        }
        let (mut count, mut left) = (0, self.chance().ln() + self.load.rate);
        while left > 0.0 {
            left += self.chance().ln();
            count += 1;
        }
        count
    }

    /// Each comes to one of the pods that serve, in turn.
    fn arrive(&mut self) {
        let arrivals = self.arrivals();
        let serving = self.pods.iter().filter(|pod| pod.serves()).count();
        if serving == 0 {
            return;
        }
        self.queue.extend((0..arrivals).map(|_| self.now));
        let waiting = self.queue.len() / serving;
        let turn = (self.turn..self.turn + arrivals).map(|turn| turn % serving as u64);
        let mut came = vec![0; serving];
        turn.for_each(|at| came[at as usize] += 1);
        self.turn += arrivals;
        for pod in self.pods.iter_mut().filter(|pod| !pod.serves()) {
            pod.queued = 0;
        }
        let more = self.queue.len() % serving;
        let serving = self.pods.iter_mut().filter(|pod| pod.serves());
        for ((pod, came), at) in serving.zip(came).zip(0..) {
            pod.arrivals += came;
            pod.queued = waiting + usize::from(at < more);
        }
    }

    /// A list is answered by a pod, or held until one is there; it is no arrival.
    fn list(&mut self) {
        let Some((every, many)) = self.listing else { return };
        let come = if self.now.is_multiple_of(every) { many } else { 0 };
        self.held.epoch = 1;
        match self.pods.iter_mut().find(|pod| pod.serves()) {
            Some(pod) => {
                pod.looks += u64::from(come + self.held.requests);
                self.held.requests = 0;
            }
            None => self.held.requests += come,
        }
    }

    fn report(&mut self) {
        let (now, slots) = (self.now, self.slots);
        for pod in &mut self.pods {
            if pod.seen.phase != Phase::Running || pod.dark {
                continue;
            }
            let mut heard = Heard {
                at: at(now),
                epoch: 1,
                retiring: pod.retires,
                ready: pod.seen.ready,
                ..Heard::default()
            };
            heard.counters.arrivals = pod.arrivals + pod.policy_rejects;
            heard.counters.policy_rejects = pod.policy_rejects;
            heard.counters.looks = pod.looks;
            heard.counters.completions = pod.completions;
            heard.counters.slot_millis = pod.slot_millis;
            heard.counters.tokens_out = pod.completions * 100;
            heard.gauges.slots = slots as u32;
            heard.gauges.in_flight = pod.running.len() as u32;
            heard.gauges.queued = pod.queued as u32;
            heard.gauges.oldest_wait_ms = self.queue.front().map_or(0, |came| (now - came) * 1000);
            pod.seen.heard = Some(heard);
        }
    }

    /// Makes and deletes, by the controller's own order.
    fn replica_set(&mut self) {
        let wanted = self.replicas as usize;
        while self.live() < wanted {
            self.make_pod();
        }
        let excess = self.live().saturating_sub(wanted);
        if excess == 0 {
            return;
        }
        let seen: Vec<PodSeen> = self.pods.iter().map(|pod| pod.seen.clone()).collect();
        let order = deletion_order(&seen, at(self.now));
        let doomed: BTreeSet<&str> = order.iter().take(excess).map(|pod| pod.uid.as_str()).collect();
        for pod in &mut self.pods {
            if doomed.contains(pod.seen.uid.as_str()) {
                self.broken += usize::from(pod.in_system() > 0);
                assert!(pod.seen.deletion_cost == VICTIM_COST || pod.seen.phase == Phase::Pending);
                pod.seen.terminating = true;
                pod.seen.ready = false;
            }
        }
    }

    /// A pod dies by itself.
    pub(crate) fn kill(&mut self, uid: &str) {
        self.pods.retain(|pod| pod.seen.uid != uid);
    }

    /// A new operator, that knows nothing.
    pub(crate) fn restart_operator(&mut self) {
        self.scaler = Scaler::new(at(self.now));
    }

    /// How much each pod works, by UID.
    pub(crate) fn work(&self) -> BTreeMap<String, usize> {
        self.pods.iter().map(|pod| (pod.seen.uid.clone(), pod.in_system())).collect()
    }
}

pub(crate) fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
