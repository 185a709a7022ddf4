//! Time, slots and clients: what happens next, and what the policy makes of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use corral_limiter::Nanos;

use crate::load::{Arrivals, Client, CostModel, DECODE, Request, nanos, seconds};
use crate::memory::Memory;
use crate::outcome::{Account, Outcome, between};
use crate::policy::{Fate, Policy};
use crate::random::Random;

/// After how many tokens of output the policy is told how far it is: 0.2 s.
const STEP: u64 = 10;
/// Runs last a third of their time where the compiler does not optimize; the goals are the same.
const SHORTENED: u64 = if cfg!(debug_assertions) { 3 } else { 1 };
/// Who keeps so many requests going waits so long with the next one when the last was refused.
const AFTER_REFUSAL: Nanos = Nanos::from_secs(1);

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) clients: Vec<Client>,
    /// In all.
    pub(crate) slots: u32,
    pub(crate) length: Nanos,
    /// What came before counts for nothing.
    pub(crate) warm: Nanos,
    pub(crate) seed: u64,
    /// In what service is measured.
    pub(crate) cost: CostModel,
    /// When everybody's service is written down.
    pub(crate) marks: Vec<Nanos>,
    /// How many models fit into memory, and how long one takes to load.
    pub(crate) models: (usize, Nanos),
}

impl Setting {
    /// So many minutes, and a tenth as many before that count for nothing. Without optimization shorter.
    pub(crate) fn new(slots: u32, minutes: u64, clients: Vec<Client>) -> Self {
        let seconds = minutes * 60 / SHORTENED;
        let warm = Nanos::from_secs(seconds / 10);
        Self::exactly(slots, [warm, warm.plus(Nanos::from_secs(seconds))], clients)
    }

    /// Measured from one instant to another.
    pub(crate) fn exactly(slots: u32, [warm, length]: [Nanos; 2], clients: Vec<Client>) -> Self {
        let (cost, marks, models) = (CostModel::SlotTime, vec![warm, length], (usize::MAX, Nanos::ZERO));
        Self { clients, slots, length, warm, seed: 1, cost, marks, models }
    }

    pub(crate) fn seeded(&self, seed: u64) -> Self {
        Self { seed, ..self.clone() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Comes(usize),
    /// Its model is there, and it is served from now on.
    Begins(u64),
    /// It has generated a few tokens more.
    Steps(u64),
    Ends(u64),
    TimesOut(u64),
    GivesUp(u64),
    Mark,
    Look,
}

struct Running {
    request: Request,
    /// When it was first served, once its model is there.
    begun: Option<Nanos>,
}

impl Running {
    fn served(&self, now: Nanos) -> Nanos {
        self.begun.map_or(Nanos::ZERO, |begun| now.since(begun))
    }
}

struct World<'a, P: Policy + ?Sized> {
    setting: &'a Setting,
    policy: &'a mut P,
    now: Nanos,
    events: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    /// Numbers events and requests.
    last: u64,
    random: Vec<Random>,
    waiting: BTreeMap<u64, Request>,
    /// How many of each client wait.
    waits: Vec<u32>,
    running: BTreeMap<u64, Running>,
    /// Those with a slot whose model has no room yet.
    blocked: Vec<u64>,
    memory: Memory,
    /// What requests that are over have cost, by client.
    served: Vec<f64>,
    look: Option<Nanos>,
    outcome: Outcome,
}

/// Lets the time pass, and says what came of it.
pub(crate) fn run<P: Policy + ?Sized>(setting: &Setting, policy: &mut P) -> Outcome {
    let mut world = World::new(setting, policy);
    world.begin();
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        if at > setting.length {
            break;
        }
        world.now = at;
        world.happen(event);
        world.dispatch();
        world.measure();
    }
    world.outcome.loads = world.memory.loads();
    world.outcome
}

impl<'a, P: Policy + ?Sized> World<'a, P> {
    fn new(setting: &'a Setting, policy: &'a mut P) -> Self {
        let clients = setting.clients.len();
        let capacity = f64::from(setting.slots) * between(setting.warm, setting.length);
        Self {
            setting,
            policy,
            now: Nanos::ZERO,
            events: BinaryHeap::new(),
            last: 0,
            random: (0..clients).map(|client| Random::new(setting.seed, client)).collect(),
            waiting: BTreeMap::new(),
            waits: vec![0; clients],
            running: BTreeMap::new(),
            blocked: Vec::new(),
            memory: Memory::new(setting.models.0, setting.models.1),
            served: vec![0.0; clients],
            look: None,
            outcome: Outcome::new(clients, capacity),
        }
    }

