//! Moments of the cluster's clocks on the operator's own: what the core reckons with has to lie on one line.
//!
//! Pods are older than this process, whose clock begins at about 0, so the line begins `BEFORE` its making.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// What lies before the making of the operator's clock: ten years. What is older counts as this old.
const BEFORE: Duration = Duration::from_hours(10 * 365 * 24);

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Present {
    /// By the operator's monotonic clock.
    pub now: Duration,
    /// By the time of day.
    pub wall: Timestamp,
}

impl Present {
    /// Now, on the line.
    pub fn moment(&self) -> Duration {
        on_line(self.now)
    }

    /// A moment that somebody wrote down by the time of day; one in the future counts as now.
    pub fn moment_of(&self, time: &Time) -> Duration {
        let age = self.wall.duration_since(time.0);
        self.moment().saturating_sub(Duration::try_from(age).unwrap_or_default())
    }
}

/// A moment of the operator's monotonic clock, on the line.
pub fn on_line(now: Duration) -> Duration {
    now.saturating_add(BEFORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn what_was_before_the_process_keeps_its_distance() {
        let present =
            Present { now: Duration::from_secs(3), wall: Timestamp::from_second(1_800_000_000).unwrap() };
        let hour_ago = present.moment_of(&time(1_800_000_000 - 3600));
        assert_eq!(hour_ago + Duration::from_hours(1), present.moment());
        assert_eq!(present.moment_of(&time(1_800_000_050)), present.moment(), "a clock that goes ahead");
        assert_eq!(present.moment_of(&time(0)), Duration::ZERO, "older than the line");
        assert_eq!(on_line(Duration::from_secs(3)), present.moment());
    }
}
