//! The steps that need only Rust.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Context;
use super::tally::Tally;
use crate::machine::command::{Cmd, Output, tail};
use crate::machine::console::{long_step, say, with_signs_of_life};

const LIMIT: Duration = Duration::from_mins(45);
/// Lines of a failed step that are shown; its log has all.
const SHOWN_LINES: usize = 60;
/// Number, scenario, goal, and at least six figures.
const TABLE_COLUMNS: usize = 9;
const CARGO_DENY: &str = "0.20.2";

/// Every file is formatted.
pub fn formatting(context: &Context) -> Result<Tally> {
    holds(context, "formatting", &cargo(context, &["fmt", "--all", "--check"]))
}

/// No lint fires anywhere, tests and benches included.
pub fn clippy(context: &Context) -> Result<Tally> {
    let lint = ["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "--deny=warnings"];
    holds(context, "clippy", &cargo(context, &lint))
}

/// Every test that needs no cluster.
pub fn tests(context: &Context) -> Result<Tally> {
    let test = cargo(context, &["test", "--quiet", "--locked", "--workspace", "--no-fail-fast"]);
    let output = logged(context, "tests", &test)?;
    let tally = Tally::of_tests(&output.out);
    // What does not compile runs no test, and must not pass for it.
    let silent_failure = !output.status.success() && tally.failed == 0;
    Ok(Tally { failed: tally.failed + usize::from(silent_failure), ..tally })
}

/// A hundred million decisions of the algorithms, with nothing admitted beyond a bound: too slow for the other tests.
pub fn simulation(context: &Context) -> Result<Tally> {
    let of = ["test", "--profile=bench", "--quiet", "--locked", "--package", "corral-limiter"];
    let test = cargo(context, &of).args(["--test", "algorithms", "--", "--ignored"]);
    let output = logged(context, "simulation", &test)?;
    Ok(all_passed(&output))
}

/// Threads hand slots over in every order in which they can meet. Built apart, for another sort of locks is compiled in.
pub fn interleavings(context: &Context) -> Result<Tally> {
    let of = ["test", "--quiet", "--locked", "--package", "corral-limiter", "--test", "loom"];
    let test = cargo(context, &of)
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", context.target.join("loom"));
    let output = logged(context, "interleavings", &test)?;
    Ok(all_passed(&output))
}

/// What a program of tests counted, of which at least one must have run and none may have failed.
fn all_passed(output: &Output) -> Tally {
    let tally = Tally::of_tests(&output.out);
    let nothing_ran = !output.status.success() || tally.passed == 0;
    Tally { failed: tally.failed + usize::from(nothing_ran && tally.failed == 0), ..tally }
}

/// The queue beside what others do, in virtual time: every target holds, and the table of them is shown.
pub fn fairness(context: &Context) -> Result<Tally> {
    let of = ["test", "--profile=bench", "--quiet", "--locked", "--package", "corral-fairness"];
    let output = logged(context, "fairness", &cargo(context, &of).args(["--", "--nocapture"]))?;
    // Pods and their readiness are simulated beside the programs that they come from; their tests were counted before.
    let relief = ["test", "--quiet", "--locked", "--package", "corral-tests", "--test", "relief"];
    let relief = logged(context, "readiness", &cargo(context, &relief).args(["--", "--nocapture", "waves"]))?;
    show_table(output.out.lines().chain(relief.out.lines()));
    let tally = all_passed(&output);
    Ok(Tally { failed: tally.failed + all_passed(&relief).failed, ..tally })
}

/// Pools that grow and shrink beside what others do, in virtual time: every target holds, and the table of them is shown.
pub fn scaling(context: &Context) -> Result<Tally> {
    let of = ["test", "--profile=bench", "--quiet", "--locked", "--package", "corral-scaling"];
    let output = logged(context, "scaling", &cargo(context, &of).args(["--", "--nocapture"]))?;
    show_table(output.out.lines());
    Ok(all_passed(&output))
}

fn show_table<'a>(lines: impl Iterator<Item = &'a str>) {
    let mut table: Vec<&str> = lines.filter_map(table_line).collect();
    table.sort_unstable();
    for line in table {
        say(format!("  {line}"));
    }
}

/// A line of the table; the test harness may have written a dot before it.
fn table_line(line: &str) -> Option<&str> {
    let row = line.get(line.find("| ")?..)?;
    (row.ends_with('|') && row.matches('|').count() > TABLE_COLUMNS).then_some(row)
}

