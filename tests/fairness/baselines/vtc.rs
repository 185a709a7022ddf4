//! The virtual token counter (Sheng et al., OSDI 2024): input charged at admission, output twice as dear and charged as it
//! comes, and who comes back is lifted to the least of those who wait.

use std::collections::BTreeMap;

use corral_limiter::Nanos;

use super::{Lanes, Order};
use crate::load::Request;

/// Counters by client.
#[derive(Debug, Default)]
pub(crate) struct Vtc {
    lanes: Lanes,
    counters: BTreeMap<usize, u64>,
    /// The client whose last waiting request was taken last.
    last_left: Option<usize>,
    /// Output charged so far, by request.
    charged: BTreeMap<u64, u32>,
}

impl Vtc {
    fn counter(&self, client: usize) -> u64 {
        self.counters.get(&client).copied().unwrap_or_default()
    }

    fn charge(&mut self, client: usize, cost: u64) {
        *self.counters.entry(client).or_default() += cost;
    }

    fn lift(&mut self, client: usize) {
        let others = self.lanes.heads().map(|(other, _)| other).filter(|other| *other != client);
        let least = others.map(|other| self.counter(other)).min();
        let floor = least.or_else(|| self.last_left.map(|last| self.counter(last))).unwrap_or_default();
        let lifted = self.counter(client).max(floor);
        self.counters.insert(client, lifted);
    }

    fn note_left(&mut self, client: usize) {
        if self.lanes.heads().all(|(other, _)| other != client) {
            self.last_left = Some(client);
        }
    }
}

impl Order for Vtc {
    fn push(&mut self, request: &Request, _now: Nanos) {
        if self.lanes.push(request) {
            self.lift(request.client);
        }
    }

    fn pop(&mut self, _now: Nanos) -> Option<Request> {
        let clients = self.lanes.heads().map(|(client, _)| client);
        let next = clients.min_by_key(|client| self.counter(*client))?;
        let request = self.lanes.pop(next)?;
        self.charge(next, request.input.into());
        self.charged.insert(request.number, 0);
        self.note_left(next);
        Some(request)
    }

    fn remove(&mut self, request: &Request) {
        self.lanes.remove(request);
        self.note_left(request.client);
    }

    fn progress(&mut self, request: &Request, generated: u32) {
        if let Some(charged) = self.charged.get_mut(&request.number) {
            let more = generated - *charged;
            *charged = generated;
            self.charge(request.client, 2 * u64::from(more));
        }
    }

    fn done(&mut self, request: &Request, generated: u32, _now: Nanos) {
        self.progress(request, generated);
        self.charged.remove(&request.number);
    }
}
