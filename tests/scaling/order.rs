//! Whom the `ReplicaSet` controller deletes first: its eight rules, written down here once more and independently of the
//! autoscaler's own, from `ActivePodsWithRanks` of Kubernetes.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use crate::agenda::Time;
use crate::pod::Pod;

/// A pod as the controller's informer shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) number: usize,
    pub(crate) uid: String,
    pub(crate) assigned: bool,
    /// 0 Pending, 1 Unknown, 2 Running.
    pub(crate) phase: u8,
    /// Since when, if it is.
    pub(crate) ready: Option<Time>,
    pub(crate) cost: i32,
    /// How many of the same owner are on its node.
    pub(crate) doubled: usize,
    pub(crate) restarts: u32,
    pub(crate) created: Time,
}

impl Seen {
    pub(crate) fn of(pod: &Pod, doubled: usize, now: Time, lag: Duration) -> Self {
        let heard = |since: Option<Time>| since.is_some_and(|since| since + lag <= now);
        Self {
            number: pod.number,
            uid: pod.name(),
            assigned: heard(pod.scheduled),
            phase: if heard(pod.runs) { 2 } else { 0 },
            ready: pod.ready.seen(now, lag).then(|| pod.ready.since()),
            cost: pod.cost.seen(now, lag),
            doubled,
            restarts: pod.restarts,
            created: pod.created,
        }
    }
}

/// Younger first; but ages of the same power of two are alike, and then names decide.
fn younger(one: Time, other: Time, now: Time, uids: (&str, &str)) -> Ordering {
    let rank = |since: Time| now.saturating_sub(since).as_nanos().checked_ilog2();
    if one == other { Ordering::Equal } else { rank(one).cmp(&rank(other)).then(uids.0.cmp(uids.1)) }
}

/// Who is less goes first.
pub(crate) fn compare(one: &Seen, other: &Seen, now: Time) -> Ordering {
    let uids = (one.uid.as_str(), other.uid.as_str());
    let ready_for = || match (one.ready, other.ready) {
        (Some(first), Some(second)) => younger(first, second, now, uids),
        _ => Ordering::Equal,
    };
    (one.assigned.cmp(&other.assigned))
        .then(one.phase.cmp(&other.phase))
        .then(one.ready.is_some().cmp(&other.ready.is_some()))
        .then(one.cost.cmp(&other.cost))
        .then(Reverse(one.doubled).cmp(&Reverse(other.doubled)))
        .then_with(ready_for)
        .then(Reverse(one.restarts).cmp(&Reverse(other.restarts)))
        .then_with(|| younger(one.created, other.created, now, uids))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(number: usize) -> Seen {
        let long_ago = Time::from_secs(10);
        Seen {
            number,
            uid: format!("pod-{number}"),
            assigned: true,
            phase: 2,
            ready: Some(long_ago),
            cost: 0,
            doubled: 1,
            restarts: 0,
            created: long_ago,
        }
    }

    #[test]
    fn each_rule_counts_only_where_those_before_it_say_nothing() {
        let now = Time::from_secs(1000);
        let dear = Seen { cost: 5, doubled: 9, restarts: 9, ..seen(0) };
        let first_to_last = [
            Seen { assigned: false, phase: 0, ready: None, ..dear.clone() },
            Seen { phase: 0, ready: None, ..dear.clone() },
            Seen { phase: 1, ready: None, ..dear.clone() },
            Seen { ready: None, ..dear.clone() },
            Seen { cost: -7, ..seen(1) },
            Seen { doubled: 2, ..seen(1) },
            Seen { ready: Some(Time::from_secs(990)), ..seen(1) },
            Seen { restarts: 1, ..seen(1) },
            Seen { created: Time::from_secs(990), ..seen(1) },
            seen(1),
            dear,
        ];
        for pair in first_to_last.windows(2) {
            assert_eq!(compare(&pair[0], &pair[1], now), Ordering::Less, "{pair:?}");
        }
    }

    #[test]
    fn ages_of_the_same_power_of_two_are_alike() {
        let now = Time::from_secs(1000);
        let of = |number: usize, since: u64| Seen { ready: Some(Time::from_secs(since)), ..seen(number) };
        assert_eq!(compare(&of(2, 300), &of(1, 290), now), Ordering::Greater, "names decide");
        assert_eq!(compare(&of(2, 900), &of(1, 290), now), Ordering::Less, "age decides");
    }
}
