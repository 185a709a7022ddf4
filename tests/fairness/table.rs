//! The lines of the table, one a scenario: the goal, ours, and every baseline.

use std::fmt::Write;

use crate::baselines::{Baseline, fcfs::Fcfs, las::LeastAttained, round_robin::RoundRobin, vtc::Vtc};
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::world::{Setting, run};

/// What ours is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ollama alone: first come first served, without a bound.
    Fcfs,
    /// The same, with so many waiting at most.
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

/// A line of the table.
pub(crate) struct Row {
    /// Lines are sorted by this: the number of the scenario in the list of targets, and a letter.
    pub(crate) number: &'static str,
    pub(crate) what: String,
    pub(crate) goal: &'static str,
    pub(crate) ours: f64,
    pub(crate) decimals: usize,
}

impl Row {
    /// Prints it, with the same figure of each baseline.
    pub(crate) fn print(&self, setting: &Setting, figure: impl Fn(&Outcome) -> f64) {
        let all: Vec<Option<f64>> = BASELINES.iter().map(|kind| Some(figure(&kind.run(setting)))).collect();
        self.print_beside(&all);
    }

    /// Prints it with those figures, in the order of [`BASELINES`].
    pub(crate) fn print_beside(&self, baselines: &[Option<f64>]) {
        let decimals = self.decimals;
        let mut line =
            format!("| {:>3} | {:<50} | {:<12} | {:>6.decimals$} |", self.number, self.what, self.goal, self.ours);
        for at in 0..BASELINES.len() {
            let figure = baselines.get(at).copied().flatten().map(|figure| format!("{figure:.decimals$}"));
            write!(line, " {:>6} |", figure.unwrap_or_default()).unwrap();
        }
        println!("{line}");
    }
}

#[test]
fn the_table_says_what_its_columns_are() {
    println!(
        "| {:>3} | {:<50} | {:<12} | {:>6} | {:>6} | {:>6} | {:>6} | {:>6} | {:>6} | {:>6} |",
        "#", "scenario", "goal", "ours", "fcfs", "fifo512", "fifo16", "rr", "las", "vtc"
    );
    assert_eq!(BASELINES.len(), 6, "one for each column after ours");
}