    fn begin(&mut self) {
        for (number, client) in self.setting.clients.iter().enumerate() {
            match client.arrivals {
                Arrivals::Open(_) => self.comes_after(number, client.from),
                Arrivals::Closed(at_once) => {
                    (0..at_once).for_each(|_| self.at(client.from, Event::Comes(number)));
                }
            }
        }
        self.setting.marks.iter().for_each(|mark| self.at(*mark, Event::Mark));
    }

    fn at(&mut self, time: Nanos, event: Event) {
        self.last += 1;
        self.events.push(Reverse((time, self.last, event)));
    }

    fn comes_after(&mut self, number: usize, time: Nanos) {
        if let Arrivals::Open(every) = self.setting.clients[number].arrivals {
            let gap = nanos(self.random[number].exponential(every));
            self.at(time.plus(gap), Event::Comes(number));
        }
    }

    /// Who keeps so many going sends another for the one that is over.
    fn again(&mut self, client: usize, after: Nanos) {
        if matches!(self.setting.clients[client].arrivals, Arrivals::Closed(_)) {
            self.at(self.now.plus(after), Event::Comes(client));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Comes(client) => self.come(client),
            Event::Begins(number) => self.serve(number),
            Event::Steps(number) => self.step(number),
            Event::Ends(number) => self.end(number),
            Event::TimesOut(number) => self.time_out(number),
            Event::GivesUp(number) => self.give_up(number),
            Event::Mark => self.mark(),
            Event::Look => self.look = None,
        }
    }

    fn come(&mut self, number: usize) {
        self.comes_after(number, self.now);
        self.last += 1;
        let client = &self.setting.clients[number];
        let request = client.request(number, self.last, self.now, &mut self.random[number]);
        if let Some(at) = request.gives_up {
            self.at(at, Event::GivesUp(request.number));
        }
        let arrived = self.policy.arrive(&request, client, self.now);
        for out in arrived.pushed_out {
            self.shed(out);
        }
        match arrived.fate {
            Fate::Refused => self.refused(&request),
            Fate::Starts => self.start(request),
            Fate::Waits(until) => {
                self.waits[number] += 1;
                self.waiting.insert(request.number, request);
                if let Some(until) = until {
                    self.at(until, Event::TimesOut(request.number));
                }
            }
        }
    }

    fn refused(&mut self, request: &Request) {
        self.note(request, |account, waited| {
            account.refused += 1;
            account.refused_after.push(waited);
        });
        self.again(request.client, AFTER_REFUSAL);
    }

    fn unlink(&mut self, number: u64) -> Option<Request> {
        let request = self.waiting.remove(&number)?;
        self.waits[request.client] -= 1;
        Some(request)
    }

    fn shed(&mut self, number: u64) {
        let request = self.unlink(number).expect("only who waits is shed");
        self.note(&request, |account, waited| {
            account.shed += 1;
            account.refused_after.push(waited);
        });
        self.again(request.client, AFTER_REFUSAL);
    }

    fn dispatch(&mut self) {
        loop {
            let next = self.policy.dispatch(self.now);
            let is_idle = next.started.is_empty() && next.late.is_empty();
            next.late.into_iter().for_each(|late| self.shed(late));
            for number in next.started {
                let request = self.unlink(number).expect("only who waits is started");
                self.start(request);
            }
            if is_idle {
                break;
            }
        }
        self.look_again();
    }

    fn look_again(&mut self) {
        let Some(at) = self.policy.next_look(self.now) else { return };
        let at = at.max(self.now.plus(Nanos(1)));
        if self.look.is_none_or(|look| at < look) {
            self.look = Some(at);
            self.at(at, Event::Look);
        }
    }

    fn start(&mut self, request: Request) {
        self.note(&request, |account, waited| account.waits.push(waited));
        self.running.insert(request.number, Running { request, begun: None });
        let running = u32::try_from(self.running.len()).unwrap();
        assert!(running <= self.setting.slots, "{running} run in {} slots", self.setting.slots);
        if !self.load(request.number) {
            self.outcome.blocked += 1;
            self.blocked.push(request.number);
        }
    }

    /// False where its model has no room as long as others run.
    fn load(&mut self, number: u64) -> bool {
        let model = self.running[&number].request.model;
        let begins = self.memory.start(model, self.now);
        if let Some(at) = begins {
            self.at(at, Event::Begins(number));
        }
        begins.is_some()
    }

