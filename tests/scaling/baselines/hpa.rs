//! Kubernetes' horizontal autoscaler on an external metric that Prometheus knows half a minute late.

use std::time::Duration;

use super::{TARGET, Window, pods};
use crate::agenda::Time;
use crate::autoscaler::{Autoscaler, Fate, Orders, Sight};

const SYNC: Duration = Duration::from_secs(15);
const LAG: Duration = Duration::from_secs(30);
const DOWN_WINDOW: Duration = Duration::from_mins(5);
const TOLERANCE: f64 = 0.1;
/// In 15 s at most that many more, or as many again.
const MOST_UP: u32 = 4;

/// Its memory of one pool.
pub(crate) struct Hpa {
    bounds: [u32; 2],
    seen: Window,
    recommended: Window,
}

impl Hpa {
    pub(crate) fn new(bounds: [u32; 2]) -> Self {
        Self { bounds, seen: Window::default(), recommended: Window::default() }
    }

    /// In flight and queued as they were half a minute ago.
    fn metric(&self, now: Time) -> f64 {
        let old_enough = |at: Time| at + LAG <= now;
        let values = self.seen.values.iter().rev();
        values.filter(|(at, _)| old_enough(*at)).map(|(_, value)| *value).next().unwrap_or(0.0)
    }

    fn decide(&mut self, replicas: u32, now: Time) -> u32 {
        let wanted = self.metric(now) / TARGET;
        let is_near = (wanted / f64::from(replicas.max(1)) - 1.0).abs() <= TOLERANCE;
        let wanted = if is_near { replicas } else { pods(wanted, self.bounds) };
        self.recommended.push(now, f64::from(wanted), DOWN_WINDOW);
        let stabilized = pods(self.recommended.most(now, DOWN_WINDOW), self.bounds);
        let most = replicas.saturating_mul(2).max(replicas + MOST_UP);
        wanted.max(stabilized.min(replicas)).min(most)
    }
}

impl Autoscaler for Hpa {
    fn period(&self) -> Duration {
        SYNC
    }

    fn look(&mut self, sight: &Sight) -> Orders {
        self.seen.push(sight.now, f64::from(sight.busy()), LAG * 2);
        Orders::plain(self.decide(sight.replicas, sight.now))
    }

    fn suffer(&mut self, fate: Fate) {
        match fate {
            Fate::Bounds(min, max) => self.bounds = [min, max],
            Fate::Restart => *self = Self::new(self.bounds),
        }
    }
}
