//! The activator: it takes the Service's requests while there is no pod, and passes them on once there is one.

use std::collections::VecDeque;
use std::time::Duration;

use corral_scaler::Held;

use crate::agenda::{Event, Request, Time};
use crate::pod::Pod;
use crate::world::World;

/// How often it asks pods whether they are ready, while it holds something.
const PROBE: Duration = Duration::from_millis(200);
/// For so long it and a pod stand side by side, on the way to zero and back: load balancers hear late of both.
const OVERLAP: Duration = Duration::from_secs(5);
/// How soon the operator hears that something is held.
const PUSH: Duration = Duration::from_millis(100);

/// What it holds.
#[derive(Default)]
pub(crate) struct Holder {
    /// In the load balancers' lists.
    pub(crate) listed: bool,
    /// Since when it should be.
    wanted: Option<Time>,
    held: VecDeque<(Time, Request)>,
    arrivals: u64,
}

impl Holder {
    pub(crate) fn held(&self, now: Time) -> Held {
        let oldest = self.held.front().map_or(Duration::ZERO, |(since, _)| now.saturating_sub(*since));
        Held {
            requests: u32::try_from(self.held.len()).unwrap(),
            arrivals: self.arrivals,
            epoch: 1,
            oldest_wait_ms: u64::try_from(oldest.as_millis()).unwrap(),
        }
    }
}

impl World<'_> {
    /// It stands in while the pool is to have no pod, and until one has been ready for a while.
    pub(crate) fn stand_in(&mut self, desired: u32) {
        let now = self.now();
        let serves = |pod: &Pod| pod.ready.get() && pod.ready.since() + OVERLAP <= now;
        let is_needed = desired == 0 || !self.alive.iter().any(|number| serves(&self.pods[*number]));
        let wanted = self.setting.activator && is_needed;
        if wanted != self.holder.wanted.is_some() {
            self.holder.wanted = wanted.then_some(self.agenda.now);
            let lag = Duration::from_secs_f64(0.2 + 0.8 * self.chances.lags.unit());
            self.agenda.after(lag, Event::HolderListed);
        }
    }

    /// Whether the last pod may be told to go.
    pub(crate) fn stands_in(&self) -> bool {
        self.holder.wanted.is_some_and(|since| since + OVERLAP <= self.now())
    }

    pub(crate) fn list_holder(&mut self) {
        self.holder.listed = self.holder.wanted.is_some();
    }

    pub(crate) fn hold(&mut self, request: Request) {
        let now = self.now();
        if self.holder.held.is_empty() {
            self.agenda.after(PUSH, Event::Asked);
            self.agenda.after(PROBE, Event::Releases);
        }
        self.holder.arrivals += 1;
        self.holder.held.push_back((now, request));
    }

    /// Passes on as many as there are free slots, the first first.
    pub(crate) fn release(&mut self) {
        let now = self.now();
        while let Some(free) = self.with_free_slot() {
            let Some((since, request)) = self.holder.held.pop_front() else { return };
            self.outcome.held.push((since, now));
            self.arrive(free, request);
        }
        if !self.holder.held.is_empty() {
            self.agenda.after(PROBE, Event::Releases);
        }
    }

    fn with_free_slot(&self) -> Option<usize> {
        let serves = |number: &usize| {
            let pod = &self.pods[*number];
            pod.loaded && pod.says_ready() && pod.terminating.is_none() && pod.in_flight < self.setting.slots
        };
        self.alive.iter().copied().find(serves)
    }
}
