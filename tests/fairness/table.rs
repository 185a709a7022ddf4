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

/// What comes of every baseline under one load.
pub(crate) struct Beside(Vec<Option<Outcome>>);

impl Beside {
    pub(crate) fn of(setting: &Setting) -> Self {
        Self(BASELINES.iter().map(|kind| Some(kind.run(setting))).collect())
    }

    /// In the order of [`BASELINES`]; none where there is nothing to compare.
    pub(crate) fn these(outcomes: Vec<Option<Outcome>>) -> Self {
        Self(outcomes)
    }

    /// No baseline can be compared.
    pub(crate) fn nothing() -> Self {
        Self(Vec::new())
    }
}

/// A line of the table.
pub(crate) struct Row<'a> {
    /// Lines are sorted by this: the number of the scenario in the list of targets, and a letter.
    pub(crate) number: &'a str,
    pub(crate) what: &'a str,
    pub(crate) goal: &'a str,
    pub(crate) ours: f64,
    pub(crate) decimals: usize,
}

impl Row<'_> {
    /// Prints it, with the same figure of each baseline.
    pub(crate) fn print(&self, baselines: &Beside, figure: impl Fn(&Outcome) -> f64) {
        let Self { number, what, goal, ours, decimals } = self;
        let digits = number.trim_end_matches(char::is_alphabetic);
        let letter = &number[digits.len()..];
        let mut line = format!("| {digits:>2}{letter:<1} | {what:<54} | {goal:<11} | {ours:>7.decimals$} |");
        for at in 0..BASELINES.len() {
            let figure = baselines.0.get(at).and_then(Option::as_ref).map(&figure);
            let shown = figure.map(|figure| format!("{figure:.decimals$}")).unwrap_or_default();
            write!(line, " {shown:>7} |").unwrap();
        }
        println!("{line}");
    }
}

#[test]
fn the_table_says_what_its_columns_are() {
    let columns = ["ours", "fcfs", "fifo512", "fifo16", "rr", "las", "vtc"];
    let columns = columns.map(|column| format!("{column:>7}"));
    println!("| {:<3} | {:<54} | {:<11} | {} |", " #", "scenario", "goal", columns.join(" | "));
    assert_eq!(BASELINES.len() + 1, columns.len());
}
