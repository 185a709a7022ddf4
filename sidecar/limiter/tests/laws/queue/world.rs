//! A queue and, beside it, what must be so: plain lists of who waits, who runs and what became of whom.

use std::collections::{BTreeMap, BTreeSet};

use corral_limiter::{
    Nanos,
    queue::{
        Arrival, Band, FairQueue, FlowKey, Priority, QueueBounds, Runner, Shed, ShedReason, Slots, WaiterId,
        Wish,
    },
};

use super::{
    canonical,
    oracle::{Flow, Ledger, PARTS, ROUNDING},
};
use crate::support::model;

pub(crate) const MEGABYTE: u64 = 1 << 20;
const RESERVE_KEPT: Nanos = Nanos::from_secs(60);

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Served,
    Left,
    Shed(ShedReason),
}

/// What somebody asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asks {
    pub(crate) runner: usize,
    pub(crate) client: u8,
    pub(crate) weight: u32,
    pub(crate) priority: Priority,
    pub(crate) cost: u64,
    pub(crate) bytes: u64,
    pub(crate) is_pending: bool,
}

impl Asks {
    pub(crate) fn flow(&self) -> Flow {
        (self.priority, FlowKey(self.client.into()))
    }
}

/// One who waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiter {
    pub(crate) id: WaiterId,
    pub(crate) asks: Asks,
    pub(crate) deadline: Nanos,
    /// It has had a slot before, and waits before all others of its flow.
    pub(crate) is_again: bool,
}

/// One who runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runs {
    pub(crate) id: WaiterId,
    pub(crate) asks: Asks,
}

/// A lane: those of one flow who wait for one runner.
type Lane = (Flow, usize);

pub(crate) struct World {
    pub(crate) queue: FairQueue,
    pub(crate) runners: Vec<Runner>,
    pub(crate) slots: Slots,
    pub(crate) caps: BTreeMap<usize, u32>,
    pub(crate) bounds: QueueBounds,
    /// Those with a turn before in front, the others as they came.
    pub(crate) waiting: Vec<Waiter>,
    pub(crate) booked: Vec<(WaiterId, Asks)>,
    pub(crate) running: Vec<Runs>,
    pub(crate) outcomes: BTreeMap<WaiterId, Outcome>,
    /// Whose limits say no.
    pub(crate) blocked: BTreeSet<WaiterId>,
    pub(crate) ledger: Ledger,
    pub(crate) now: Nanos,
    pub(crate) last: u64,
    last_critical: Option<Nanos>,
    /// Virtual time of each band, as it was last told.
    fair_shares: BTreeMap<Band, u64>,
    /// The interactive queue stood before the last dispatch.
    stood: bool,
    /// Time is short enough that nobody is refused for want of it, so that room alone decides.
    pub(crate) time_matters: bool,
}

impl World {
    /// With all models loaded for good, and nothing learned but that they answer at once.
    pub(crate) fn new(per_model: u32, models: usize, bounds: QueueBounds) -> Self {
        let slots = Slots { per_model, models: 64 };
        let runners: Vec<_> =
            (0..models).map(|number| Runner::of(&model(u8::try_from(number).unwrap()))).collect();
        let mut queue = FairQueue::new(slots);
        for (place, runner) in runners.iter().enumerate() {
            let id = WaiterId(u64::MAX - place as u64);
            queue.arrive(id, Wish { cost: 0, ..Wish::slot(runner) }, Nanos::ZERO).unwrap();
            queue.loaded(runner, Nanos::ZERO);
            queue.release(id, 0, Nanos::ZERO);
        }
        queue.set_bounds(bounds);
        Self {
            queue,
            runners,
            slots,
            caps: BTreeMap::new(),
            bounds,
            waiting: Vec::new(),
            booked: Vec::new(),
            running: Vec::new(),
            outcomes: BTreeMap::new(),
            blocked: BTreeSet::new(),
            ledger: Ledger::new(),
            now: Nanos::ZERO,
            last: 0,
            last_critical: None,
            stood: false,
            fair_shares: BTreeMap::new(),
            time_matters: false,
        }
    }

