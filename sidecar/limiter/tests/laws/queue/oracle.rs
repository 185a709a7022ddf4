//! Fair order by the book: what each band and each flow has had over its weight, from lists that are scanned. Virtual time is
//! exact: it is counted in parts that every weight divides.

use std::collections::{BTreeMap, BTreeSet};

use corral_limiter::queue::{Band, FlowKey, Priority, WaiterId};

/// Every weight that is used here, of flows and of bands, divides it.
pub(crate) const PARTS: i128 = (1 << 7) * 125 * 81 * 7 * 13;
/// The core counts in 2²⁰ths and rounds. Costs here are millions, so that keys that differ at all differ by far more.
pub(crate) const ROUNDING: i128 = PARTS / 100;
/// Weights that divide [`PARTS`].
pub(crate) const WEIGHTS: [u32; 7] = [1, 2, 3, 5, 7, 100, 1000];

/// A client at one priority.
pub(crate) type Flow = (Priority, FlowKey);

/// What a flow or a band has had.
#[derive(Debug, Clone)]
struct Account {
    weight: i128,
    /// What is over.
    past: i128,
    lifts: u64,
    slack: i128,
}

impl Account {
    fn new(weight: u32) -> Self {
        Self { weight: i128::from(weight.clamp(1, 1_000_000)), past: 0, lifts: 0, slack: 0 }
    }

    fn over_weight(&self, cost: u64) -> i128 {
        i128::from(cost) * PARTS / self.weight
    }

    fn lift(&mut self, key: i128, time: i128) {
        self.lifts += 1;
        if key < time {
            self.past += time - key;
            self.slack = 0;
        } else {
            self.slack = key - time;
        }
    }

    /// A request that was held to cost so much since a lift comes to something else.
    fn settle(&mut self, held: u64, real: u64, since: u64) {
        let mut back = self.over_weight(held) - self.over_weight(real);
        if since < self.lifts {
            back = back.min(self.slack);
            self.slack -= back;
        }
        self.past += self.over_weight(held) - back;
    }
}

/// What a running request is held to cost.
#[derive(Debug, Clone)]
struct Charge {
    flow: Flow,
    held: u64,
    /// How often its flow and its band had been lifted.
    lifts: (u64, u64),
}

/// The virtual time of the flows of a band; what each had while it stood still, and the largest cost meanwhile.
#[derive(Debug, Clone, Default)]
struct BandTime {
    now: i128,
    stood: i128,
    largest: u64,
}

