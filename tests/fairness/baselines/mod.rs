//! What others do: an order in which requests are taken, and nothing but a bound on how many wait.

pub(crate) mod fcfs;
pub(crate) mod las;
pub(crate) mod per_model;
pub(crate) mod round_robin;
pub(crate) mod vtc;

use std::collections::BTreeMap;

use corral_limiter::Nanos;

use crate::load::{Client, Request};
use crate::policy::{Arrived, Dispatched, Fate, Policy};

/// Who is next.
pub(crate) trait Order {
    fn push(&mut self, request: &Request, now: Nanos);

    /// Takes the next one out.
    fn pop(&mut self, now: Nanos) -> Option<Request>;

    /// It waits no more.
    fn remove(&mut self, request: &Request);

    /// One that was taken has generated so much in all.
    fn progress(&mut self, _request: &Request, _generated: u32) {}

    /// One that was taken is done, or its client gone.
    fn done(&mut self, _request: &Request, _generated: u32, _now: Nanos) {}
}

/// A first-in-first-out queue for each client; numbers are given out as requests come.
#[derive(Debug, Default)]
pub(crate) struct Lanes(BTreeMap<usize, BTreeMap<u64, Request>>);

impl Lanes {
    /// True where the client had nothing waiting.
    pub(crate) fn push(&mut self, request: &Request) -> bool {
        let lane = self.0.entry(request.client).or_default();
        lane.insert(request.number, *request);
        lane.len() == 1
    }

    pub(crate) fn pop(&mut self, client: usize) -> Option<Request> {
        let lane = self.0.get_mut(&client)?;
        let first = lane.pop_first().map(|(_, first)| first);
        if lane.is_empty() {
            self.0.remove(&client);
        }
        first
    }

    pub(crate) fn remove(&mut self, request: &Request) {
        if let Some(lane) = self.0.get_mut(&request.client) {
            lane.remove(&request.number);
            if lane.is_empty() {
                self.0.remove(&request.client);
            }
        }
    }

    /// The clients that wait, each with since when its first one does.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (usize, Nanos)> {
        self.0.iter().filter_map(|(client, lane)| Some((*client, lane.values().next()?.came)))
    }
}

/// An order with slots and a bound.
pub(crate) struct Baseline<O> {
    order: O,
    free: u32,
    waiting: usize,
    most_waiting: usize,
}

impl<O: Order> Baseline<O> {
    pub(crate) fn new(order: O, slots: u32) -> Self {
        Self::bounded(order, slots, usize::MAX)
    }

    pub(crate) fn bounded(order: O, slots: u32, most_waiting: usize) -> Self {
        Self { order, free: slots, waiting: 0, most_waiting }
    }
}

impl<O: Order> Policy for Baseline<O> {
    fn arrive(&mut self, request: &Request, _client: &Client, now: Nanos) -> Arrived {
        if self.waiting >= self.most_waiting && self.free == 0 {
            return Arrived { fate: Fate::Refused, pushed_out: Vec::new() };
        }
        self.waiting += 1;
        self.order.push(request, now);
        Arrived { fate: Fate::Waits(None), pushed_out: Vec::new() }
    }

    fn dispatch(&mut self, now: Nanos) -> Dispatched {
        let mut started = Vec::new();
        while self.free > 0 {
            let Some(next) = self.order.pop(now) else { break };
            self.free -= 1;
            self.waiting -= 1;
            started.push(next.number);
        }
        Dispatched { started, late: Vec::new() }
    }

    fn progress(&mut self, request: &Request, generated: u32) {
        self.order.progress(request, generated);
    }

    fn finish(&mut self, request: &Request, now: Nanos) {
        self.free += 1;
        self.order.done(request, request.output, now);
    }

    fn leave(&mut self, request: &Request, waits: bool, generated: u32, now: Nanos) {
        if waits {
            self.waiting -= 1;
            self.order.remove(request);
        } else {
            self.free += 1;
            self.order.done(request, generated, now);
        }
    }
}
