//! First come, first served: Ollama's own queue, and any bounded one in front of it.

use std::collections::VecDeque;

use corral_limiter::Nanos;

use super::Order;
use crate::load::Request;

/// All clients in one line.
#[derive(Debug, Default)]
pub(crate) struct Fcfs(VecDeque<Request>);

impl Order for Fcfs {
    fn push(&mut self, request: &Request, _now: Nanos) {
        self.0.push_back(*request);
    }

    fn pop(&mut self, _now: Nanos) -> Option<Request> {
        self.0.pop_front()
    }

    fn remove(&mut self, request: &Request) {
        self.0.retain(|waiting| waiting.number != request.number);
    }
}