    pub(crate) fn next_id(&mut self) -> WaiterId {
        self.last += 1;
        WaiterId(self.last)
    }

    /// How many of a runner may run, as far as the queue says; never more than there are slots for it.
    fn limit(&self, runner: usize) -> usize {
        let most = self.slots.per_model.min(self.caps.get(&runner).copied().unwrap_or(u32::MAX)).max(1);
        let gauges =
            self.queue.models().into_iter().find(|gauges| gauges.model == self.runners[runner].model);
        let told = gauges.map_or(most, |gauges| gauges.slots);
        assert!((1..=most).contains(&told), "{told} of {most} slots");
        told as usize
    }

    fn running_on(&self, runner: usize) -> usize {
        self.running.iter().filter(|runs| runs.asks.runner == runner).count()
    }

    /// Whether somebody of this priority may have a slot of this runner. One of four or more is kept for critical requests
    /// for a while after the last; those that run fill it first.
    fn is_open(&self, runner: usize, priority: Priority) -> bool {
        let limit = self.limit(runner);
        let is_kept = self.last_critical.is_some_and(|last| self.now.since(last) < RESERVE_KEPT);
        let kept = usize::from(is_kept && limit >= 4);
        let others = self.running.iter().filter(|runs| runs.asks.runner == runner);
        let others = others.filter(|runs| runs.asks.priority != Priority::Critical).count();
        self.running_on(runner) < limit && (priority == Priority::Critical || others + kept < limit)
    }

    /// Who is at the head of its lane and might have a slot, but for lanes that have been asked and said no. Where the
    /// newest may go first, both ends of a lane are heads.
    fn eligible(&self, aside: &[Lane]) -> Vec<Waiter> {
        let stands = self.stood || self.stands();
        let lane = |waiter: &Waiter| (waiter.asks.flow(), waiter.asks.runner);
        let heads = self.waiting.iter().enumerate().filter(|(place, waiter)| {
            let is_mine = |other: &&Waiter| lane(other) == lane(waiter);
            let is_first = !self.waiting[..*place].iter().any(|other| is_mine(&other));
            let is_last = !self.waiting[place + 1..].iter().any(|other| is_mine(&other));
            is_first
                || self.time_matters && stands && is_last && waiter.asks.priority.band() == Band::Interactive
        });
        let heads = heads.map(|(_, waiter)| *waiter);
        heads
            .filter(|waiter| !aside.contains(&lane(waiter)))
            .filter(|waiter| self.is_open(waiter.asks.runner, waiter.asks.priority))
            .collect()
    }

    fn stands(&self) -> bool {
        self.queue.bands()[Band::Interactive as usize].stands
    }

    fn flows_that_wait(&self) -> BTreeSet<Flow> {
        self.waiting.iter().map(|waiter| waiter.asks.flow()).collect()
    }

    fn flow_waits(&self, flow: Flow) -> bool {
        self.waiting.iter().any(|waiter| waiter.asks.flow() == flow)
    }

    fn band_waits(&self, band: Band) -> bool {
        self.waiting.iter().any(|waiter| waiter.asks.priority.band() == band)
    }

    fn ask(&mut self, asks: &Asks) {
        let (flow, band) = (asks.flow(), asks.priority.band());
        self.ledger.ask(flow, asks.weight, self.flow_waits(flow), self.band_waits(band));
        if asks.priority == Priority::Critical {
            self.last_critical = Some(self.now);
        }
    }

