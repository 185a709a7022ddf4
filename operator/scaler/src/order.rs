//! In which order the ReplicaSet controller deletes pods, when it is asked for fewer.
//!
//! Its eight rules, first to last: a pod without a node, a phase further from running, one that is not ready, a lower
//! deletion cost, more pods of the same set on its node, a readiness that is younger, more restarts, a younger pod. Ages
//! count by their power of two, and equal powers go by UID. What a deletion cost decides is thus only the fourth rule: a
//! pod that is not ready goes before every ready one, whatever its cost.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Phase, PodSeen};

/// The pods that a ReplicaSet would delete, were it asked at `now` for ever fewer: who goes first comes first. Pods that
/// terminate already are not among them.
pub fn deletion_order(pods: &[PodSeen], now: Duration) -> Vec<&PodSeen> {
    let order = Order::over(pods, now);
    let live: Vec<&PodSeen> = pods.iter().filter(|pod| !pod.terminating).collect();
    sorted(&live, &|a, b| order.goes_before(a, b))
}

/// What the first four rules see of a pod: of two pods whose standing differs, the lower is certain to go first. The
/// other rules hang on the moment at which the controller looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    assigned: bool,
    phase: Phase,
    ready: bool,
    cost: i32,
}

impl Standing {
    pub(crate) fn of(pod: &PodSeen) -> Self {
        Self { assigned: pod.node.is_some(), phase: pod.phase, ready: pod.ready, cost: pod.deletion_cost }
    }
}

struct Order<'a> {
    now: Duration,
    /// How many pods of the pool each node has.
    on_node: BTreeMap<Option<&'a str>, usize>,
}

impl<'a> Order<'a> {
    fn over(pods: &'a [PodSeen], now: Duration) -> Self {
        let mut on_node: BTreeMap<_, usize> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.terminating) {
            let count = on_node.entry(pod.node.as_deref()).or_default();
            *count = count.saturating_add(1);
        }
        Self { now, on_node }
    }

    /// Whether `a` is deleted rather than `b`.
    fn goes_before(&self, a: &PodSeen, b: &PodSeen) -> bool {
        let (standing_a, standing_b) = (Standing::of(a), Standing::of(b));
        if standing_a != standing_b {
            return standing_a < standing_b;
        }
        let beside = |pod: &PodSeen| self.on_node.get(&pod.node.as_deref()).copied();
        if beside(a) != beside(b) {
            return beside(a) > beside(b);
        }
        if a.ready && a.ready_since != b.ready_since {
            return self.is_younger((a.ready_since, &a.uid), (b.ready_since, &b.uid));
        }
        if a.restarts != b.restarts {
            return a.restarts > b.restarts;
        }
        a.created != b.created && self.is_younger((Some(a.created), &a.uid), (Some(b.created), &b.uid))
    }

    /// An unknown time counts as the youngest.
    fn is_younger(&self, a: (Option<Duration>, &str), b: (Option<Duration>, &str)) -> bool {
        let (Some(since_a), Some(since_b)) = (a.0, b.0) else { return a.0.is_none() };
        (self.power(since_a), a.1) < (self.power(since_b), b.1)
    }

    /// The power of two of an age in nanoseconds; 0 for none at all.
    fn power(&self, since: Duration) -> u32 {
        self.now.saturating_sub(since).as_nanos().checked_ilog2().map_or(0, |power| power.saturating_add(1))
    }
}

/// Sorted by merging: the controller's order has circles, and the sort of the standard library may refuse such.
fn sorted<'a>(pods: &[&'a PodSeen], before: &impl Fn(&PodSeen, &PodSeen) -> bool) -> Vec<&'a PodSeen> {
    if pods.len() < 2 {
        return pods.to_vec();
    }
    let (left, right) = pods.split_at(pods.len() / 2);
    let mut left = sorted(left, before).into_iter().peekable();
    let mut right = sorted(right, before).into_iter().peekable();
    let mut merged = Vec::with_capacity(pods.len());
    while let (Some(first), Some(second)) = (left.peek(), right.peek()) {
        let next = if before(second, first) { right.next() } else { left.next() };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100_000);

    fn ago(seconds: u64) -> Duration {
        NOW.saturating_sub(Duration::from_secs(seconds))
    }

    /// A pod that has been ready for an hour, on a node of its own.
    fn pod(uid: &str) -> PodSeen {
        PodSeen {
            uid: uid.into(),
            node: Some(uid.into()),
            phase: Phase::Running,
            ready: true,
            ready_since: Some(ago(3600)),
            created: ago(7200),
            ..PodSeen::default()
        }
    }

    fn changed(uid: &str, change: impl FnOnce(&mut PodSeen)) -> PodSeen {
        let mut pod = pod(uid);
        change(&mut pod);
        pod
    }

    fn order(pods: &[PodSeen]) -> Vec<&str> {
        deletion_order(pods, NOW).iter().map(|pod| pod.uid.as_str()).collect()
    }

    #[test]
    fn each_rule_counts_before_all_that_follow() {
        let rules: [fn(&mut PodSeen); 8] = [
            |pod| pod.node = None,
            |pod| pod.phase = Phase::Pending,
            |pod| pod.ready = false,
            |pod| pod.deletion_cost = -1,
            |pod| pod.node = Some("shared".into()),
            |pod| pod.ready_since = Some(ago(60)),
            |pod| pod.restarts = 3,
            |pod| pod.created = ago(4000),
        ];
        let shared = changed("z", |pod| pod.node = Some("shared".into()));
        for (at, rule) in rules.iter().enumerate() {
            let later = changed("a", |pod| rules.iter().skip(at + 1).for_each(|rule| rule(pod)));
            // What decides by restarts or age is only asked of pods that have been ready for equally long.
            let one = changed("b", |pod| {
                pod.ready_since = if at > 5 { later.ready_since } else { pod.ready_since };
                rule(pod);
            });
            let pods = [later, one, shared.clone()];
            let order = order(&pods);
            let place = |uid| order.iter().position(|other| *other == uid);
            assert!(place("b") < place("a"), "rule {}: {order:?}", at + 1);
        }
    }

    #[test]
    fn a_pod_that_is_not_ready_goes_before_any_cost_of_a_ready_one() {
        let cheap = changed("cheap", |pod| pod.deletion_cost = crate::VICTIM_COST);
        let overloaded = changed("overloaded", |pod| pod.ready = false);
        assert_eq!(order(&[cheap, overloaded]), ["overloaded", "cheap"]);
    }

    #[test]
    fn ages_of_the_same_power_of_two_go_by_uid() {
        let older = changed("a", |pod| pod.ready_since = Some(ago(3600)));
        let younger = changed("b", |pod| pod.ready_since = Some(ago(3500)));
        let youngest = changed("c", |pod| pod.ready_since = Some(ago(1)));
        assert_eq!(order(&[older, younger, youngest]), ["c", "a", "b"]);
    }

    #[test]
    fn pods_that_terminate_are_gone_already() {
        let leaving = changed("leaving", |pod| pod.terminating = true);
        assert_eq!(order(&[leaving, pod("stays")]), ["stays"]);
    }

    #[test]
    fn a_circle_does_no_harm() {
        let same = |uid: &str, restarts| changed(uid, |pod| pod.restarts = restarts);
        let between = changed("b", |pod| pod.ready_since = Some(ago(3601)));
        let pods: Vec<PodSeen> =
            (0..100).flat_map(|_| [same("a", 0), between.clone(), same("c", 1)]).collect();
        assert_eq!(order(&pods).len(), 300);
    }
}