/// The limiter's benchmarks run, and what a thousand pods cost the operator is measured; what they say is shown, for it is a
/// figure of this machine.
pub fn benchmarks(context: &Context) -> Result<Tally> {
    let of = ["bench", "--quiet", "--locked", "--package", "corral-limiter", "--bench", "decide"];
    let bench = cargo(context, &of).args(["--bench", "queue", "--", "--quick", "--noplot"]);
    let output = logged(context, "benchmarks", &bench)?;
    // A name, on the same line or the one before, and its time; not how it compares with some earlier run.
    let compared = |line: &&str| ["change:", "erformance"].iter().any(|word| line.contains(word));
    let shown = output.out.lines().filter(|line| !line.trim().is_empty() && !compared(line));
    shown.for_each(|line| say(format!("  {line}")));
    Ok(Tally::one(output.status.success() && thousand(context)?))
}

/// The operator beside a thousand scripted pods, as a process of its own, which is built first.
fn thousand(context: &Context) -> Result<bool> {
    let build =
        cargo(context, &["build", "--release", "--quiet", "--locked", "--package", "corral-operator"]);
    if !logged(context, "operator", &build)?.status.success() {
        return Ok(false);
    }
    let of = ["bench", "--quiet", "--locked", "--package", "corral-tests", "--bench", "thousand"];
    let output = logged(context, "thousand", &cargo(context, &of).args(["--", "--short"]))?;
    output.out.lines().for_each(|line| say(format!("  {line}")));
    Ok(output.status.success())
}

/// The documentation builds, and every link in it leads somewhere.
pub fn documentation(context: &Context) -> Result<Tally> {
    let doc = cargo(context, &["doc", "--quiet", "--locked", "--workspace", "--no-deps"]);
    holds(context, "documentation", &doc.env("RUSTDOCFLAGS", "--deny=warnings"))
}

/// Licences, sources and banned crates of everything that we depend on.
pub fn dependencies(context: &Context) -> Result<Tally> {
    let id = format!("cargo-deny-{CARGO_DENY}");
    let folder = context.cache.entry(&id, check_deny, |folder| {
        long_step("building cargo-deny", "5 to 10 min the first time", || install_deny(folder))
    })?;
    // A build brings the crates of its own platform only, and these are looked at for all.
    cargo(context, &["fetch", "--quiet", "--locked"]).run()?;
    let deny = Cmd::new(folder.join("bin/cargo-deny"))
        .args(["--offline", "--workspace", "check", "bans", "licenses", "sources"])
        .dir(&context.settings.repository)
        .limit(LIMIT);
    holds(context, "dependencies", &deny)
}

fn install_deny(folder: &Path) -> Result<()> {
    let install = Cmd::words([
        "cargo",
        "install",
        "--quiet",
        "--locked",
        "--version",
        CARGO_DENY,
        "cargo-deny",
        "--root",
    ]);
    install.arg(folder).env("CARGO_TARGET_DIR", folder.join("target")).limit(LIMIT).run()?;
    Ok(fs::remove_dir_all(folder.join("target"))?)
}

fn check_deny(folder: &Path) -> Result<()> {
    let said = Cmd::new(folder.join("bin/cargo-deny")).arg("--version").read()?;
    ensure!(said.contains(CARGO_DENY), "cargo-deny says it is `{said}`");
    Ok(())
}

fn cargo(context: &Context, arguments: &[&str]) -> Cmd {
    Cmd::new("cargo")
        .args(arguments)
        .env("CARGO_TARGET_DIR", &context.target)
        // Incremental state is of no use to the next checkout, and large.
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TERM_COLOR", "never")
        .dir(&context.settings.repository)
        .limit(LIMIT)
}

fn holds(context: &Context, name: &str, command: &Cmd) -> Result<Tally> {
    Ok(Tally::one(logged(context, name, command)?.status.success()))
}

/// Runs a command, keeps its output in a log, and shows the end of it when it failed.
fn logged(context: &Context, name: &str, command: &Cmd) -> Result<Output> {
    let output = with_signs_of_life(name, || command.attempt())?;
    let log = context.logs.join(format!("{name}.log"));
    let text = format!("{}\n{}", output.out, output.err);
    fs::write(&log, &text)?;
    if !output.status.success() {
        say(format!("{}\n    (all of it in {})", tail(&text, SHOWN_LINES), log.display()));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_found_behind_the_dots_of_the_harness() {
        let row = "|  6a | twice too much | >= 0.97 | 0.99 | 0.29 | 0.29 | 1.00 | 0.88 | 0.90 | 0.88 |";
        assert_eq!(table_line(row), Some(row));
        assert_eq!(table_line(&format!("...{row}")), Some(row));
        assert_eq!(table_line("warning: a | b |"), None);
        assert_eq!(table_line("test result: ok. 58 passed"), None);
    }
}
