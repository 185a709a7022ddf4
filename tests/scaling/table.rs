//! The lines of the table, one a figure: the goal, ours in three presets, and the three baselines.

use std::fmt::Write;

use crate::autoscaler::Autoscaler;
use crate::baselines::{hpa::Hpa, kpa::Kpa, kubeai::KubeAi};
use crate::ours::{Ours, Preset};
use crate::outcome::Outcome;
use crate::world::{Setting, run};

/// What sizes the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours(Preset),
    Kpa,
    Hpa,
    KubeAi,
}

pub(crate) const OURS: [Kind; 3] =
    [Kind::Ours(Preset::Economy), Kind::Ours(Preset::Balanced), Kind::Ours(Preset::Fast)];
pub(crate) const BASELINES: [Kind; 3] = [Kind::Kpa, Kind::Hpa, Kind::KubeAi];
const COLUMNS: usize = OURS.len() + BASELINES.len();

/// Fewest and most pods where a scenario says nothing else.
pub(crate) const BOUNDS: [u32; 2] = [1, 1000];

impl Kind {
    fn autoscaler(self) -> Box<dyn Autoscaler> {
        match self {
            Self::Ours(preset) => Box::new(Ours::new(preset, BOUNDS)),
            Self::Kpa => Box::new(Kpa::new(BOUNDS)),
            Self::Hpa => Box::new(Hpa::new(BOUNDS)),
            Self::KubeAi => Box::new(KubeAi::new(BOUNDS)),
        }
    }

    pub(crate) fn run(self, setting: &Setting) -> Outcome {
        run(setting, self.autoscaler().as_mut())
    }
}

/// What comes of all under one load, in the order of the columns.
pub(crate) struct Beside(Vec<Outcome>);

impl Beside {
    pub(crate) fn of(setting: &Setting) -> Self {
        Self(OURS.into_iter().chain(BASELINES).map(|kind| kind.run(setting)).collect())
    }
}

/// A line of the table.
pub(crate) struct Row<'a> {
    /// Lines are sorted by this: the number of the scenario in the list of targets, and a letter.
    pub(crate) number: &'a str,
    pub(crate) what: &'a str,
    pub(crate) goal: &'a str,
    pub(crate) decimals: usize,
}

impl Row<'_> {
    /// Prints the same figure of all.
    pub(crate) fn print(&self, all: &Beside, figure: impl Fn(&Outcome) -> f64) {
        self.line(all.0.iter().map(|outcome| Some(figure(outcome))));
    }

    /// Prints a figure that only Balanced has.
    pub(crate) fn print_balanced(&self, figure: f64) {
        self.line([None, Some(figure)].into_iter());
    }

    fn line(&self, figures: impl Iterator<Item = Option<f64>>) {
        let Self { number, what, goal, decimals } = self;
        let digits = number.trim_end_matches(char::is_alphabetic);
        let letter = &number[digits.len()..];
        let mut line = format!("| {digits:>2}{letter:<1} | {what:<58} | {goal:<14} |");
        for figure in figures.chain(std::iter::repeat(None)).take(COLUMNS) {
            let shown = figure.map(|figure| format!("{figure:.decimals$}")).unwrap_or_default();
            write!(line, " {shown:>8} |").unwrap();
        }
        println!("{line}");
    }
}

#[test]
fn the_table_says_what_its_columns_are() {
    let columns = ["economy", "balanced", "fast", "kpa", "hpa", "kubeai"];
    assert_eq!(columns.len(), COLUMNS);
    let columns = columns.map(|column| format!("{column:>8}"));
    println!("| {:<3} | {:<58} | {:<14} | {} |", " #", "scenario", "goal", columns.join(" | "));
}
