//! Tells a queue that only absorbs bursts from one that stands (CoDel): while one stands, waiting longer helps nobody.
//!
//! A good queue is empty now and then: somebody starts who waited hardly at all. Where nobody has for a whole interval,
//! those who come from then on may wait for less, and whoever came last goes first where somebody looks at a screen. It is
//! for bands that somebody waits for: jobs are there to queue.

use crate::Nanos;

const LEAST_TARGET: Nanos = Nanos::from_millis(500);
const LEAST_INTERVAL: Nanos = Nanos::from_secs(5);

/// Whether the queue of one band stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Codel {
    stands: bool,
    /// Since when it looks the other way.
    since: Option<Nanos>,
}

impl Codel {
    /// Somebody starts who has waited so long, where a request holds its slot for `service` on the average.
    pub(super) fn started(&mut self, waited: Nanos, service: Nanos, now: Nanos) {
        let is_long = waited > target(service);
        if is_long == self.stands {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert(now);
        if now.since(since) >= interval(service) {
            (self.stands, self.since) = (is_long, None);
        }
    }

    /// The band is empty: nothing stands.
    pub(super) fn empty(&mut self) {
        *self = Self::default();
    }

    pub(super) fn stands(&self) -> bool {
        self.stands
    }

    /// How long one that comes now may wait.
    pub(super) fn patience(&self, max_wait: Nanos, service: Nanos) -> Nanos {
        let quarter = Nanos(max_wait.0.checked_div(4).unwrap_or_default());
        if self.stands { quarter.max(target(service)).min(max_wait) } else { max_wait }
    }
}

fn target(service: Nanos) -> Nanos {
    LEAST_TARGET.max(Nanos(service.0.checked_div(4).unwrap_or_default()))
}

fn interval(service: Nanos) -> Nanos {
    LEAST_INTERVAL.max(service.plus(service))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: Nanos = Nanos::from_secs(1);

    fn after(waits_ms: impl IntoIterator<Item = u64>) -> Codel {
        let mut codel = Codel::default();
        for (second, wait) in waits_ms.into_iter().enumerate() {
            codel.started(Nanos::from_millis(wait), SERVICE, Nanos::from_secs(second as u64));
        }
        codel
    }

    #[test]
    fn a_queue_stands_once_nobody_has_started_soon_for_an_interval() {
        assert!(!after([900; 5]).stands());
        assert!(after([900; 6]).stands());
        assert!(!after([900, 900, 900, 100, 900, 900, 900]).stands(), "it was empty once");
    }

    #[test]
    fn it_stands_no_more_once_all_have_started_soon_for_an_interval() {
        let stood = || [900; 6].into_iter();
        assert!(after(stood().chain([100; 5])).stands());
        assert!(!after(stood().chain([100; 6])).stands());
        assert!(after(stood().chain([100, 100, 900, 100, 100, 100])).stands());
    }

    #[test]
    fn whoever_comes_to_a_standing_queue_waits_for_a_quarter() {
        let wait = Nanos::from_secs(60);
        assert_eq!(after([900; 3]).patience(wait, SERVICE), wait);
        assert_eq!(after([900; 6]).patience(wait, SERVICE), Nanos::from_secs(15));
        assert_eq!(
            after([900; 6]).patience(wait, Nanos::from_secs(100)),
            Nanos::from_secs(25),
            "at least the target"
        );
        assert_eq!(after([900; 6]).patience(Nanos::from_millis(100), SERVICE), Nanos::from_millis(100));
    }
}
