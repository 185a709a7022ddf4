//! The only place that reads the time.
//!
//! Everything that decides is handed a [`Nanos`]; tokio's clock is behind it, so a paused runtime moves all of it.

use std::time::Duration;

use corral_limiter::Nanos;
use jiff::Timestamp;
use tokio::time::Instant;

/// Monotonic time since the process began to serve.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts at zero now.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time since the start.
    pub fn now(&self) -> Nanos {
        let since = Instant::now().saturating_duration_since(self.origin);
        Nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The instant a timer must be set to, to fire at `at`.
    pub fn instant(&self, at: Nanos) -> Instant {
        self.origin.checked_add(Duration::from_nanos(at.0)).unwrap_or_else(|| far_from(self.origin))
    }
}

/// Nanoseconds since 1970, by the wall clock.
pub fn unix_nanos() -> i128 {
    Timestamp::now().as_nanosecond()
}

/// Milliseconds since 1970, by the wall clock; 0 before.
pub fn unix_millis() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// The date and time that far ahead, in UTC and rounded up to the second, as RFC 3339 writes it: `2026-02-01T00:00:07Z`.
pub fn date_after(wait: Nanos) -> String {
    date(Timestamp::now(), wait)
}

fn date(now: Timestamp, wait: Nanos) -> String {
    let at = now.saturating_add(Duration::from(wait)).unwrap_or(Timestamp::MAX);
    let up = i64::from(at.subsec_nanosecond() > 0);
    Timestamp::from_second(at.as_second().saturating_add(up)).unwrap_or(Timestamp::MAX).to_string()
}

/// A time so far ahead that nobody waits for it, and still one that every platform can add.
fn far_from(origin: Instant) -> Instant {
    origin.checked_add(Duration::from_hours(24 * 365)).unwrap_or(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_rounded_up_to_the_second() {
        let now: Timestamp = "2026-02-28T23:59:58.5Z".parse().unwrap();
        assert_eq!(date(now, Nanos::ZERO), "2026-02-28T23:59:59Z");
        assert_eq!(date(now, Nanos::from_millis(500)), "2026-02-28T23:59:59Z");
        assert_eq!(date(now, Nanos(500_000_001)), "2026-03-01T00:00:00Z");
        assert!(date(now, Nanos(u64::MAX)).starts_with("2610-"));
    }

    #[tokio::test(start_paused = true)]
    async fn time_moves_with_the_runtime_and_timers_agree_with_it() {
        let clock = Clock::start();
        tokio::time::sleep_until(clock.instant(Nanos(1_500_000_000))).await;
        let now = clock.now();
        assert!((1_500_000_000..1_502_000_000).contains(&now.0), "{now:?}");
    }
}
