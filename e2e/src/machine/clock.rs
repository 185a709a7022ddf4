//! Elapsed time and deadlines: the only place that reads a monotonic clock.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Measures how long something takes.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(self) -> Duration {
        Instant::now().saturating_duration_since(self.0)
    }
}

/// A moment after which waiting is over.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    started: Stopwatch,
    limit: Duration,
}

impl Deadline {
    /// `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Self { started: Stopwatch::start(), limit }
    }

    /// What is left; zero once it has passed.
    pub fn left(self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    /// Whether it has passed.
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// The earlier of this one and `limit` from now.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        Self::after(self.left().min(limit))
    }

    /// Asks `ready` every `pause` until it gives a value; fails with its last reason when the deadline passes.
    pub fn wait<T>(
        self,
        what: &str,
        pause: Duration,
        mut ready: impl FnMut() -> Result<Result<T, String>>,
    ) -> Result<T> {
        loop {
            let reason = match ready()? {
                Ok(value) => return Ok(value),
                Err(reason) => reason,
            };
            if self.passed() {
                bail!("gave up after {} s waiting until {what}: {reason}", self.limit.as_secs());
            }
            thread::sleep(pause.min(self.left()).max(Duration::from_millis(1)));
        }
    }
}

/// Seconds with one decimal below ten, whole seconds above: `0.4 s`, `254 s`.
pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{:.0} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_gives_up_with_the_last_reason() {
        let error = Deadline::after(Duration::from_millis(5))
            .wait::<()>("pigs fly", Duration::from_millis(1), || Ok(Err("no wings".to_owned())))
            .unwrap_err();
        assert!(error.to_string().ends_with("waiting until pigs fly: no wings"), "{error}");
    }

    #[test]
    fn a_wait_ends_at_once_on_an_error() {
        let deadline = Deadline::after(Duration::from_mins(1));
        let asked = Stopwatch::start();
        assert!(deadline.wait::<()>("x", Duration::from_mins(1), || bail!("broken")).is_err());
        assert!(asked.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn short_times_show_a_decimal() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(254)), "254 s");
    }
}
