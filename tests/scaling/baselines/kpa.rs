//! Knative's pod autoscaler: concurrency averaged over a minute, and over six seconds when that is twice what there is.

use std::time::Duration;

use super::{TARGET, Window, pods};
use crate::agenda::Time;
use crate::autoscaler::{Autoscaler, Fate, Orders, Sight};

const BUCKET: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_secs(2);
const STABLE: Duration = Duration::from_mins(1);
const PANIC: Duration = Duration::from_secs(6);
/// It panics when the short window asks for so many times what is ready.
const THRESHOLD: f64 = 2.0;
/// Each tick at most that many times more, and not below a part.
const MOST_UP: f64 = 1000.0;
const MOST_DOWN: f64 = 2.0;

/// Its memory of one pool.
pub(crate) struct Kpa {
    bounds: [u32; 2],
    seen: Window,
    next: Time,
    panics_since: Option<Time>,
    most_in_panic: u32,
    desired: Option<u32>,
}

impl Kpa {
    pub(crate) fn new(bounds: [u32; 2]) -> Self {
        let (seen, next) = (Window::default(), Time::ZERO);
        Self { bounds, seen, next, panics_since: None, most_in_panic: 0, desired: None }
    }

    fn decide(&mut self, ready: u32, now: Time) -> u32 {
        let ready = f64::from(ready.max(1));
        let within = |wanted: f64| wanted.clamp((ready / MOST_DOWN).floor(), (ready * MOST_UP).ceil());
        let stable = within((self.seen.mean(now, STABLE) / TARGET).ceil());
        let wanted_now = (self.seen.mean(now, PANIC) / TARGET).ceil();
        if wanted_now / ready >= THRESHOLD {
            self.panics_since = Some(now);
        } else if self.panics_since.is_some_and(|since| since + STABLE < now) {
            (self.panics_since, self.most_in_panic) = (None, 0);
        }
        if self.panics_since.is_none() {
            return pods(stable, self.bounds);
        }
        self.most_in_panic = self.most_in_panic.max(pods(stable.max(within(wanted_now)), self.bounds));
        self.most_in_panic
    }
}

impl Autoscaler for Kpa {
    fn period(&self) -> Duration {
        BUCKET
    }

    fn look(&mut self, sight: &Sight) -> Orders {
        self.seen.push(sight.now, f64::from(sight.busy()), STABLE);
        if sight.now >= self.next {
            self.next = sight.now + TICK;
            self.desired = Some(self.decide(sight.ready(), sight.now));
        }
        Orders::plain(self.desired.unwrap_or(sight.replicas))
    }

    fn suffer(&mut self, fate: Fate) {
        match fate {
            Fate::Bounds(min, max) => self.bounds = [min, max],
            Fate::Restart => *self = Self::new(self.bounds),
        }
    }
}
