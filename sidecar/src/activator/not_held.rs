//! Why a request is not held, in words, and when to come back.

use corral_limiter::Nanos;

use crate::proxy::seconds;

/// A request that is not held, or no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotHeld {
    pub(crate) why: Why,
    /// When a pod will probably be ready; an estimate. None where none is asked for.
    pub(crate) wait: Option<Nanos>,
    /// The longest that any is held.
    pub(crate) max_hold: Nanos,
    /// The longest body that is held.
    pub(crate) max_body_bytes: u64,
}

/// What is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// As many are held as may be, or as many bytes.
    Full,
    /// The same of one client.
    ClientFull,
    /// Its body is longer than any that is held.
    TooLarge,
    /// No pod came in time.
    TooLate,
    /// What it asks for can only be told by a pod, and is not worth one.
    NoPod,
    /// The activator shuts down.
    Draining,
    /// The pool is stopped: no pod is asked for.
    Stopped,
    /// There is no key to tell a pod whose request it is.
    NoKey,
}

impl Why {
    /// Whether it is for want of room or time, and so a sign that more is asked for than there is. What one client sends
    /// beyond its share is none.
    pub(crate) fn is_capacity(self) -> bool {
        matches!(self, Self::Full | Self::TooLarge | Self::TooLate)
    }
}

impl std::fmt::Display for NotHeld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = match self.why {
            Why::Full => "and as many requests are held until one is as may be \
                 (spec.autoscaling.scaleToZero.maxHeldRequests, maxHeldBytes)."
                .to_owned(),
            Why::ClientFull => {
                "and of those that are held until one is a quarter are yours, which is as many as one \
                 client may have (spec.autoscaling.scaleToZero.maxHeldRequests, maxHeldBytes)."
                    .to_owned()
            }
            Why::TooLarge => {
                format!("and a body of more than {} bytes is not held until one is.", self.max_body_bytes)
            }
            Why::TooLate => format!(
                "though this request has been held for {} (spec.autoscaling.scaleToZero.maxHoldSeconds).",
                seconds(self.max_hold)
            ),
            Why::NoPod => "and what limits apply can only be told by one.".to_owned(),
            Why::Draining => "and what held this request until one is shuts down.".to_owned(),
            Why::Stopped => {
                "and none is asked for: the pool is stopped (spec.replicas is 0) or deleted.".to_owned()
            }
            Why::NoKey => "as far as can be told: the key of this pool is missing.".to_owned(),
        };
        write!(f, "No pod of this pool is ready, {why}")?;
        self.wait.map_or(Ok(()), |wait| write!(f, " Retry in about {}.", seconds(wait)))
    }
}

impl std::error::Error for NotHeld {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_what_is_in_the_way_and_when_to_come_back() {
        for (why, words) in [
            (Why::Full, "maxHeldRequests"),
            (Why::ClientFull, "a quarter are yours"),
            (Why::TooLarge, "more than 1048576 bytes"),
            (Why::TooLate, "held for 600s (spec.autoscaling.scaleToZero.maxHoldSeconds)"),
            (Why::NoPod, "only be told by one"),
            (Why::Draining, "shuts down"),
            (Why::NoKey, "key of this pool"),
        ] {
            let (wait, max_hold) = (Some(Nanos::from_secs(40)), Nanos::from_secs(600));
            let text = NotHeld { why, wait, max_hold, max_body_bytes: 1 << 20 }.to_string();
            assert!(text.contains(words) && text.ends_with(" Retry in about 40s."), "{text}");
            assert!(text.starts_with("No pod of this pool is ready, ") && !text.contains("  "), "{text}");
        }
    }

    #[test]
    fn where_no_pod_comes_nobody_is_told_to_come_back() {
        let max_hold = Nanos::from_secs(600);
        let text = NotHeld { why: Why::Stopped, wait: None, max_hold, max_body_bytes: 1 << 20 }.to_string();
        assert!(text.ends_with("the pool is stopped (spec.replicas is 0) or deleted."), "{text}");
    }
}
