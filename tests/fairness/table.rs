//! The lines of the table, one a scenario: the goal, ours, and every baseline.

use crate::policy::Policy;
use crate::baselines::{Baseline, fcfs::Fcfs, las::LeastAttained, round_robin::RoundRobin, vtc::Vtc};
use crate::outcome::Outcome;
use crate::world::{Setting, run};

/// One that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ollama alone: first come first served, without a bound.
    Fcfs,
    /// The same with so many waiting at most.
    Fifo(usize),
    RoundRobin,
    Las,
    Vtc,
}

pub(crate) const BASELINES: [Kind; 6] =
    [Kind::Fcfs, Kind::Fifo(512), Kind::Fifo(16), Kind::RoundRobin, Kind::Las, Kind::Vtc];

impl Kind {
    pub(crate) fn policy(self, slots: u32) -> Box<dyn Policy> {
        match self {
            Self::Fcfs => Box::new(Baseline::new(Fcfs::default(), slots)),
            Self::Fifo(most) => Box::new(Baseline::bounded(Fcfs::default(), slots, most)),
            Self::RoundRobin => Box::new(Baseline::new(RoundRobin::default(), slots)),
            Self::Las => Box::new(Baseline::new(LeastAttained::default(), slots)),
            Self::Vtc => Box::new(Baseline::new(Vtc::default(), slots)),
        }
    }

    pub(crate) fn run(self, setting: &Setting) -> Outcome {
        run(setting, self.policy(setting.slots).as_mut())
    }
}
