//! What was measured, beside what it was to be.

use std::fmt::Write as _;
use std::time::Duration;

use corral_tests::load::{Spread, in_millis};

/// Of a core, for all that the operator does.
const MOST_CPU: f64 = 0.25;
const MOST_RESIDENT_KIB: u64 = 150 * 1024;
const LONGEST_DECISION: Duration = Duration::from_millis(500);
/// From one call of a pod to the next: 2 s and a fifth, and what a call waits for its turn.
const LONGEST_GAP: Duration = Duration::from_secs(3);

/// What was measured.
pub(crate) struct Figures {
    pub(crate) pods: usize,
    /// Shares of a core, under the usual load and while queues come.
    pub(crate) usual: f64,
    pub(crate) bursts: f64,
    pub(crate) resident_kib: u64,
    pub(crate) peak_kib: u64,
    /// From a report that shows a queue to the Deployment that asks for more.
    pub(crate) decisions: Spread,
    /// Queues that were not answered in time.
    pub(crate) unanswered: usize,
    /// The longest time between two calls, of each pod.
    pub(crate) gaps: Spread,
    pub(crate) unasked: usize,
    pub(crate) calls_each_second: f64,
    pub(crate) pod_writes: usize,
    /// All writes under the usual load, but for those of the Lease.
    pub(crate) usual_writes: usize,
}

/// One line of the table; without a goal it is only told.
struct Line {
    what: String,
    is: String,
    goal: Option<(String, bool)>,
}

/// The table.
pub(crate) fn table(figures: &Figures) -> String {
    let mut text = String::new();
    for Line { what, is, goal } in lines(figures) {
        let (goal, holds) = match goal {
            Some((goal, true)) => (goal, "yes"),
            Some((goal, false)) => (goal, "MISSED"),
            None => (String::new(), ""),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {what:<46} | {is:>12} | {goal:>10} | {holds:<6} |");
    }
    text
}

fn lines(figures: &Figures) -> Vec<Line> {
    let goal = |what: &str, is: String, goal: String, holds| Line {
        what: what.to_owned(),
        is,
        goal: Some((goal, holds)),
    };
    let told = |what: String, is: String| Line { what, is, goal: None };
    let share = |share: f64| format!("{:.1} %", share * 100.0);
    let mib = |kib: u64| format!("{} MiB", kib.div_ceil(1024));
    let (decisions, gaps) = (&figures.decisions, &figures.gaps);
    vec![
        told(
            format!("{} pods, calls each second", figures.pods),
            format!("{:.0}", figures.calls_each_second),
        ),
        goal("CPU of a core, usual load", share(figures.usual), "< 25 %".into(), figures.usual < MOST_CPU),
        goal(
            "CPU of a core, while queues come",
            share(figures.bursts),
            "< 25 %".into(),
            figures.bursts < MOST_CPU,
        ),
        goal(
            "memory, resident",
            mib(figures.resident_kib),
            "< 150 MiB".into(),
            figures.resident_kib < MOST_RESIDENT_KIB,
        ),
        told("memory, at its peak".into(), mib(figures.peak_kib)),
        goal(
            "report to larger Deployment, p99",
            in_millis(decisions.p99()),
            "< 500 ms".into(),
            decisions.count() > 0 && decisions.p99() < LONGEST_DECISION,
        ),
        told(
            format!("report to larger Deployment, p50 of {}", decisions.count()),
            in_millis(decisions.p50()),
        ),
        goal(
            "longest gap between two calls of a pod, p99",
            in_millis(gaps.p99()),
            "< 3 s".into(),
            gaps.p99() < LONGEST_GAP,
        ),
        goal(
            "queues without an answer in 10 s",
            figures.unanswered.to_string(),
            "0".into(),
            figures.unanswered == 0,
        ),
        told("CPU time of one call, and all that follows".into(), each_call(figures)),
        goal("pods never asked", figures.unasked.to_string(), "0".into(), figures.unasked == 0),
        goal("writes to pods", figures.pod_writes.to_string(), "0".into(), figures.pod_writes == 0),
        told("other writes under the usual load".into(), figures.usual_writes.to_string()),
    ]
}

fn each_call(figures: &Figures) -> String {
    let calls = figures.calls_each_second.max(f64::MIN_POSITIVE);
    format!("{:.0} us", figures.usual * 1e6 / calls)
}
