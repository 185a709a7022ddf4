//! `KubeAI`'s formula: the mean of ten minutes that begin with zeros, and down after three ticks that want less.

use std::collections::VecDeque;
use std::time::Duration;

use super::{TARGET, pods};
use crate::autoscaler::{Autoscaler, Fate, Orders, Sight};

const INTERVAL: Duration = Duration::from_secs(10);
/// Ten minutes.
const SLOTS: usize = 60;
/// Thirty seconds.
const TICKS_BEFORE_DOWN: u32 = 3;

/// Its memory of one pool.
pub(crate) struct KubeAi {
    bounds: [u32; 2],
    window: VecDeque<f64>,
    wants_less: u32,
}

impl KubeAi {
    pub(crate) fn new(bounds: [u32; 2]) -> Self {
        Self { bounds, window: VecDeque::from([0.0; SLOTS]), wants_less: 0 }
    }

    fn decide(&mut self, replicas: u32) -> u32 {
        let mean = self.window.iter().sum::<f64>() / f64::from(u32::try_from(SLOTS).unwrap());
        let wanted = pods(mean / TARGET, self.bounds);
        self.wants_less = if wanted < replicas { self.wants_less + 1 } else { 0 };
        if wanted < replicas && self.wants_less < TICKS_BEFORE_DOWN { replicas } else { wanted }
    }
}

impl Autoscaler for KubeAi {
    fn period(&self) -> Duration {
        INTERVAL
    }

    fn look(&mut self, sight: &Sight) -> Orders {
        self.window.pop_front();
        self.window.push_back(f64::from(sight.busy()));
        Orders::plain(self.decide(sight.replicas))
    }

    fn suffer(&mut self, fate: Fate) {
        match fate {
            Fate::Bounds(min, max) => self.bounds = [min, max],
            Fate::Restart => *self = Self::new(self.bounds),
        }
    }
}
