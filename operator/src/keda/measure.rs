//! What KEDA can have measured of a pool, and whether the pool is in use. Pure.

use std::fmt;

use super::source::{Desired, Numbers};

/// What is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Metric {
    /// How many pods the pool should have. One replica is worth exactly one of them.
    #[default]
    DesiredReplicas,
    /// Requests that wait, in pods or held for the pool.
    QueuedRequests,
    /// Slots that are in use, or would be if everybody who waits had one.
    BusySlots,
}

/// The share of its slots that a pod should have in use, where nothing else is asked for.
const UTILIZATION: f64 = 0.75;
/// Of this many pods one may be silent; where more are, what the others say is no measure of the pool.
const OF: u32 = 5;

/// Why there is no value now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoValue {
    /// Too little is known.
    #[error("{silent} of {ready} ready pods do not say what they do; ask again")]
    Deaf {
        /// Pods that are silent.
        silent: u32,
        /// Pods that are ready.
        ready: u32,
    },
    /// It was not worked out yet.
    #[error("how many pods there should be was not worked out yet; ask again")]
    Undecided,
    /// It never will be.
    #[error(
        "metadata.metric: desiredReplicas is not worked out for a pool in mode Disabled; set its spec.autoscaling.mode to External"
    )]
    Disabled,
}

impl Metric {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::DesiredReplicas, Self::QueuedRequests, Self::BusySlots];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DesiredReplicas => "desiredReplicas",
            Self::QueuedRequests => "queuedRequests",
            Self::BusySlots => "busySlots",
        }
    }

    /// The metric that is called so. What stands between KEDA and an HPA may have changed the case of its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str().eq_ignore_ascii_case(name))
    }

    /// How much of it one replica should have, where nothing else is asked for.
    pub fn usual_target(self, numbers: &Numbers) -> f64 {
        let slots = f64::from(numbers.slots_per_pod.max(1));
        match self {
            Self::DesiredReplicas => 1.0,
            Self::QueuedRequests => slots,
            Self::BusySlots => slots * UTILIZATION,
        }
    }

    /// How much of it there is.
    pub fn value(self, numbers: &Numbers) -> Result<u32, NoValue> {
        let Numbers { desired, queued, in_flight, held, ready, silent, .. } = *numbers;
        // What was decided is kept where pods are silent: the decision knows of them.
        if self != Self::DesiredReplicas && silent.saturating_mul(OF) > ready {
            return Err(NoValue::Deaf { silent, ready });
        }
        let waiting = queued.saturating_add(held);
        match (self, desired) {
            (Self::DesiredReplicas, Desired::Pods(pods)) => Ok(pods),
            (Self::DesiredReplicas, Desired::Unknown) => Err(NoValue::Undecided),
            (Self::DesiredReplicas, Desired::Disabled) => Err(NoValue::Disabled),
            (Self::QueuedRequests, _) => Ok(waiting),
            (Self::BusySlots, _) => Ok(waiting.saturating_add(in_flight)),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the pool is in use: something runs or waits, or came lately. A pod that says nothing counts as busy.
pub fn is_active(numbers: &Numbers) -> bool {
    let Numbers { queued, in_flight, held, silent, recent, .. } = *numbers;
    recent || [queued, in_flight, held, silent].into_iter().any(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Numbers {
        let desired = Desired::Pods(4);
        Numbers {
            desired,
            queued: 7,
            in_flight: 5,
            held: 2,
            slots_per_pod: 4,
            ready: 5,
            ..Numbers::default()
        }
    }

    #[test]
    fn what_waits_is_in_pods_or_held_and_wants_a_slot_each() {
        let value = |metric: Metric| metric.value(&busy()).unwrap();
        assert_eq!(Metric::ALL.map(value), [4, 9, 14]);
        let target = |metric: Metric| metric.usual_target(&busy()).to_string();
        assert_eq!(Metric::ALL.map(target), ["1", "4", "3"]);
    }

    #[test]
    fn a_pool_of_which_more_than_a_fifth_is_silent_has_no_load_that_could_be_told() {
        let one_of_five = Numbers { silent: 1, ..busy() };
        assert_eq!(Metric::QueuedRequests.value(&one_of_five), Ok(9));
        let two_of_five = Numbers { silent: 2, ..busy() };
        let deaf = Err(NoValue::Deaf { silent: 2, ready: 5 });
        assert_eq!(Metric::QueuedRequests.value(&two_of_five), deaf);
        assert_eq!(Metric::BusySlots.value(&two_of_five), deaf);
        assert_eq!(Metric::DesiredReplicas.value(&two_of_five), Ok(4));
        assert_eq!(
            Metric::BusySlots.value(&Numbers::default()),
            Ok(0),
            "no pod is silent where there is none"
        );
    }

    #[test]
    fn any_sign_of_use_or_want_of_signs_makes_a_pool_active() {
        let idle = Numbers { desired: Desired::Pods(1), slots_per_pod: 4, ready: 1, ..Numbers::default() };
        assert!(!is_active(&idle));
        let signs = [
            Numbers { queued: 1, ..idle },
            Numbers { in_flight: 1, ..idle },
            Numbers { held: 1, ..idle },
            Numbers { silent: 1, ..idle },
            Numbers { recent: true, ..idle },
        ];
        assert!(signs.iter().all(is_active));
    }

    #[test]
    fn a_name_is_known_in_any_case() {
        assert_eq!(Metric::named("queuedrequests"), Some(Metric::QueuedRequests));
        assert_eq!(Metric::named("queue"), None);
    }
}
