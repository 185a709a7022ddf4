//! Kubernetes: a Deployment with its `ReplicaSet`, places for pods, kubelets, and the end of a pod.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::agenda::{Event, Time};
use crate::order::{Seen, compare};
use crate::outcome::Death;
use crate::pod::{Pod, Told};
use crate::world::World;

/// How long an order to retire holds.
const LEASE: Duration = Duration::from_secs(10);
/// A draining pod serves at least so long, for load balancers that have not heard of it.
const DELAY: Duration = Duration::from_secs(5);
/// The longest drain, and Kubernetes' grace after it.
const GRACE: Duration = Duration::from_secs(330);
/// Of the start-up time, the part after which containers run.
const PULLED: f64 = 0.5;

impl World<'_> {
    /// Somewhere between these many milliseconds.
    fn lag(&mut self, [least, most]: [f64; 2]) -> Duration {
        Duration::from_secs_f64((least + (most - least) * self.chances.lags.unit()) / 1000.0)
    }

    pub(crate) fn ask(&mut self, replicas: u32) {
        if replicas != self.replicas {
            self.replicas = replicas;
            self.reconcile_soon();
        }
    }

    fn reconcile_soon(&mut self) {
        let lag = self.lag([50.0, 500.0]);
        self.agenda.after(lag, Event::Reconciles);
    }

    pub(crate) fn reconcile(&mut self) {
        let active = self.active();
        let wanted = usize::try_from(self.replicas).unwrap();
        match active.len() {
            fewer if fewer < wanted => (fewer..wanted).for_each(|_| self.create()),
            more => self.pick(&active, more - wanted).into_iter().for_each(|number| self.delete(number)),
        }
    }

    fn active(&self) -> Vec<usize> {
        self.alive.iter().copied().filter(|number| self.pods[*number].terminating.is_none()).collect()
    }

    /// By what the controller's own informer shows, which is behind.
    fn pick(&mut self, active: &[usize], count: usize) -> Vec<usize> {
        let (now, lag) = (self.now(), self.lag([50.0, 1_500.0]));
        let mut on_node: BTreeMap<usize, usize> = BTreeMap::new();
        for number in active {
            *on_node.entry(self.pods[*number].node()).or_default() += 1;
        }
        let seen = |number: &usize| {
            let pod = &self.pods[*number];
            Seen::of(pod, on_node[&pod.node()], now, lag)
        };
        let mut seen: Vec<Seen> = active.iter().map(seen).collect();
        let first = || {
            // Not sorted: the order has circles where ages are alike, and a sort may refuse such.
            let (at, _) = seen.iter().enumerate().min_by(|one, other| compare(one.1, other.1, now))?;
            Some(seen.swap_remove(at).number)
        };
        std::iter::from_fn(first).take(count).collect()
    }

    fn create(&mut self) {
        let pod = Pod::new(self.pods.len(), self.now());
        self.outcome.births.push(pod.created);
        self.add(pod);
        self.schedule();
    }

    fn add(&mut self, pod: Pod) {
        self.alive.insert(pod.number);
        self.pods.push(pod);
    }

    /// A pod that has been there since long before the run.
    pub(crate) fn there_already(&mut self) {
        let begun = Some(Time::ZERO);
        let number = self.pods.len();
        let ready = Told::new(true, Time::ZERO);
        let pod = Pod {
            scheduled: begun,
            runs: begun,
            loaded: true,
            ready,
            listed: true,
            ..Pod::new(number, Time::ZERO)
        };
        self.add(pod);
        self.listed.push(number);
    }

    /// Who has no place gets one, if there is one, the oldest first.
    fn schedule(&mut self) {
        let taken = self.alive.iter().filter(|number| self.pods[**number].scheduled.is_some()).count();
        let free = usize::try_from(self.setting.places).unwrap().saturating_sub(taken);
        let waits = |number: &usize| {
            self.pods[*number].scheduled.is_none() && self.pods[*number].terminating.is_none()
        };
        let waiting: Vec<usize> = self.alive.iter().copied().filter(waits).take(free).collect();
        for number in waiting {
            self.place(number);
        }
    }

    fn place(&mut self, number: usize) {
        let takes = self.setting.startup * (0.95 + 0.1 * self.chances.startups.unit());
        self.pods[number].scheduled = Some(self.now());
        self.agenda.after(Duration::from_secs_f64(takes * PULLED), Event::Runs(number));
        self.agenda.after(Duration::from_secs_f64(takes), Event::Loaded(number));
    }

    pub(crate) fn runs(&mut self, number: usize) {
        self.pods[number].runs = Some(self.now());
    }

    pub(crate) fn loaded(&mut self, number: usize) {
        if self.pods[number].terminating.is_none() {
            self.pods[number].loaded = true;
            self.outcome.loaded.push(self.agenda.now);
            self.readiness(number);
        }
    }

    /// What the sidecar says of its readiness may have changed: the kubelet sees it when it asks.
    pub(crate) fn readiness(&mut self, number: usize) {
        let at = self.pods[number].next_probe(self.now());
        self.agenda.at(at, Event::Probed(number));
    }

    pub(crate) fn probed(&mut self, number: usize) {
        let now = self.now();
        let pod = &mut self.pods[number];
        if pod.terminating.is_none() && pod.says_ready() != pod.ready.get() {
            pod.ready.set(pod.says_ready(), now);
            self.list_soon(number);
        }
    }

    fn list_soon(&mut self, number: usize) {
        let lag = self.lag([200.0, 1_000.0]);
        self.agenda.after(lag, Event::Listed(number));
    }

    fn delete(&mut self, number: usize) {
        let now = self.now();
        let pod = &mut self.pods[number];
        pod.terminating = Some(now);
        let death = Death {
            in_flight: pod.in_flight,
            queued: pod.queued(),
            chosen: pod.retires_until.is_some(),
            loaded: pod.loaded,
        };
        self.outcome.deaths.push(death);
        self.list_soon(number);
        let soonest = if death.loaded { DELAY } else { Duration::from_secs(1) };
        self.agenda.after(soonest, Event::Drained(number));
        self.agenda.after(GRACE, Event::Killed(number));
    }

    /// Goes if it has nothing more to do.
    pub(crate) fn drained(&mut self, number: usize) {
        let now = self.now();
        let pod = &self.pods[number];
        let may_go = pod.terminating.is_some_and(|since| !pod.loaded || since + DELAY <= now);
        if may_go && pod.busy() == 0 && !pod.gone {
            self.goes(number);
        }
    }

    pub(crate) fn killed(&mut self, number: usize) {
        let pod = &self.pods[number];
        if !pod.gone {
            self.outcome.broken += u64::from(pod.in_flight);
            self.outcome.dropped += u64::from(pod.queued());
            self.goes(number);
        }
    }

    fn goes(&mut self, number: usize) {
        self.outcome.pod_seconds += self.had_place(&self.pods[number]);
        let pod = &mut self.pods[number];
        pod.gone = true;
        self.waiting -= pod.queued();
        pod.line.clear();
        self.alive.remove(&number);
        self.schedule();
        self.reconcile_soon();
    }

    /// The order to retire, or its renewal.
    pub(crate) fn retire(&mut self, number: usize) {
        let now = self.now();
        let pod = &mut self.pods[number];
        if pod.dark || pod.runs.is_none() {
            return;
        }
        let is_new = pod.retires_until.replace(now + LEASE).is_none();
        self.agenda.after(LEASE, Event::LeaseEnds(number));
        if is_new {
            self.readiness(number);
        }
    }

    pub(crate) fn let_go(&mut self, number: usize) {
        let pod = &mut self.pods[number];
        if !pod.dark && !pod.gone && pod.terminating.is_none() && pod.retires_until.take().is_some() {
            self.outcome.let_go.push(self.agenda.now);
            self.readiness(number);
        }
    }

    pub(crate) fn lease_ends(&mut self, number: usize) {
        let pod = &mut self.pods[number];
        if pod.retires_until.is_some_and(|until| until <= self.agenda.now) && pod.terminating.is_none() {
            pod.retires_until = None;
            self.readiness(number);
        }
    }

    /// The pod with the longest line.
    pub(crate) fn longest_line(&self) -> Option<usize> {
        let with_line = self.alive.iter().copied().filter(|number| !self.pods[*number].line.is_empty());
        with_line.min_by_key(|number| (Reverse(self.pods[*number].line.len()), *number))
    }
}
