//! Runs stories lane by lane, keeps their budgets, and says how it went.

use std::fmt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::scene::Scene;
use super::{Lane, Story};
use crate::cluster::Cluster;
use crate::machine::clock::{Deadline, Stopwatch, seconds};
use crate::machine::console::say;

/// Stories of the parallel lane that run at the same time.
const AT_ONCE: usize = 4;
/// What a story's wait, bounded by its deadline, may take longer before the runner goes on without it.
const GRACE: Duration = Duration::from_secs(15);
const NAMESPACE_LIMIT: Duration = Duration::from_mins(1);

/// How one story went.
#[derive(Debug)]
struct Report {
    story: &'static str,
    budget: Duration,
    time: Duration,
    failure: Option<String>,
}

/// How all went; its last line is `N passed, N failed`.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Stories that hold.
    pub passed: usize,
    /// Stories that do not, or took more than twice their budget.
    pub failed: usize,
    reports: Vec<Report>,
}

impl Outcome {
    fn add(&mut self, report: Report) {
        say(report.to_string());
        *(if report.failure.is_none() { &mut self.passed } else { &mut self.failed }) += 1;
        self.reports.push(report);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.failure.is_none() { "ok    " } else { "FAILED" };
        write!(f, "  {word} {} in {} of {} s", self.story, seconds(self.time), self.budget.as_secs())?;
        let why = self.failure.as_deref().unwrap_or_default();
        why.lines().try_for_each(|line| write!(f, "\n         {line}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut slowest: Vec<&Report> = self.reports.iter().collect();
        slowest.sort_by_key(|report| std::cmp::Reverse(report.time));
        writeln!(f, "Slowest stories:")?;
        for report in slowest.iter().take(10) {
            writeln!(
                f,
                "  {:>7} of {:>3} s  {}",
                seconds(report.time),
                report.budget.as_secs(),
                report.story
            )?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Runs stories: first the parallel lane, four at once; then the others, one at a time.
pub fn run(cluster: &Cluster, stories: &[Story]) -> Outcome {
    say(format!("Running {} stories on the cluster `{}`", stories.len(), cluster.instance.name));
    let mut outcome = Outcome::default();
    let of = |lane: Lane| stories.iter().filter(move |story| story.lane == lane);
    run_side_by_side(cluster, of(Lane::Parallel).copied().collect(), &mut outcome);
    for story in of(Lane::Cluster).chain(of(Lane::Quiet)) {
        outcome.add(run_within_budget(cluster, *story));
    }
    outcome
}

fn run_side_by_side(cluster: &Cluster, mut waiting: Vec<Story>, outcome: &mut Outcome) {
    let (done, reports) = mpsc::channel();
    waiting.reverse();
    let mut running = 0;
    loop {
        while running < AT_ONCE
            && let Some(story) = waiting.pop()
        {
            let (cluster, done) = (cluster.clone(), done.clone());
            thread::spawn(move || done.send(run_within_budget(&cluster, story)));
            running += 1;
        }
        if running == 0 {
            return;
        }
        let Ok(report) = reports.recv() else { return };
        running -= 1;
        outcome.add(report);
    }
}

/// Runs a story on a thread of its own: one that hangs is left behind and counted as failed.
fn run_within_budget(cluster: &Cluster, story: Story) -> Report {
    let scene = Scene::new(cluster, &story);
    let watch = Stopwatch::start();
    let (send, receive) = mpsc::channel();
    thread::spawn({
        let scene = scene.clone();
        move || send.send(play(&scene, story))
    });
    let result = receive.recv_timeout(story.budget * 2 + GRACE + NAMESPACE_LIMIT);
    let (result, time) = result.unwrap_or_else(|_| (Err(anyhow!("it panicked or hangs")), watch.elapsed()));
    let late = time > story.budget * 2;
    let failure = match result {
        Err(error) => Some(format!("{error:#}")),
        Ok(()) if late => Some("it holds, but takes more than twice its budget".to_owned()),
        Ok(()) => None,
    };
    Report { story: story.name, budget: story.budget, time, failure }
}

/// A failed story's namespace stays for a look at it; the next run of the story removes it.
fn play(scene: &Scene, story: Story) -> (Result<()>, Duration) {
    if let Err(error) = scene.cluster.fresh_namespace(&scene.namespace, NAMESPACE_LIMIT) {
        return (Err(error), Duration::ZERO);
    }
    let watch = Stopwatch::start();
    let scene = Scene { deadline: Deadline::after(story.budget * 2), ..scene.clone() };
    let result = (story.run)(&scene);
    let time = watch.elapsed();
    if result.is_ok() {
        let delete = ["delete", "namespace", &scene.namespace, "--wait=false"];
        let _ = scene.cluster.kubectl(delete).attempt();
    }
    (result.map_err(|error| anyhow!("{error:#}\n{}", scene.aftermath())), time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(story: &'static str, millis: u64, failure: Option<&str>) -> Report {
        let (budget, time) = (Duration::from_secs(10), Duration::from_millis(millis));
        Report { story, budget, time, failure: failure.map(str::to_owned) }
    }

    #[test]
    fn the_closing_line_counts_and_stands_alone() {
        let mut outcome = Outcome::default();
        outcome.add(report("fast", 100, None));
        outcome.add(report("slow", 9000, None));
        outcome.add(report("wrong", 500, Some("no answer")));
        let text = outcome.to_string();
        assert_eq!(text.lines().last(), Some("2 passed, 1 failed"));
        let order: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(order.get(1..4).unwrap(), ["slow", "wrong", "fast"]);
    }
}
