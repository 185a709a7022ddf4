//! First come, first served: Ollama's own queue, and any bounded one in front of it.

use std::collections::BTreeMap;

use corral_limiter::Nanos;

use super::Order;
use crate::load::Request;

/// All clients in one line, by number: those are given out as requests come.
#[derive(Debug, Default)]
pub(crate) struct Fcfs(BTreeMap<u64, Request>);

impl Order for Fcfs {
    fn push(&mut self, request: &Request, _now: Nanos) {
        self.0.insert(request.number, *request);
    }

    fn pop(&mut self, _now: Nanos) -> Option<Request> {
        self.0.pop_first().map(|(_, first)| first)
    }

    fn remove(&mut self, request: &Request) {
        self.0.remove(&request.number);
    }
}
