//! Where `spec.replicas` is the size: fewer pods are asked for once those that go have finished what they have, and in any
//! case soon. Whoever wrote the number wants it, also where nothing is known of the pods.

use std::time::Duration;

use corral_scaler::{Config, Decision, Observation};

/// The longest beyond its drain that a pod is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many were asked for, and since when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waiting(Option<(u32, Duration)>);

impl Waiting {
    /// The decision, or that of Kubernetes where it was waited for too long or too little is known: its own termination
    /// lets pods finish as well.
    pub(super) fn bounded(
        &mut self,
        asked: u32,
        decision: Decision,
        config: &Config,
        now: Duration,
    ) -> Decision {
        let (_, since) = *self.0.insert(self.0.filter(|(of, _)| *of == asked).unwrap_or((asked, now)));
        let over = now.saturating_sub(since) >= config.drain_timeout.saturating_add(PATIENCE);
        if over || !decision.metrics_available {
            // Victims keep their cost: they are the ones to take.
            return Decision { desired: asked, replicas: asked, ..decision };
        }
        decision
    }
}

/// Whether there is anybody to choose between: not where none stays, and not where no pod is too many, or where a change of
/// the pods goes on, which takes pods away by itself. Those that were chosen stay so until they are gone, for Kubernetes takes
/// them a little after it was asked to.
pub(super) fn needs_victims(asked: u32, seen: &Observation) -> bool {
    let live = seen.pods.iter().filter(|pod| !pod.terminating).count();
    asked > 0 && !seen.rollout && live > usize::try_from(asked).unwrap_or(usize::MAX)
}

/// So many pods, and nobody retires.
pub(super) fn at_once(asked: u32, decision: &Decision) -> Decision {
    let Decision { numbers, wrong_victim, .. } = *decision;
    let fixed = Decision { desired: asked, replicas: asked, metrics_available: true, ..Decision::default() };
    Decision { numbers, wrong_victim, ..fixed }
}

#[cfg(test)]
mod tests {
    use corral_scaler::PodSeen;

    use super::*;

    fn seen(replicas: u32, pods: usize) -> Observation {
        Observation { replicas, pods: vec![PodSeen::default(); pods], ..Observation::default() }
    }

    #[test]
    fn only_where_some_go_and_some_stay_is_anybody_chosen() {
        assert!(needs_victims(2, &seen(3, 3)) && needs_victims(2, &seen(2, 3)));
        assert!(!needs_victims(3, &seen(3, 3)) && !needs_victims(4, &seen(3, 3)));
        assert!(!needs_victims(0, &seen(3, 3)), "all go");
        assert!(!needs_victims(2, &seen(3, 2)), "the third never came");
        assert!(!needs_victims(2, &Observation { rollout: true, ..seen(3, 3) }));
    }

    #[test]
    fn what_was_asked_for_comes_in_the_end_whatever_its_pods_do() {
        let waits = || Decision { desired: 2, replicas: 3, metrics_available: true, ..Decision::default() };
        let (mut waiting, config) = (Waiting::default(), Config::default());
        let mut replicas =
            |second: u64| waiting.bounded(2, waits(), &config, Duration::from_secs(second)).replicas;
        assert_eq!((replicas(5), replicas(600), replicas(634), replicas(635)), (3, 3, 3, 2));
        let deaf = Decision { metrics_available: false, ..waits() };
        assert_eq!(Waiting::default().bounded(2, deaf, &config, Duration::ZERO).replicas, 2);
    }
}