    fn wish<'a>(runner: &'a Runner, asks: &Asks) -> Wish<'a> {
        Wish {
            flow: asks.flow().1,
            weight: asks.weight,
            priority: asks.priority,
            cost: asks.cost,
            bytes: asks.bytes,
            is_pending: asks.is_pending,
            ..Wish::slot(runner)
        }
    }

    /// Somebody comes.
    pub(crate) fn arrive(&mut self, asks: Asks) {
        let id = self.next_id();
        let before = self.queue.clone();
        let runner = self.runners[asks.runner].clone();
        match self.queue.arrive(id, Self::wish(&runner, &asks), self.now) {
            Ok(arrived) => {
                self.check_pushed_out(&asks, arrived.arrival, &arrived.pushed_out);
                for (victim, shed) in &arrived.pushed_out {
                    assert_eq!(shed.reason, ShedReason::PushedOut);
                    self.end(*victim, Outcome::Shed(ShedReason::PushedOut));
                }
                self.settle();
                self.let_in(id, asks, arrived.arrival, self.deadline(&asks));
            }
            Err(shed) => {
                assert_eq!(
                    canonical::fingerprint(&before),
                    canonical::fingerprint(&self.queue),
                    "a refusal leaves a trace"
                );
                self.check_refused(&asks, shed);
                self.outcomes.insert(id, Outcome::Shed(shed.reason));
            }
        }
    }

    fn deadline(&self, asks: &Asks) -> Nanos {
        self.now.plus(self.bounds.max_wait_of(asks.priority.band()))
    }

    fn let_in(&mut self, id: WaiterId, asks: Asks, arrival: Arrival, latest: Nanos) {
        let eligible = self.eligible(&[]);
        let somebody = eligible.iter().any(|waiter| waiter.asks.runner == asks.runner);
        self.ask(&asks);
        match arrival {
            Arrival::Start => {
                assert!(!asks.is_pending && self.is_open(asks.runner, asks.priority) && !somebody);
                self.start(id, asks);
            }
            Arrival::Wait { deadline } => {
                assert!(deadline <= latest && (self.time_matters || deadline == latest));
                self.waiting.push(Waiter { id, asks, deadline, is_again: false });
            }
        }
    }

    fn start(&mut self, id: WaiterId, asks: Asks) {
        self.ledger.start(id, asks.flow(), asks.cost);
        self.running.push(Runs { id, asks });
    }

    /// A place for later.
    pub(crate) fn book(&mut self, asks: Asks) {
        let id = self.next_id();
        let before = self.queue.clone();
        match self.queue.book(id, asks.flow().1, asks.bytes) {
            Ok(()) => {
                assert!(self.own_room(&asks) && self.has_room(asks.bytes));
                self.booked.push((id, asks));
            }
            Err(shed) => {
                assert_eq!(
                    canonical::fingerprint(&before),
                    canonical::fingerprint(&self.queue),
                    "a refusal leaves a trace"
                );
                assert!(!self.own_room(&asks) || !self.has_room(asks.bytes));
                self.outcomes.insert(id, Outcome::Shed(shed.reason));
            }
        }
    }

    /// Who has booked comes.
    pub(crate) fn join(&mut self, place: usize) {
        let (id, asks) = self.booked.remove(place);
        let runner = self.runners[asks.runner].clone();
        let latest = self.deadline(&asks);
        let arrival = self.queue.join(id, Self::wish(&runner, &asks), self.now);
        self.let_in(id, asks, arrival, latest);
    }

    /// Bytes and requests that wait or are booked, of a client or of all.
    fn taken(&self, client: Option<u8>) -> (u32, u64) {
        let waiting = self.waiting.iter().map(|waiter| (waiter.asks, waiter.is_again));
        let all = waiting.chain(self.booked.iter().map(|(_, asks)| (*asks, false)));
        let of_client = all.filter(|(asks, _)| client.is_none_or(|client| asks.client == client));
        of_client.fold((0, 0), |(count, bytes), (asks, is_again)| {
            (count + 1, bytes + if is_again { 0 } else { asks.bytes })
        })
    }

    fn own_room(&self, asks: &Asks) -> bool {
        let (count, bytes) = self.taken(Some(asks.client));
        count < self.bounds.max_depth_per_client && (count == 0 || bytes + asks.bytes <= 8 * MEGABYTE)
    }

    fn has_room(&self, bytes: u64) -> bool {
        let (count, taken) = self.taken(None);
        count < self.bounds.max_depth && (count == 0 || taken + bytes <= 64 * MEGABYTE)
    }

    /// What waits of a flow over its weight.
    fn backlog(&self, flow: Flow) -> i128 {
        self.waits_of(flow) * PARTS / self.ledger.weight_of(flow)
    }

    fn waits_of(&self, flow: Flow) -> i128 {
        let of_flow = self.waiting.iter().filter(|waiter| waiter.asks.flow() == flow);
        of_flow.map(|waiter| i128::from(waiter.asks.cost)).sum()
    }

    /// The same of the flow of one who comes, with what it brings.
    fn own_backlog(&self, asks: &Asks) -> i128 {
        let all = self.waits_of(asks.flow()) + i128::from(asks.cost);
        all * PARTS / i128::from(asks.weight.clamp(1, 1000))
    }

    /// Those who might have to go: who has had no turn, of the least urgent priority that has such.
    fn least_urgent(&self) -> Option<Priority> {
        self.waiting.iter().filter(|waiter| !waiter.is_again).map(|waiter| waiter.asks.priority).max()
    }

    fn check_pushed_out(&self, asks: &Asks, arrival: Arrival, gone: &[(WaiterId, Shed)]) {
        assert!(self.own_room(asks) || gone.is_empty(), "its client had no room, and others had to go");
        for (id, _) in gone {
            let victim = self.waiting.iter().find(|waiter| waiter.id == *id).expect("it waits");
            assert!(!victim.is_again, "who has had a turn goes");
            assert!(victim.asks.priority >= asks.priority, "somebody more urgent goes");
            self.check_victim(asks, victim);
        }
        let has_room = arrival == Arrival::Start || self.has_room(asks.bytes);
        assert!(
            self.time_matters || gone.is_empty() == has_room,
            "somebody goes without need, or nobody does"
        );
    }

    /// It is of the flow with the most of those who are the least urgent, and its newest.
    fn check_victim(&self, asks: &Asks, victim: &Waiter) {
        if self.time_matters {
            return;
        }
        let flow = victim.asks.flow();
        let newest = self.waiting.iter().rev().find(|waiter| waiter.asks.flow() == flow).unwrap();
        assert_eq!(newest.id, victim.id, "not the newest of its flow goes");
        assert_eq!(Some(victim.asks.priority), self.least_urgent(), "not the least urgent goes");
        let others = self.waiting.iter().filter(|waiter| !waiter.is_again);
        let others = others.map(|waiter| waiter.asks.flow()).filter(|other| other.0 == flow.0);
        let largest = others.map(|other| self.backlog(other)).max().unwrap();
        assert!(self.backlog(flow) + ROUNDING >= largest, "not of the largest backlog goes");
        if asks.priority == victim.asks.priority && asks.flow() != flow {
            assert!(self.backlog(flow) + ROUNDING > self.own_backlog(asks), "the one who comes has more");
        }
    }

    fn check_refused(&self, asks: &Asks, shed: Shed) {
        assert!(asks.is_pending || !self.is_open(asks.runner, asks.priority) || !self.waiting.is_empty());
        assert_eq!(shed.max_wait, self.bounds.max_wait_of(asks.priority.band()));
        match shed.reason {
            ShedReason::ClientFull => assert!(!self.own_room(asks)),
            ShedReason::QueueFull if self.time_matters => {}
            ShedReason::QueueFull => self.check_full(asks),
            ShedReason::WaitTooLong => {
                assert!(self.time_matters && shed.estimated_wait > Nanos::ZERO);
                assert!(self.waiting.iter().any(|waiter| waiter.asks.runner == asks.runner));
            }
            other => panic!("{other:?} on arrival"),
        }
    }

    /// There is no room, and nobody who waits has less claim to be there.
    fn check_full(&self, asks: &Asks) {
        assert!(!self.has_room(asks.bytes));
        let Some(least) = self.least_urgent() else { return };
        if self.bounds.max_depth == 0 || self.needs_more_than_one(asks) {
            return;
        }
        assert!(least <= asks.priority, "somebody less urgent might have gone");
        if least == asks.priority {
            let own = self.own_backlog(asks);
            let others =
                self.waiting.iter().filter(|waiter| !waiter.is_again && waiter.asks.priority == least);
            let largest = others.map(|waiter| self.backlog(waiter.asks.flow())).max().unwrap_or(0);
            assert!(own + ROUNDING >= largest, "somebody with more might have gone");
        }
    }

    /// Its bytes do not fit though one has gone, or too many wait already: bounds were lowered, or some came by joining.
    fn needs_more_than_one(&self, asks: &Asks) -> bool {
        let (count, bytes) = self.taken(None);
        let least =
            self.waiting.iter().filter(|waiter| !waiter.is_again).map(|waiter| waiter.asks.bytes).min();
        count > self.bounds.max_depth || bytes - least.unwrap_or(0) + asks.bytes > 64 * MEGABYTE
    }

    /// It is over, wherever it was.
    pub(crate) fn end(&mut self, id: WaiterId, outcome: Outcome) {
        self.waiting.retain(|waiter| waiter.id != id);
        self.booked.retain(|(booked, _)| *booked != id);
        self.running.retain(|runs| runs.id != id);
        assert_eq!(self.outcomes.insert(id, outcome), None, "two outcomes");
    }

    /// Nothing is left of a band: its virtual time moves on.
    pub(crate) fn settle(&mut self) {
        for band in Band::ALL {
            let runs = self.running.iter().any(|runs| runs.asks.priority.band() == band);
            if !runs && !self.band_waits(band) {
                self.ledger.rest(band, false);
            }
        }
        if self.running.is_empty() && self.waiting.is_empty() {
            for band in Band::ALL {
                self.ledger.rest(band, true);
            }
        }
    }

    pub(crate) fn release(&mut self, id: WaiterId, real: u64) {
        self.queue.release(id, real, self.now);
        self.ledger.end(id, real, self.flows_that_wait());
        self.end(id, Outcome::Served);
        self.settle();
    }

    pub(crate) fn progress(&mut self, id: WaiterId, cost: u64) {
        self.queue.progress(id, cost);
        self.ledger.progress(id, cost);
    }

    /// It gives its slot back and waits for another.
    pub(crate) fn again(&mut self, id: WaiterId, spent: u64, next: u64) {
        let place = self.running.iter().position(|runs| runs.id == id).unwrap();
        let Runs { asks, .. } = self.running.remove(place);
        let Arrival::Wait { deadline } = self.queue.again(id, spent, next, self.now) else {
            panic!("a slot without its turn")
        };
        assert!(deadline <= self.deadline(&asks));
        self.ledger.end(id, spent, self.flows_that_wait());
        let asks = Asks { cost: next, ..asks };
        let weight = u32::try_from(self.ledger.weight_of(asks.flow())).unwrap();
        self.ledger.ask(
            asks.flow(),
            weight,
            self.flow_waits(asks.flow()),
            self.band_waits(asks.priority.band()),
        );
        let behind = self.waiting.iter().take_while(|waiter| waiter.is_again).count();
        self.waiting.insert(behind, Waiter { id, asks, deadline, is_again: true });
    }

    pub(crate) fn leave(&mut self, id: WaiterId) {
        self.queue.leave(id, self.now);
        if self.running.iter().any(|runs| runs.id == id) {
            self.ledger.end(id, 0, self.flows_that_wait());
        }
        self.end(id, Outcome::Left);
        self.settle();
    }

    /// The callers of those whose deadline is over take them out.
    pub(crate) fn time_out(&mut self) {
        let late = self.waiting.iter().filter(|waiter| waiter.deadline <= self.now).map(|waiter| waiter.id);
        for id in late.collect::<Vec<_>>() {
            let shed = self.queue.time_out(id).expect("it waits");
            assert_eq!(shed.reason, ShedReason::TimedOut);
            self.end(id, Outcome::Shed(shed.reason));
            assert_eq!(self.queue.time_out(id), None, "twice");
        }
        self.settle();
    }

    /// Dispatches, and goes through whom the queue has asked: each was one of those who are next, and nobody who might go
    /// is left.
    pub(crate) fn dispatch(&mut self) {
        let (mut asked, blocked) = (Vec::new(), self.blocked.clone());
        self.stood = self.stands();
        let done = self.queue.dispatch(self.now, |id| {
            asked.push((id, !blocked.contains(&id)));
            !blocked.contains(&id)
        });
        assert!(done.late.is_empty(), "nobody has told when it gives up");
        let (mut aside, mut started) = (Vec::new(), Vec::new());
        for (id, yes) in asked {
            let waiter = self.check_next(id, &aside);
            if yes {
                self.waiting.retain(|other| other.id != id);
                self.start(id, waiter.asks);
                started.push(id);
            } else {
                aside.push((waiter.asks.flow(), waiter.asks.runner));
            }
        }
        assert_eq!(started, done.started.to_vec());
        let left = self.eligible(&aside);
        assert!(left.is_empty(), "they wait beside a free slot: {left:?}");
    }

    /// It is of the band, and there of the flow, that is furthest behind; spare only where no other could go.
    fn check_next(&self, id: WaiterId, aside: &[Lane]) -> Waiter {
        let eligible = self.eligible(aside);
        let asked = *eligible.iter().find(|waiter| waiter.id == id).expect("it is nobody's turn");
        let band = asked.asks.priority.band();
        let competing = eligible.iter().map(|waiter| waiter.asks.priority.band());
        let competing: BTreeSet<_> = competing.filter(|band| *band != Band::Spare).collect();
        assert!(band != Band::Spare || competing.is_empty(), "spare before others");
        if let Some(least) = competing.iter().map(|band| self.ledger.key_of_band(*band)).min() {
            let key = self.ledger.key_of_band(band);
            assert!(key <= least + ROUNDING, "the turn of another band: {key} > {least}");
        }
        let in_band = eligible.iter().filter(|waiter| waiter.asks.priority.band() == band);
        let least = in_band.map(|waiter| self.ledger.key_of_flow(waiter.asks.flow())).min().unwrap();
        let key = self.ledger.key_of_flow(asked.asks.flow());
        assert!(key <= least + ROUNDING, "the turn of another flow: {key} > {least}");
        asked
    }

    /// What the queue says of itself is what the lists say.
    pub(crate) fn check_gauges(&mut self) {
        let gauges = self.queue.gauges(self.now);
        let seen = (gauges.depth, gauges.in_flight, gauges.booked, gauges.bytes);
        let bytes = self.taken(None).1;
        assert_eq!(seen, (self.waiting.len(), self.running.len(), self.booked.len(), bytes));
        assert_eq!(gauges.cost, self.waiting.iter().map(|waiter| waiter.asks.cost).sum::<u64>());
        for (band, told) in Band::ALL.into_iter().zip(self.queue.bands()) {
            let waiting = self.waiting.iter().filter(|waiter| waiter.asks.priority.band() == band).count();
            let running = self.running.iter().filter(|runs| runs.asks.priority.band() == band).count();
            assert_eq!((told.band, told.waiting as usize, told.in_flight as usize), (band, waiting, running));
            let costs = (self.ledger.outstanding(band), self.ledger.served(band));
            assert_eq!((told.outstanding, told.served), costs, "charges are not what requests cost");
            let apart = told.fair_share.abs_diff(self.ledger.time_of(band));
            assert!(
                apart <= 10,
                "virtual time is {}, and should be {}",
                told.fair_share,
                self.ledger.time_of(band)
            );
            let before = self.fair_shares.get(&band).copied().unwrap_or(0);
            assert!(told.fair_share >= before, "virtual time runs back");
            self.fair_shares.insert(band, told.fair_share);
        }
    }

    /// Everybody goes, one after the other; then nothing is left of anybody.
    pub(crate) fn drain(&mut self) {
        self.blocked.clear();
        loop {
            self.dispatch();
            let booked = self.booked.first().map(|(id, _)| *id);
            let waiting = self.waiting.last().map(|waiter| waiter.id);
            if let Some(runs) = self.running.first().copied() {
                self.release(runs.id, runs.asks.cost);
            } else if let Some(id) = waiting.or(booked) {
                self.leave(id);
            } else {
                break;
            }
        }
        let at_rest = self.queue.gauges(self.now);
        assert_eq!(at_rest, corral_limiter::queue::QueueGauges::default(), "something is left at rest");
        assert_eq!(self.outcomes.len() as u64, self.last, "somebody was lost");
        assert!(self.queue.bands().iter().all(|band| band.outstanding == 0 && band.in_flight == 0));
    }
}
