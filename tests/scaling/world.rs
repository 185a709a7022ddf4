//! The pool, its clients and the time: what happens next, and what comes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::agenda::{Agenda, Event, Request, Time};
use crate::autoscaler::{Autoscaler, Fate, Orders, Sight};
use crate::holder::Holder;
use crate::load::{Load, Service};
use crate::outcome::{Choice, Decided, Outcome};
use crate::pod::Pod;
use crate::random::Random;

/// What a scenario does to the pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Deed {
    /// The autoscaler's own fate.
    Suffer(Fate),
    /// The operator does nothing until then, and its successor knows nothing.
    NoLeader(Time),
    /// Of a thousand pods so many answer the operator no more.
    Dark(u32),
    /// Another writer overwrites every annotation that says who goes first, with a cost of its own.
    Overwrite(i32),
    /// The pods that are busiest, so many, are out of their Service by their overload; 0: none is.
    Overload(usize),
    /// So many requests a second are refused by a limit, at every pod.
    Flood(u64),
}

/// Where a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// One line for all, without an end: whichever pod has a free slot takes the next.
    Common,
    /// In the pod that it was sent to, as in life; so many at most, and for so long. Who is turned away comes again.
    Own { depth: u32, longest: Duration },
}

/// As a pool has it where nothing else is said: 30 before the wait would be longer than a minute.
pub(crate) const OWN: Line = Line::Own { depth: 30, longest: Duration::from_mins(1) };

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) load: Load,
    pub(crate) service: Service,
    pub(crate) slots: u32,
    /// Pods that there are in the beginning.
    pub(crate) pods: u32,
    /// Seconds until a pod that has a place serves, give or take 5 %.
    pub(crate) startup: f64,
    pub(crate) line: Line,
    /// Something holds the requests that come while no pod is there.
    pub(crate) activator: bool,
    /// How many pods find a place.
    pub(crate) places: u32,
    /// In the order of time.
    pub(crate) deeds: Vec<(Time, Deed)>,
    pub(crate) length: Time,
    /// What came before counts for nothing.
    pub(crate) warm: Time,
    pub(crate) seed: u64,
}

impl Setting {
    /// Four slots, 8 s a request.
    pub(crate) fn new(load: Load, pods: u32, startup: f64, length: Time) -> Self {
        let service = Service::Exponential(8.0);
        let (line, activator, places, deeds) = (OWN, false, u32::MAX, Vec::new());
        Self {
            load,
            service,
            slots: 4,
            pods,
            startup,
            line,
            activator,
            places,
            deeds,
            length,
            warm: Time::ZERO,
            seed: 1,
        }
    }

    pub(crate) fn seeded(&self, seed: u64) -> Self {
        Self { seed, ..self.clone() }
    }

    /// Pods that are needed so that three slots of four are taken.
    pub(crate) fn need(&self, rate: f64) -> f64 {
        rate * self.service.mean() / (f64::from(self.slots) * 0.75)
    }
}

/// Streams of chance, one a purpose: so all autoscalers meet the same requests.
pub(crate) struct Chances {
    pub(crate) arrivals: Random,
    services: Random,
    pub(crate) balancer: Random,
    pub(crate) startups: Random,
    pub(crate) lags: Random,
    pub(crate) clients: Random,
}

pub(crate) struct World<'a> {
    pub(crate) setting: &'a Setting,
    pub(crate) agenda: Agenda,
    pub(crate) chances: Chances,
    /// All that there ever were.
    pub(crate) pods: Vec<Pod>,
    /// Those that are not gone.
    pub(crate) alive: BTreeSet<usize>,
    /// Those that the load balancers know.
    pub(crate) listed: Vec<usize>,
    /// How many wait in all.
    pub(crate) waiting: u32,
    /// Asked of the Deployment.
    pub(crate) replicas: u32,
    retire: BTreeSet<usize>,
    requests: u64,
    /// The operator is there again then.
    absent_until: Time,
    flood: u64,
    pub(crate) holder: Holder,
    pub(crate) outcome: Outcome,
}

