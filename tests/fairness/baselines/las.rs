//! Least attained service, as llm-d's `program-aware-fairness` has it by default: the tokens of what is done, halved
//! every minute, and a little for who has waited longest.

use std::collections::BTreeMap;

use corral_limiter::Nanos;

use super::{Lanes, Order};
use crate::load::{CostModel, Request};
use crate::outcome::between;

const SERVICE_WEIGHT: f64 = 0.8;
const WAIT_WEIGHT: f64 = 0.2;
/// Seconds.
const HALF_LIFE: f64 = 60.0;

/// What each client has attained, and when that was reckoned.
#[derive(Debug, Default)]
pub(crate) struct LeastAttained {
    lanes: Lanes,
    attained: BTreeMap<usize, (f64, Nanos)>,
}

impl LeastAttained {
    fn attained(&self, client: usize, now: Nanos) -> f64 {
        let (service, at) = self.attained.get(&client).copied().unwrap_or((0.0, now));
        service * 0.5_f64.powf(between(at, now) / HALF_LIFE)
    }
}

/// From 0 for the least to 1 for the greatest.
fn normal(value: f64, all: &[f64]) -> f64 {
    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
    let range = all.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least;
    if range > 0.0 { (value - least) / range } else { 0.0 }
}

impl Order for LeastAttained {
    fn push(&mut self, request: &Request, _now: Nanos) {
        self.lanes.push(request);
    }

    fn pop(&mut self, now: Nanos) -> Option<Request> {
        let heads: Vec<(usize, Nanos)> = self.lanes.heads().collect();
        let services: Vec<f64> = heads.iter().map(|(client, _)| self.attained(*client, now)).collect();
        let waits: Vec<f64> = heads.iter().map(|(_, since)| between(*since, now)).collect();
        let score = |at: usize| {
            let service = 1.0 - normal(services[at], &services);
            SERVICE_WEIGHT * service + WAIT_WEIGHT * normal(waits[at], &waits)
        };
        let best = (0..heads.len()).max_by(|a, b| score(*a).total_cmp(&score(*b)).then(b.cmp(a)))?;
        self.lanes.pop(heads[best].0)
    }

    fn remove(&mut self, request: &Request) {
        self.lanes.remove(request);
    }

    fn done(&mut self, request: &Request, generated: u32, now: Nanos) {
        let cost = u32::try_from(CostModel::Tokens.of(request.input, generated)).unwrap();
        let service = self.attained(request.client, now) + f64::from(cost);
        self.attained.insert(request.client, (service, now));
    }
}
