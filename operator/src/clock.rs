//! Time, handed in: everything that waits or expires asks a [`Clock`], so that tests bring their own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

/// Tells the time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Monotonic time since an origin of the clock's own choosing.
    fn now(&self) -> Duration;
    /// The time of day, for people and for fields of objects; nothing is decided by it.
    fn wall(&self) -> Timestamp;
}

/// A clock that many share.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock, counted from its making. It follows tokio's, also when that is paused.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock that begins now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }

    /// The same, to share.
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A duration up to `percent` % shorter or longer, so that many who wait alike do not wake alike.
pub fn jittered(duration: Duration, percent: u32) -> Duration {
    let mut bytes = [0_u8; 2];
    // Without randomness everybody waits alike, which is worse and still right.
    if getrandom::fill(&mut bytes).is_err() {
        return duration;
    }
    let spread = duration.saturating_mul(percent) / 100;
    let added = spread.saturating_mul(2).saturating_mul(u32::from(u16::from_le_bytes(bytes))) / 65_535;
    duration.saturating_sub(spread).saturating_add(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_bounds() {
        for _ in 0..200 {
            let waited = jittered(Duration::from_secs(10), 20);
            assert!((Duration::from_secs(8)..=Duration::from_secs(12)).contains(&waited), "{waited:?}");
        }
        assert_eq!(jittered(Duration::from_secs(1), 0), Duration::from_secs(1));
    }
}