/// Lets the time pass, and says what came of it.
pub(crate) fn run(setting: &Setting, autoscaler: &mut dyn Autoscaler) -> Outcome {
    let mut world = World::new(setting);
    world.begin();
    while let Some(event) = world.agenda.next(setting.length) {
        world.happen(event, autoscaler);
    }
    world.finish()
}

impl<'a> World<'a> {
    fn new(setting: &'a Setting) -> Self {
        let stream = |number| Random::new(setting.seed, number);
        let chances = Chances {
            arrivals: stream(0),
            services: stream(1),
            balancer: stream(2),
            startups: stream(3),
            lags: stream(4),
            clients: stream(5),
        };
        Self {
            setting,
            agenda: Agenda::default(),
            chances,
            pods: Vec::new(),
            alive: BTreeSet::new(),
            listed: Vec::new(),
            waiting: 0,
            replicas: setting.pods,
            retire: BTreeSet::new(),
            requests: 0,
            absent_until: Time::ZERO,
            flood: 0,
            holder: Holder::default(),
            outcome: Outcome { length: setting.length, warm: setting.warm, ..Outcome::default() },
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.agenda.now
    }

    fn begin(&mut self) {
        (0..self.setting.pods).for_each(|_| self.there_already());
        self.comes_next();
        self.agenda.at(Time::ZERO, Event::Looks);
        for (number, (at, _)) in self.setting.deeds.iter().enumerate() {
            self.agenda.at(*at, Event::Deed(number));
        }
    }

    fn finish(mut self) -> Outcome {
        self.agenda.now = self.setting.length;
        let ran = |pod: &Pod| self.had_place(pod);
        self.outcome.pod_seconds += self.alive.iter().map(|number| ran(&self.pods[*number])).sum::<f64>();
        self.outcome
    }

    /// For how many seconds, once it was warm.
    pub(crate) fn had_place(&self, pod: &Pod) -> f64 {
        let since = |since: Time| self.now().saturating_sub(since.max(self.setting.warm));
        pod.scheduled.map_or(0.0, |scheduled| since(scheduled).as_secs_f64())
    }

    fn happen(&mut self, event: Event, autoscaler: &mut dyn Autoscaler) {
        match event {
            Event::Comes => self.come(),
            Event::Returns(request) => self.send(request),
            Event::Ends { pod, request } => self.end(pod, request),
            Event::TimesOut { pod, number } => self.time_out(pod, number),
            Event::Looks => self.turn(autoscaler),
            Event::Asked => self.look(autoscaler),
            Event::Releases => self.release(),
            Event::HolderListed => self.list_holder(),
            Event::Reconciles => self.reconcile(),
            Event::Runs(pod) => self.runs(pod),
            Event::Loaded(pod) => self.loaded(pod),
            Event::Probed(pod) => self.probed(pod),
            Event::Listed(pod) => self.list(pod),
            Event::LeaseEnds(pod) => self.lease_ends(pod),
            Event::Drained(pod) => self.drained(pod),
            Event::Killed(pod) => self.killed(pod),
            Event::Deed(number) => self.does(self.setting.deeds[number].1, autoscaler),
        }
    }

    fn comes_next(&mut self) {
        let next = self.setting.load.next(self.now(), self.setting.length, &mut self.chances.arrivals);
        if let Some(at) = next {
            self.agenda.at(at, Event::Comes);
        }
    }

    fn come(&mut self) {
        self.requests += 1;
        let service = self.setting.service.draw(&mut self.chances.services);
        self.send(Request { number: self.requests, came: self.now(), service, again: false });
        self.comes_next();
    }

    fn does(&mut self, deed: Deed, autoscaler: &mut dyn Autoscaler) {
        match deed {
            Deed::Suffer(fate) => autoscaler.suffer(fate),
            Deed::NoLeader(until) => self.absent_until = until,
            Deed::Dark(of_thousand) => self.darken(of_thousand),
            Deed::Overwrite(cost) => self.overwrite(cost),
            Deed::Overload(pods) => self.overload(pods),
            Deed::Flood(rate) => self.flood = rate,
        }
    }

    fn darken(&mut self, of_thousand: u32) {
        let pods = u32::try_from(self.alive.len()).unwrap();
        let dark = usize::try_from((pods * of_thousand).div_ceil(1000)).unwrap();
        for (at, number) in self.alive.iter().enumerate() {
            self.pods[*number].dark = at < dark;
        }
    }

    fn overwrite(&mut self, cost: i32) {
        let now = self.now();
        for number in &self.alive {
            let told = &mut self.pods[*number].cost;
            if told.get() != 0 {
                told.set(cost, now);
            }
        }
    }

    fn overload(&mut self, pods: usize) {
        let mut by_load: Vec<usize> = self.alive.iter().copied().collect();
        by_load.sort_by_key(|number| std::cmp::Reverse(self.pods[*number].busy()));
        for (at, number) in by_load.into_iter().enumerate() {
            self.pods[number].overloaded = at < pods;
            self.readiness(number);
        }
    }

    /// The autoscaler's turn.
    fn turn(&mut self, autoscaler: &mut dyn Autoscaler) {
        self.agenda.after(autoscaler.period(), Event::Looks);
        self.refuse_by_limits(autoscaler.period());
        self.look(autoscaler);
    }

    fn look(&mut self, autoscaler: &mut dyn Autoscaler) {
        if self.now() < self.absent_until {
            return;
        }
        if self.absent_until > Time::ZERO {
            self.absent_until = Time::ZERO;
            autoscaler.suffer(Fate::Restart);
        }
        let orders = autoscaler.look(&self.sight());
        self.note(&orders);
        self.carry_out(orders);
    }

    fn sight(&self) -> Sight<'_> {
        let unplaced = |pod: &&Pod| pod.scheduled.is_none() && pod.terminating.is_none();
        let pods: Vec<&Pod> = self.alive.iter().map(|number| &self.pods[*number]).collect();
        let without_place = pods.iter().copied().filter(unplaced).map(|pod| pod.created).min();
        Sight {
            now: self.now(),
            replicas: self.replicas,
            pods,
            slots: self.setting.slots,
            lag: Duration::from_millis(200),
            without_place,
            held: self.holder.held(self.now()),
        }
    }

