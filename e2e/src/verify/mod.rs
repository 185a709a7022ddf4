//! Every check and test there is, as one list of steps. Each runs whatever became of those before it.

pub mod checks;
pub mod cluster;
pub mod tally;

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::artifacts::rust;
use crate::machine::cache::Cache;
use crate::machine::clock::{Stopwatch, seconds};
use crate::machine::console::say;
use crate::machine::settings::Settings;

use tally::{Done, Tally};

/// What the steps share.
pub struct Context {
    settings: Settings,
    cache: Cache,
    /// Cargo's target folder for all steps: this checkout's own.
    target: PathBuf,
    /// Where each step's whole output goes.
    logs: PathBuf,
}

/// One step.
struct Step {
    name: &'static str,
    /// A hint for whoever waits.
    usual: &'static str,
    run: fn(&Context) -> Result<Tally>,
}

const STEPS: &[Step] = &[
    Step { name: "formatting", usual: "seconds", run: checks::formatting },
    Step { name: "clippy", usual: "1 to 3 min the first time", run: checks::clippy },
    Step { name: "tests", usual: "2 to 5 min the first time", run: checks::tests },
    Step { name: "simulation", usual: "1 to 2 min the first time", run: checks::simulation },
    Step { name: "fairness", usual: "1 to 2 min the first time", run: checks::fairness },
    Step { name: "scaling", usual: "1 to 2 min the first time", run: checks::scaling },
    Step { name: "interleavings", usual: "1 min the first time", run: checks::interleavings },
    Step { name: "benchmarks", usual: "3 to 5 min the first time", run: checks::benchmarks },
    Step { name: "documentation", usual: "1 min the first time", run: checks::documentation },
    Step { name: "dependencies", usual: "5 to 10 min the first time", run: checks::dependencies },
    Step { name: "stories", usual: "20 to 35 min the first time", run: cluster::stories },
];

/// Runs all steps and prints a summary whose last line is `N passed, N failed`. True when nothing failed.
pub fn run(settings: &Settings) -> Result<bool> {
    let cache = Cache::new(&settings.cache);
    let logs = settings.repository.join("target/verify");
    fs::create_dir_all(&logs)?;
    let target = rust::target_folder(&cache, settings, "debug")?;
    let context = Context { settings: settings.clone(), cache, target, logs };
    let watch = Stopwatch::start();
    let done: Vec<Done> = STEPS.iter().map(|step| run_step(step, &context)).collect();
    say(tally::summary(&done, watch.elapsed()));
    Ok(done.iter().all(|step| step.tally.failed == 0))
}

fn run_step(step: &Step, context: &Context) -> Done {
    let watch = Stopwatch::start();
    say(format!("{} … {}", step.name, step.usual));
    let tally = (step.run)(context).unwrap_or_else(|error| {
        say(format!("{error:#}"));
        Tally { passed: 0, failed: 1 }
    });
    say(format!("{}: {tally} in {}", step.name, seconds(watch.elapsed())));
    Done { name: step.name, tally, time: watch.elapsed() }
}