    fn serve(&mut self, number: u64) {
        let Some(running) = self.running.get_mut(&number) else { return };
        running.begun = Some(self.now);
        let request = running.request;
        self.at(self.now.plus(request.prefill()), Event::Steps(number));
        self.at(self.now.plus(request.service()), Event::Ends(number));
    }

    fn step(&mut self, number: u64) {
        let Some(running) = self.running.get(&number) else { return };
        let (request, served) = (running.request, running.served(self.now));
        if served == request.prefill() {
            self.policy.loaded(&request, self.now);
        }
        self.policy.progress(&request, request.generated(served));
        self.at(self.now.plus(Nanos(STEP * DECODE)), Event::Steps(number));
    }

    fn end(&mut self, number: u64) {
        let Some(request) = self.stop(number) else { return };
        self.policy.progress(&request, request.output);
        self.policy.finish(&request, self.now);
        self.account(&request, |account| account.done += 1);
        self.worked(&request, |account| account.useful += seconds(request.service()));
        self.again(request.client, Nanos::ZERO);
    }

    /// Takes the slot back.
    fn stop(&mut self, number: u64) -> Option<Request> {
        let running = self.running.remove(&number)?;
        let (request, served) = (running.request, running.served(self.now));
        self.served[request.client] += request.accrued(served, self.setting.cost);
        if let Some(at) = self.blocked.iter().position(|blocked| *blocked == number) {
            self.blocked.remove(at);
        } else {
            self.memory.end(request.model);
            self.unblock();
        }
        Some(request)
    }

    fn unblock(&mut self) {
        for number in std::mem::take(&mut self.blocked) {
            if !self.load(number) {
                self.blocked.push(number);
            }
        }
    }

    fn time_out(&mut self, number: u64) {
        let Some(request) = self.waiting.get(&number).copied() else { return };
        if self.policy.time_out(&request) {
            self.shed(number);
        }
    }

    fn give_up(&mut self, number: u64) {
        if let Some(request) = self.unlink(number) {
            self.policy.leave(&request, true, 0, self.now);
            self.note(&request, |account, waited| {
                account.left += 1;
                account.refused_after.push(waited);
            });
            self.again(request.client, Nanos::ZERO);
        } else if let Some(running) = self.running.get(&number) {
            let served = running.served(self.now);
            let generated = running.request.generated(served);
            let request = self.stop(number).expect("it runs");
            self.policy.leave(&request, false, generated, self.now);
            self.account(&request, |account| account.cut += 1);
            self.worked(&request, |account| account.wasted += seconds(served));
            self.again(request.client, Nanos::ZERO);
        }
    }

    /// Writes down what became of a request that came when all was warm, with how long it has waited.
    fn note(&mut self, request: &Request, what: impl FnOnce(&mut Account, f64)) {
        let waited = between(request.came, self.now);
        self.outcome.longest = self.outcome.longest.max(seconds(request.service()));
        let cost = request.accrued(request.service(), self.setting.cost);
        self.outcome.dearest = self.outcome.dearest.max(cost);
        self.account(request, |account| what(account, waited));
    }

    fn account(&mut self, request: &Request, what: impl FnOnce(&mut Account)) {
        if request.came >= self.setting.warm {
            what(&mut self.outcome.accounts[request.client]);
        }
    }

    /// Writes down what slots were taken for, whenever the request came.
    fn worked(&mut self, request: &Request, what: impl FnOnce(&mut Account)) {
        if self.now >= self.setting.warm {
            what(&mut self.outcome.accounts[request.client]);
        }
    }

    /// What each client has been served so far.
    fn service(&self) -> Vec<f64> {
        let mut service = self.served.clone();
        for running in self.running.values() {
            let cost = running.request.accrued(running.served(self.now), self.setting.cost);
            service[running.request.client] += cost;
        }
        service
    }

    fn mark(&mut self) {
        self.outcome.marks.push(self.service());
    }

    /// The gap of the first two clients, where there are only two.
    fn measure(&mut self) {
        if let [first, second] = self.service()[..] {
            let weight = |client: usize| f64::from(self.setting.clients[client].weight);
            let both_wait = self.waits.iter().all(|waits| *waits > 0);
            self.outcome.gap.see(both_wait, first / weight(0) - second / weight(1));
        }
    }
}
