//! One pod: its life in Kubernetes' eyes, and the sidecar in it with its slots and its line.

use std::collections::VecDeque;
use std::time::Duration;

use corral_wire::{Counters, Gauges};

use crate::agenda::{Request, Time};

/// A value of an object that others hear of later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<T> {
    before: T,
    now: T,
    since: Time,
}

impl<T: Copy + PartialEq> Told<T> {
    pub(crate) fn new(value: T, since: Time) -> Self {
        Self { before: value, now: value, since }
    }

    pub(crate) fn set(&mut self, value: T, now: Time) {
        if value != self.now {
            *self = Self { before: self.now, now: value, since: now };
        }
    }

    pub(crate) fn get(&self) -> T {
        self.now
    }

    /// Since when it is what it is.
    pub(crate) fn since(&self) -> Time {
        self.since
    }

    /// As somebody knows it who hears of everything so much later.
    pub(crate) fn seen(&self, now: Time, lag: Duration) -> T {
        if self.since + lag <= now { self.now } else { self.before }
    }
}

/// One pod.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is true or not whatever the others are")]
pub(crate) struct Pod {
    pub(crate) number: usize,
    pub(crate) created: Time,
    pub(crate) scheduled: Option<Time>,
    pub(crate) runs: Option<Time>,
    /// Ollama answers.
    pub(crate) loaded: bool,
    /// Kubernetes' word.
    pub(crate) ready: Told<bool>,
    /// Its annotation; 0 when it has none.
    pub(crate) cost: Told<i32>,
    pub(crate) restarts: u32,
    pub(crate) terminating: Option<Time>,
    pub(crate) gone: bool,
    /// In the load balancers' lists.
    pub(crate) listed: bool,
    /// It does not answer the operator.
    pub(crate) dark: bool,
    /// Out of its Service by its own overload.
    pub(crate) overloaded: bool,
    /// Until when it obeys an order to retire.
    pub(crate) retires_until: Option<Time>,
    pub(crate) in_flight: u32,
    pub(crate) line: VecDeque<(Time, Request)>,
    pub(crate) counters: Counters,
}

impl Pod {
    pub(crate) fn new(number: usize, now: Time) -> Self {
        Self {
            number,
            created: now,
            scheduled: None,
            runs: None,
            loaded: false,
            ready: Told::new(false, now),
            cost: Told::new(0, now),
            restarts: 0,
            terminating: None,
            gone: false,
            listed: false,
            dark: false,
            overloaded: false,
            retires_until: None,
            in_flight: 0,
            line: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("pod-{}", self.number)
    }

    /// Four to a node.
    pub(crate) fn node(&self) -> usize {
        self.number / 4
    }

    /// What `/readyz` says. A drain leaves it as it was.
    pub(crate) fn says_ready(&self) -> bool {
        self.loaded && !self.overloaded && self.retires_until.is_none()
    }

    pub(crate) fn queued(&self) -> u32 {
        u32::try_from(self.line.len()).unwrap()
    }

    /// In flight and queued.
    pub(crate) fn busy(&self) -> u32 {
        self.in_flight + self.queued()
    }

    pub(crate) fn gauges(&self, slots: u32, now: Time) -> Gauges {
        let oldest = self.line.front().map_or(Duration::ZERO, |(since, _)| now.saturating_sub(*since));
        Gauges {
            slots,
            in_flight: self.in_flight,
            queued: self.queued(),
            oldest_wait_ms: u64::try_from(oldest.as_millis()).unwrap(),
            ..Gauges::default()
        }
    }

    /// The kubelet asks every 2 s, each pod at moments of its own.
    pub(crate) fn next_probe(&self, now: Time) -> Time {
        const PERIOD: u64 = 2_000;
        let phase = (u64::try_from(self.number).unwrap() * 730) % PERIOD;
        let now = u64::try_from(now.as_millis()).unwrap();
        let periods = (now + PERIOD - phase) / PERIOD;
        Time::from_millis(periods * PERIOD + phase)
    }
}

#[test]
fn the_next_probe_is_at_most_a_period_away_and_never_now() {
    for number in 0..20 {
        let pod = Pod::new(number, Time::ZERO);
        for now in (0..10_000).step_by(7).map(Time::from_millis) {
            let next = pod.next_probe(now);
            assert!(next > now && next <= now + Duration::from_secs(2), "{number}: {now:?} {next:?}");
        }
    }
}
