//! One request of each client in turn, whatever it costs: llm-d's `round-robin-fairness-policy`, and ollamaMQ.

use corral_limiter::Nanos;

use super::{Lanes, Order};
use crate::load::Request;

/// The client after the last one is next.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    lanes: Lanes,
    last: usize,
}

impl Order for RoundRobin {
    fn push(&mut self, request: &Request, _now: Nanos) {
        self.lanes.push(request);
    }

    fn pop(&mut self, _now: Nanos) -> Option<Request> {
        let after = self.lanes.heads().map(|(client, _)| client).find(|client| *client > self.last);
        let next = after.or_else(|| self.lanes.heads().map(|(client, _)| client).next())?;
        self.last = next;
        self.lanes.pop(next)
    }

    fn remove(&mut self, request: &Request) {
        self.lanes.remove(request);
    }
}
