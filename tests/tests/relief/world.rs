//! Pods with the sidecar's automaton, leaders with the operator's, and directives that are really signed between them.

use std::sync::Arc;
use std::time::Duration;

use corral_limiter::Nanos;
use corral_operator::exchange::peer::{PodSight, Role};
use corral_operator::exchange::pool::{Offer, PoolState};
use corral_sidecar::health::relief::{Leaving, ReliefSettings, Signs, Verdict};
use corral_wire::{
    Counters, Directive, Gauges, IdentityDoc, PLAN_VERSION, PlanDoc, PlanState, PoolKeys, PoolRef, Position,
    QueueDoc, Report, ServePermission, Signed,
};

pub(crate) fn keys() -> PoolKeys {
    PoolKeys::new(vec![vec![7; 32]]).unwrap()
}

fn pool() -> PoolRef {
    PoolRef { namespace: "llm".into(), name: "chat".into() }
}

pub(crate) fn uid(pod: usize) -> String {
    format!("pod-{pod}")
}

/// The sidecar's side of the exchange, without its sockets.
pub(crate) struct Pod {
    uid: String,
    keys: PoolKeys,
    obeyed: Position,
    permitted_at: Option<Nanos>,
    plan: Option<PlanState>,
    leaving: Leaving,
    verdict: Verdict,
    /// It would be ready but for its load.
    pub(crate) able: bool,
    pub(crate) load_permille: u32,
}

impl Pod {
    pub(crate) fn new(pod: usize, settings: ReliefSettings) -> Self {
        Self {
            uid: uid(pod),
            keys: keys(),
            obeyed: Position::default(),
            permitted_at: None,
            plan: None,
            leaving: Leaving::new(settings),
            verdict: Verdict::default(),
            able: true,
            load_permille: 0,
        }
    }

    pub(crate) fn is_out(&self) -> bool {
        self.verdict.out.is_some()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.able && !self.is_out()
    }

    /// Takes a step of the automaton.
    pub(crate) fn step(&mut self, now: Duration, index: f64, refused: bool, filled: f64) {
        let signs = Signs {
            index,
            refused,
            filled,
            loading: false,
            able: self.able,
            permitted_at: self.permitted_at,
            dice: 0.0,
        };
        self.verdict = self.leaving.step(now.into(), signs);
    }

    /// Obeys a directive if it is above what was obeyed, and answers it either way.
    pub(crate) fn answer(&mut self, now: Duration, asked: &Signed) -> Signed {
        let directive: Directive = self.keys.open(&self.uid, None, asked).unwrap();
        if asked.position > self.obeyed {
            self.obeyed = asked.position;
            self.permitted_at = directive.relief.then(|| now.into());
            let sent = directive.plan.as_ref();
            self.plan = sent
                .map(|plan| PlanState { sequence: plan.sequence, digest: plan.digest() })
                .or(self.plan.take());
        }
        self.keys.sign_answer(&self.uid, self.obeyed, asked.position, &self.report()).unwrap()
    }

    fn report(&self) -> Report {
        Report {
            pool: pool(),
            plan_versions: vec![PLAN_VERSION],
            plan: self.plan.clone(),
            plan_error: None,
            divisor: 1,
            serve: ServePermission::Granted,
            able_to_serve: true,
            ready: self.is_ready(),
            reason: String::new(),
            relief: self.verdict.into(),
            retiring: false,
            draining: false,
            drain_left_ms: None,
            off_gpu: Vec::new(),
            models: Vec::new(),
            epoch: 1,
            counters: Counters::default(),
            gauges: Gauges { load_permille: self.load_permille, ..Gauges::default() },
        }
    }
}

fn sights(ready: &[bool]) -> Vec<PodSight> {
    let sight = |(pod, ready): (usize, &bool)| PodSight {
        uid: uid(pod),
        name: uid(pod),
        role: Role::Pod,
        ip: Some([10, 0, 0, u8::try_from(pod).unwrap()].into()),
        ready: *ready,
        terminating: false,
    };
    ready.iter().enumerate().map(sight).collect()
}

/// One operator that leads, or believes that it does.
pub(crate) struct Leader {
    pub(crate) state: PoolState,
    since: Duration,
}

impl Leader {
    pub(crate) fn new(term: u64, now: Duration, pods: usize) -> Self {
        let plan = PlanDoc {
            version: PLAN_VERSION,
            pool: pool(),
            sequence: 1,
            identity: IdentityDoc::default(),
            queue: QueueDoc { max_depth: 10, max_wait_ms: 10_000, ..QueueDoc::default() },
            limits: Vec::new(),
            ..PlanDoc::default()
        };
        let offer = Offer { keys: keys(), term, plan: Arc::new(plan), stored_divisor: 1 };
        let mut state = PoolState::new(pool(), offer);
        state.take_peers(now, sights(&vec![true; pods]));
        Self { state, since: now }
    }

    /// Kubernetes calls these pods ready, and the others not.
    pub(crate) fn see(&mut self, now: Duration, ready: &[bool]) {
        self.state.take_peers(now, sights(ready));
        self.step(now);
    }

    /// Works out what follows from time alone; whether there is news.
    pub(crate) fn step(&mut self, now: Duration) -> bool {
        self.state.step(now, now.saturating_sub(self.since))
    }

    /// Calls a pod, and hears it at once.
    pub(crate) fn call(&mut self, now: Duration, pod: &mut Pod) {
        let (asked, message) = self.state.message(now, &pod.uid).unwrap();
        let answer = pod.answer(now, &message);
        self.hear(now, &pod.uid, asked, &answer);
    }

    pub(crate) fn hear(&mut self, now: Duration, uid: &str, asked: Position, answer: &Signed) {
        self.state.hear(now, uid, asked, answer).unwrap();
        self.step(now);
    }
}
