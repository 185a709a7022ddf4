//! Ollama with several models: requests for the model in memory pass those that wait for another, which is loaded when
//! nothing of the first runs.

use std::collections::BTreeMap;

use corral_limiter::Nanos;

use crate::load::{Client, Request};
use crate::policy::{Arrived, Dispatched, Fate, Policy};

/// One place in memory, so many slots for the model in it.
#[derive(Debug)]
pub(crate) struct PerModel {
    slots: u32,
    running: u32,
    there: Option<usize>,
    waiting: BTreeMap<u64, Request>,
}

impl PerModel {
    pub(crate) fn new(slots: u32) -> Self {
        Self { slots, running: 0, there: None, waiting: BTreeMap::new() }
    }

    fn next(&mut self) -> Option<u64> {
        let first_of = |model| self.waiting.values().find(|it| Some(it.model) == model).map(|it| it.number);
        if let Some(number) = first_of(self.there) {
            return (self.running < self.slots).then_some(number);
        }
        let first = self.waiting.values().next().filter(|_| self.running == 0)?;
        self.there = Some(first.model);
        Some(first.number)
    }
}

impl Policy for PerModel {
    fn arrive(&mut self, request: &Request, _client: &Client, _now: Nanos) -> Arrived {
        self.waiting.insert(request.number, *request);
        Arrived { fate: Fate::Waits(None), pushed_out: Vec::new() }
    }

    fn dispatch(&mut self, _now: Nanos) -> Dispatched {
        let mut started = Vec::new();
        while let Some(number) = self.next() {
            self.waiting.remove(&number);
            self.running += 1;
            started.push(number);
        }
        Dispatched { started, late: Vec::new() }
    }

    fn progress(&mut self, _request: &Request, _generated: u32) {}

    fn finish(&mut self, _request: &Request, _now: Nanos) {
        self.running -= 1;
    }

    fn leave(&mut self, request: &Request, waits: bool, _generated: u32, _now: Nanos) {
        if waits {
            self.waiting.remove(&request.number);
        } else {
            self.running -= 1;
        }
    }
}
