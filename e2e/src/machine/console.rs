//! What a person sees: one line a step, with the time it took, and a sign of life while a long one runs.

use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::clock::{Stopwatch, seconds};

const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// Prints one line. A closed pipe is no error: the work goes on.
pub fn say(line: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", line.as_ref());
    let _ = out.flush();
}

/// Runs a step that takes seconds: one line when it is over.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    long_step(what, "", work)
}

/// Runs a step that may take minutes: says so first (`usual` is added, such as `about 4 min the first time`),
/// shows the elapsed time every 20 s, and ends with the time it took.
pub fn long_step<T>(what: &str, usual: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let watch = Stopwatch::start();
    if !usual.is_empty() {
        say(format!("  {what} … {usual}"));
    }
    let outcome = with_signs_of_life(what, work);
    match &outcome {
        Ok(_) => say(format!("  {what}: {}", seconds(watch.elapsed()))),
        Err(_) => say(format!("  {what}: FAILED after {}", seconds(watch.elapsed()))),
    }
    outcome
}

/// Runs what may take minutes, and shows the elapsed time every 20 s.
pub fn with_signs_of_life<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let watch = Stopwatch::start();
    thread::scope(|scope| {
        let (over, wait) = mpsc::channel::<()>();
        scope.spawn(move || {
            while wait.recv_timeout(SIGN_OF_LIFE) == Err(RecvTimeoutError::Timeout) {
                say(format!("    … {what}, {}", seconds(watch.elapsed())));
            }
        });
        let result = work();
        drop(over);
        result
    })
}
