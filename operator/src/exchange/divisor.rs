//! D and the permission to serve: who shares the pool's limits, so that at no time more pods serve than share.
//!
//! D counts the pods that were told to serve and are not gone. A newcomer that only lacks the permission raises D for
//! all; it is told to serve once every counted pod has taken that D, or 5 s have passed over the silent ones, and the
//! plan Secret holds it too. D falls when a pod is gone. Pure: time and facts are handed in.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

/// How long a raise waits for acknowledgements before it goes on without the silent.
pub const RAISE_WAIT: Duration = Duration::from_secs(5);
/// How long a new leader only listens: it grants nothing and lowers nothing.
pub const LISTEN_FIRST: Duration = Duration::from_secs(10);

/// What is known about one pod that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Its UID.
    pub uid: String,
    /// It said that it was told to serve, or Kubernetes calls it ready and it has not said anything yet.
    pub serves: bool,
    /// It said that only the permission is missing.
    pub able: bool,
    /// It is being deleted: it keeps its share, and gets no new permission.
    pub terminating: bool,
    /// The least D that may be in force there; none before its first report.
    pub divisor: Option<u32>,
}

/// What the pods are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// D, for every pod.
    pub divisor: u32,
    /// UIDs of the pods that may serve.
    pub serve: BTreeSet<String>,
}

/// Where one pool stands.
#[derive(Debug, Clone, Default)]
pub struct Count {
    divisor: u32,
    granted: BTreeSet<String>,
    raised_at: Option<Duration>,
}

impl Count {
    /// Takes one step. `led_for` is how long this leader leads, `stored` the D of the plan Secret, 0 while unknown.
    pub fn step(&mut self, now: Duration, led_for: Duration, stored: u32, pods: &[PodFacts]) -> Orders {
        let existing: HashSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        self.granted.retain(|uid| existing.contains(uid.as_str()));
        let serving = pods.iter().filter(|pod| pod.serves).map(|pod| pod.uid.clone());
        self.granted.extend(serving);
        let newcomers: Vec<&PodFacts> = pods.iter().filter(|pod| self.is_newcomer(pod)).collect();
        let wanted = count(self.granted.len().saturating_add(newcomers.len()));
        if led_for < LISTEN_FIRST {
            self.set(now, wanted.max(stored).max(self.divisor));
            return self.orders();
        }
        self.set(now, wanted);
        if !newcomers.is_empty() && stored >= self.divisor && self.is_taken(now, pods) {
            self.granted.extend(newcomers.iter().map(|pod| pod.uid.clone()));
            self.raised_at = None;
        }
        self.orders()
    }

    fn is_newcomer(&self, pod: &PodFacts) -> bool {
        pod.able && !pod.terminating && !self.granted.contains(&pod.uid)
    }

    /// Whether every counted pod has taken D, or has been waited for long enough.
    fn is_taken(&self, now: Duration, pods: &[PodFacts]) -> bool {
        let counted = |pod: &&PodFacts| self.granted.contains(&pod.uid);
        let waited = self.raised_at.map(|at| now.saturating_sub(at));
        waited.is_some_and(|waited| waited >= RAISE_WAIT)
            || pods.iter().filter(counted).all(|pod| pod.divisor.is_some_and(|d| d >= self.divisor))
    }

    fn set(&mut self, now: Duration, divisor: u32) {
        if divisor > self.divisor {
            self.raised_at = Some(now);
        }
        self.divisor = divisor;
    }

    fn orders(&self) -> Orders {
        Orders { divisor: self.divisor, serve: self.granted.clone() }
    }
}

fn count(pods: usize) -> u32 {
    u32::try_from(pods).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LED: Duration = Duration::from_mins(1);

    fn pod(uid: &str, serves: bool, divisor: Option<u32>) -> PodFacts {
        PodFacts { uid: uid.into(), serves, able: true, terminating: false, divisor }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn orders(divisor: u32, serve: &[&str]) -> Orders {
        Orders { divisor, serve: serve.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn the_first_pod_is_told_to_serve_at_once() {
        let mut count = Count::default();
        assert_eq!(count.step(at(0), LED, 2, &[pod("a", false, Some(1))]), orders(1, &["a"]));
    }

    #[test]
    fn a_newcomer_waits_until_the_others_share_with_it() {
        let mut count = Count::default();
        let pods = |d| [pod("a", true, Some(d)), pod("b", false, Some(1))];
        assert_eq!(count.step(at(0), LED, 2, &pods(1)), orders(2, &["a"]));
        assert_eq!(count.step(at(1), LED, 2, &pods(1)), orders(2, &["a"]));
        assert_eq!(count.step(at(2), LED, 2, &pods(2)), orders(2, &["a", "b"]));
    }

    #[test]
    fn a_silent_pod_is_waited_for_five_seconds() {
        let mut count = Count::default();
        let pods = [pod("a", true, Some(1)), pod("b", false, Some(1))];
        count.step(at(0), LED, 2, &pods);
        assert_eq!(count.step(at(4), LED, 2, &pods), orders(2, &["a"]));
        assert_eq!(count.step(at(5), LED, 2, &pods), orders(2, &["a", "b"]));
    }

    #[test]
    fn nobody_serves_on_a_divisor_that_the_secret_does_not_hold() {
        let mut count = Count::default();
        let pods = [pod("a", true, Some(2)), pod("b", false, Some(1))];
        count.step(at(0), LED, 1, &pods);
        assert_eq!(count.step(at(60), LED, 1, &pods), orders(2, &["a"]));
        assert_eq!(count.step(at(61), LED, 2, &pods), orders(2, &["a", "b"]));
    }

    #[test]
    fn a_new_leader_listens_first() {
        let mut count = Count::default();
        let newcomer = [pod("b", false, Some(1))];
        assert_eq!(count.step(at(0), at(0), 4, &newcomer), orders(4, &[]));
        assert_eq!(count.step(at(9), at(9), 4, &newcomer), orders(4, &[]));
        assert_eq!(count.step(at(10), at(10), 4, &newcomer), orders(1, &["b"]));
    }

    #[test]
    fn unready_and_terminating_pods_keep_their_share_and_a_gone_one_gives_it_back() {
        let mut count = Count::default();
        let mut leaving = pod("a", true, Some(2));
        leaving.able = false;
        leaving.terminating = true;
        assert_eq!(count.step(at(0), LED, 2, &[leaving, pod("b", true, Some(2))]), orders(2, &["a", "b"]));
        assert_eq!(count.step(at(1), LED, 2, &[pod("b", true, Some(2))]), orders(1, &["b"]));
    }

    #[test]
    fn a_pod_that_loads_its_models_halves_nobodys_limit() {
        let mut count = Count::default();
        let mut loading = pod("b", false, Some(1));
        loading.able = false;
        assert_eq!(count.step(at(0), LED, 2, &[pod("a", true, Some(1)), loading]), orders(1, &["a"]));
    }

    #[test]
    fn a_terminating_newcomer_is_never_told_to_serve() {
        let mut count = Count::default();
        let mut leaving = pod("b", false, Some(1));
        leaving.terminating = true;
        assert_eq!(count.step(at(0), LED, 2, &[pod("a", true, Some(1)), leaving]), orders(1, &["a"]));
    }
}