/// All accounts.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    flows: BTreeMap<Flow, Account>,
    bands: BTreeMap<Band, Account>,
    charges: BTreeMap<WaiterId, Charge>,
    /// Virtual time of the bands, and of the flows of each.
    time: i128,
    times: BTreeMap<Band, BandTime>,
    /// What was served in each band.
    served: BTreeMap<Band, u64>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let bands = Band::ALL.map(|band| (band, Account::new(band.weight_milli()))).into();
        let (times, served) = (
            Band::ALL.map(|band| (band, BandTime::default())).into(),
            Band::ALL.map(|band| (band, 0)).into(),
        );
        Self { flows: BTreeMap::new(), bands, charges: BTreeMap::new(), time: 0, times, served }
    }

    pub(crate) fn key_of_flow(&self, flow: Flow) -> i128 {
        let account = &self.flows[&flow];
        let of_flow = self.charges.values().filter(|charge| charge.flow == flow);
        account.past + account.over_weight(of_flow.map(|charge| charge.held).sum())
    }

    pub(crate) fn key_of_band(&self, band: Band) -> i128 {
        let account = &self.bands[&band];
        account.past + account.over_weight(self.outstanding(band))
    }

    /// Virtual time of the flows of a band, in costs.
    pub(crate) fn time_of(&self, band: Band) -> u64 {
        u64::try_from(self.times[&band].now / PARTS).unwrap()
    }

    pub(crate) fn weight_of(&self, flow: Flow) -> i128 {
        self.flows[&flow].weight
    }

    pub(crate) fn outstanding(&self, band: Band) -> u64 {
        self.charges.values().filter(|charge| charge.flow.0.band() == band).map(|charge| charge.held).sum()
    }

    pub(crate) fn served(&self, band: Band) -> u64 {
        self.served[&band]
    }

    /// A flow asks for a slot, by this weight from now on. Where nothing of it waited it is lifted to the others, and so is
    /// its band.
    pub(crate) fn ask(&mut self, flow: Flow, weight: u32, flow_waits: bool, band_waits: bool) {
        let band = flow.0.band();
        self.flows
            .entry(flow)
            .or_insert_with(|| Account { past: self.times[&band].now, ..Account::new(weight) });
        self.weigh(flow, weight);
        let (of_flow, of_band) = (self.key_of_flow(flow), self.key_of_band(band));
        if !flow_waits {
            let time = self.times[&band].now;
            self.flows.get_mut(&flow).unwrap().lift(of_flow, time);
        }
        if !band_waits {
            let time = self.time;
            self.bands.get_mut(&band).unwrap().lift(of_band, time);
        }
    }

    /// Another weight: its key stays.
    fn weigh(&mut self, flow: Flow, weight: u32) {
        let before = self.key_of_flow(flow);
        self.flows.get_mut(&flow).unwrap().weight = i128::from(weight.clamp(1, 1000));
        let after = self.key_of_flow(flow);
        self.flows.get_mut(&flow).unwrap().past += before - after;
    }

    pub(crate) fn start(&mut self, id: WaiterId, flow: Flow, cost: u64) {
        let band = flow.0.band();
        let (of_flow, of_band) = (self.key_of_flow(flow), self.key_of_band(band));
        let time = self.times.get_mut(&band).unwrap();
        if of_flow > time.now {
            *time = BandTime { now: of_flow, ..BandTime::default() };
        }
        self.time = of_band.max(self.time);
        let lifts = (self.flows[&flow].lifts, self.bands[&band].lifts);
        self.charges.insert(id, Charge { flow, held: cost, lifts });
    }

    pub(crate) fn progress(&mut self, id: WaiterId, cost: u64) {
        if let Some(charge) = self.charges.get_mut(&id) {
            charge.held = charge.held.max(cost);
        }
    }

    /// It is over, while these flows wait. Once the virtual time of its band has stood still for the largest cost, it goes
    /// on by what is served over the weights of all that wait or run.
    pub(crate) fn end(&mut self, id: WaiterId, real: u64, waiting: BTreeSet<Flow>) {
        let band = self.charges[&id].flow.0.band();
        let running = self.charges.values().map(|charge| charge.flow);
        let active: BTreeSet<_> = running.chain(waiting).filter(|flow| flow.0.band() == band).collect();
        let weights: i128 = active.iter().map(|flow| self.weight_of(*flow)).sum();
        let time = self.times.get_mut(&band).unwrap();
        time.largest = time.largest.max(real);
        time.stood += i128::from(real) * PARTS / weights;
        let still = i128::from(time.largest) * PARTS;
        time.now += (time.stood - still).max(0);
        time.stood = time.stood.min(still);
        let Charge { flow, held, lifts } = self.charges.remove(&id).unwrap();
        self.flows.get_mut(&flow).unwrap().settle(held, real, lifts.0);
        self.bands.get_mut(&band).unwrap().settle(held, real, lifts.1);
        *self.served.get_mut(&band).unwrap() += real;
    }

    /// Nothing of a band is left: nobody owes anything to those who come next.
    pub(crate) fn rest(&mut self, band: Band, is_last: bool) {
        let of_band = self.flows.keys().filter(|flow| flow.0.band() == band);
        let furthest = of_band.map(|flow| self.key_of_flow(*flow)).max();
        let now = self.times[&band].now;
        let rested = BandTime { now: furthest.unwrap_or(now).max(now), ..BandTime::default() };
        self.times.insert(band, rested);
        if is_last {
            self.time =
                Band::ALL.map(|band| self.key_of_band(band)).into_iter().max().unwrap().max(self.time);
        }
    }
}