    /// Those refused since the last turn.
    fn refuse_by_limits(&mut self, since: Duration) {
        let refused = self.flood * since.as_secs();
        for number in &self.alive {
            let counters = &mut self.pods[*number].counters;
            counters.arrivals += refused;
            counters.policy_rejects += refused;
        }
    }

    fn note(&mut self, orders: &Orders) {
        let Orders { desired, replicas, reason, limited, hears, .. } = *orders;
        self.outcome.wrong_victims += orders.wrong_victims;
        self.outcome.decide(Decided { at: self.now(), desired, replicas, reason, limited, hears });
        let chosen: Vec<usize> = orders.retire.difference(&self.retire).copied().collect();
        let left = self.alive.iter().map(|number| &self.pods[*number]);
        let left = left.filter(|pod| pod.loaded && pod.says_ready() && pod.terminating.is_none());
        let left = left.filter(|pod| !pod.dark && !orders.retire.contains(&pod.number));
        let least_left = left.map(|pod| pod.in_flight).min().unwrap_or(u32::MAX);
        let choice = |number: usize| Choice { in_flight: self.pods[number].in_flight, least_left };
        self.outcome.choices.extend(chosen.into_iter().map(choice));
    }

    fn carry_out(&mut self, mut orders: Orders) {
        self.stand_in(orders.desired);
        if orders.desired == 0 && !self.stands_in() {
            orders.retire.clear();
        }
        for (number, cost) in orders.costs {
            self.outcome.patches += 1;
            let now = self.now();
            self.pods[number].cost.set(cost, now);
        }
        let before = std::mem::replace(&mut self.retire, orders.retire);
        let retire = self.retire.clone();
        before.difference(&retire).for_each(|number| self.let_go(*number));
        for number in retire {
            self.retire(number);
        }
        self.ask(orders.replicas);
    }
}
