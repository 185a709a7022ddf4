//! The pods that a request can be handed on to, as the operator last said, and what became of it. Pure.

use corral_limiter::Nanos;
use corral_wire::Backend;
use corral_wire::activation::{DUTY_LEASE, MAX_BACKENDS};

/// For how long a pod is left alone that could not be had, unless the operator names it again.
pub(super) const ASIDE: Nanos = Nanos::from_secs(2);
/// So many requests in a row that a pod leaves without an answer are no fault of theirs.
const FAILURES: u32 = 2;
/// A pod of which nothing was heard for so long, neither from the operator nor from itself, is asked who it is.
const QUIET: Nanos = Nanos::from_secs(25);

/// The pods, in the order in which the operator names them: those with most free slots first.
///
/// What the operator says of a pod holds for a lease, for its address may be another's by then. But a pod that answers
/// in its own name is there: each such answer begins the lease anew, so that nobody need wait beside a pod that serves
/// because the operator says nothing.
#[derive(Debug)]
pub(super) struct Pods<T> {
    pods: Vec<Pod<T>>,
}

/// Who is given a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// One that has just come. The pod's queue is the fair one, so nothing here bounds it.
    Door,
    /// One that was held: only as many at one time as the pod has slots, so that a crowd does not burst its queue.
    Line,
}

#[derive(Debug)]
struct Pod<T> {
    uid: String,
    way: T,
    slots: u32,
    /// Requests of ours in it.
    running: u32,
    /// Those of them that were held.
    released: u32,
    /// The operator still names it.
    named: bool,
    aside_until: Nanos,
    /// When it was last heard that it is there.
    heard: Nanos,
    /// Requests in a row that it has left without an answer.
    failures: u32,
}

impl<T> Pod<T> {
    fn can_be_had(&self, now: Nanos) -> bool {
        self.named && self.aside_until <= now && now <= self.heard.plus(DUTY_LEASE.into())
    }
}

impl<T: Clone> Pods<T> {
    pub(super) fn new() -> Self {
        Self { pods: Vec::new() }
    }

    /// Takes the pods that there are now; `way` makes a way to one that is new, or says that the known one still leads
    /// there.
    pub(super) fn take(&mut self, backends: &[Backend], now: Nanos, way: impl Fn(&Backend, Option<&T>) -> T) {
        let mut before = std::mem::take(&mut self.pods);
        for backend in backends.iter().take(MAX_BACKENDS) {
            let known = before.iter().position(|pod| pod.uid == backend.uid).map(|at| before.remove(at));
            self.pods.push(Pod {
                uid: backend.uid.clone(),
                way: way(backend, known.as_ref().map(|pod| &pod.way)),
                slots: backend.slots.max(1),
                running: known.as_ref().map_or(0, |pod| pod.running),
                released: known.as_ref().map_or(0, |pod| pod.released),
                named: true,
                aside_until: Nanos::ZERO,
                heard: now,
                failures: 0,
            });
        }
        // What runs in the others goes on.
        before.retain(|pod| pod.running > 0);
        for pod in &mut before {
            pod.named = false;
        }
        self.pods.append(&mut before);
    }

    /// The way to the pod with the fewest of ours for its slots, counted from now on as one more in it.
    pub(super) fn seat(&mut self, now: Nanos, from: From) -> Option<(String, T)> {
        let can = self.pods.iter_mut().filter(|pod| pod.can_be_had(now));
        let can = can.filter(|pod| from == From::Door || pod.released < pod.slots);
        let share = |pod: &Pod<T>| u64::from(pod.running) * 1_000_000 / u64::from(pod.slots);
        // One that has just left a request without an answer is asked again only where there is no other.
        let pod = can.min_by_key(|pod| (pod.failures, share(pod)))?;
        pod.running += 1;
        pod.released += u32::from(from == From::Line);
        Some((pod.uid.clone(), pod.way.clone()))
    }

    /// One of ours in a pod is over.
    pub(super) fn left(&mut self, uid: &str, from: From) {
        if let Some(pod) = self.find(uid) {
            pod.running = pod.running.saturating_sub(1);
            pod.released = pod.released.saturating_sub(u32::from(from == From::Line));
        }
        self.pods.retain(|pod| pod.named || pod.running > 0);
    }

    /// A pod could not be had: it is left alone for a while.
    pub(super) fn set_aside(&mut self, uid: &str, now: Nanos) {
        if let Some(pod) = self.find(uid) {
            pod.aside_until = now.plus(ASIDE);
        }
    }

    /// A pod has answered in its own name.
    pub(super) fn answered(&mut self, uid: &str, now: Nanos) {
        if let Some(pod) = self.find(uid) {
            (pod.heard, pod.failures) = (now, 0);
        }
    }

    /// A pod was reached and gave no answer. That may be the request's own fault, so only a row of them sets it aside.
    pub(super) fn failed(&mut self, uid: &str, now: Nanos) {
        if let Some(pod) = self.find(uid) {
            pod.failures += 1;
            if pod.failures >= FAILURES {
                (pod.failures, pod.aside_until) = (0, now.plus(ASIDE));
            }
        }
    }

    fn find(&mut self, uid: &str) -> Option<&mut Pod<T>> {
        self.pods.iter_mut().find(|pod| pod.uid == uid)
    }

    /// The ways to those of which nothing was heard for long.
    pub(super) fn quiet(&self, now: Nanos) -> Vec<(String, T)> {
        let quiet = self.pods.iter().filter(|pod| pod.named && now > pod.heard.plus(QUIET));
        quiet.map(|pod| (pod.uid.clone(), pod.way.clone())).collect()
    }

    /// How many can be had now.
    pub(super) fn ready(&self, now: Nanos) -> u32 {
        let ready = self.pods.iter().filter(|pod| pod.can_be_had(now)).count();
        u32::try_from(ready).unwrap_or(u32::MAX)
    }

    /// Requests of ours in all of them.
    pub(super) fn running(&self) -> u32 {
        self.pods.iter().map(|pod| pod.running).fold(0, u32::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(uid: &str, slots: u32) -> Backend {
        let port = u16::try_from(uid.len()).unwrap();
        Backend { uid: uid.to_owned(), address: ([10, 0, 0, 1], port).into(), slots, free: slots }
    }

    fn told(pods: &mut Pods<u16>, backends: &[Backend], now: u64) {
        pods.take(backends, at(now), |backend, _| backend.address.port());
    }

    fn at(seconds: u64) -> Nanos {
        Nanos::from_secs(seconds)
    }

    fn seats(pods: &mut Pods<u16>, now: u64, from: From, most: usize) -> Vec<String> {
        (0..most).map_while(|_| pods.seat(at(now), from)).map(|(uid, _)| uid).collect()
    }

    #[test]
    fn a_pod_gets_as_many_as_it_has_slots_and_the_emptier_one_is_first() {
        let mut pods = Pods::new();
        assert_eq!(pods.seat(at(0), From::Door), None, "there is none");
        told(&mut pods, &[backend("a", 2), backend("bb", 1)], 0);
        assert_eq!(seats(&mut pods, 0, From::Line, 9), ["a", "bb", "a"]);
        assert_eq!((pods.running(), pods.ready(at(0))), (3, 2));
        pods.left("bb", From::Line);
        assert_eq!(seats(&mut pods, 0, From::Line, 9), ["bb"]);
    }

    #[test]
    fn whoever_need_not_wait_is_bound_by_no_slots_but_spread_by_them() {
        let mut pods = Pods::new();
        told(&mut pods, &[backend("a", 2), backend("bb", 1)], 0);
        let all = seats(&mut pods, 0, From::Door, 30);
        assert_eq!(all.iter().filter(|uid| *uid == "a").count(), 20);
        assert_eq!(all.len(), 30);
    }

    #[test]
    fn a_pod_that_is_set_aside_comes_back_after_a_while_or_when_it_is_named_again() {
        let mut pods = Pods::new();
        told(&mut pods, &[backend("a", 9)], 0);
        pods.set_aside("a", at(1));
        assert_eq!((pods.ready(at(2)), seats(&mut pods, 2, From::Line, 1).len()), (0, 0));
        assert_eq!(seats(&mut pods, 3, From::Line, 1), ["a"]);
        pods.set_aside("a", at(3));
        told(&mut pods, &[backend("a", 9)], 3);
        assert_eq!(seats(&mut pods, 3, From::Line, 1), ["a"]);
        assert_eq!(pods.running(), 2, "what runs in it still counts");
    }

    #[test]
    fn a_pod_that_is_named_no_more_gets_nothing_and_is_forgotten_when_the_last_of_ours_is_over() {
        let mut pods = Pods::new();
        told(&mut pods, &[backend("a", 2)], 0);
        assert_eq!(seats(&mut pods, 0, From::Line, 1), ["a"]);
        told(&mut pods, &[], 1);
        assert_eq!((pods.seat(at(1), From::Door), pods.running(), pods.ready(at(1))), (None, 1, 0));
        pods.left("a", From::Line);
        assert!(pods.pods.is_empty());
        pods.left("a", From::Line);
    }

    #[test]
    fn what_the_operator_said_long_ago_holds_no_more() {
        let mut pods = Pods::new();
        told(&mut pods, &[backend("a", 2)], 0);
        assert_eq!(seats(&mut pods, 60, From::Line, 1), ["a"]);
        assert_eq!(seats(&mut pods, 61, From::Line, 1), Vec::<String>::new());
        told(&mut pods, &[backend("a", 2)], 61);
        assert_eq!(seats(&mut pods, 61, From::Line, 1), ["a"]);
    }

    #[test]
    fn a_pod_that_answers_can_be_had_though_the_operator_says_nothing_any_more() {
        let mut pods = Pods::new();
        told(&mut pods, &[backend("a", 9), backend("bb", 9)], 0);
        assert!(pods.quiet(at(25)).is_empty());
        assert_eq!(pods.quiet(at(26)).len(), 2);
        for now in [50, 100, 150] {
            pods.answered("a", at(now));
        }
        assert_eq!((pods.ready(at(200)), seats(&mut pods, 200, From::Door, 1)), (1, vec!["a".to_owned()]));
        assert_eq!(pods.quiet(at(151)).len(), 1, "who was silent for long is still asked");
        pods.answered("bb", at(200));
        assert_eq!(pods.ready(at(200)), 2);
        assert_eq!(pods.ready(at(261)), 0);
    }

    #[test]
    fn what_passes_takes_no_place_of_those_who_were_held() {
        let mut pods = Pods::new();
        told(&mut pods, &[backend("a", 1)], 0);
        assert_eq!(seats(&mut pods, 0, From::Door, 5).len(), 5);
        assert_eq!(seats(&mut pods, 0, From::Line, 5).len(), 1);
        pods.left("a", From::Door);
        assert_eq!(seats(&mut pods, 0, From::Line, 5).len(), 0);
        pods.left("a", From::Line);
        assert_eq!(seats(&mut pods, 0, From::Line, 5).len(), 1);
    }

    #[test]
    fn one_request_without_an_answer_is_no_fault_of_the_pod_but_a_row_is() {
        let mut pods = Pods::new();
        told(&mut pods, &[backend("a", 1)], 0);
        pods.failed("a", at(0));
        pods.answered("a", at(0));
        pods.failed("a", at(0));
        assert_eq!(pods.ready(at(0)), 1);
        pods.failed("a", at(0));
        assert_eq!((pods.ready(at(1)), pods.ready(at(2))), (0, 1));
    }

    #[test]
    fn no_more_pods_are_kept_than_a_duty_may_name() {
        let mut pods = Pods::new();
        let many: Vec<Backend> = (1..200).map(|length| backend(&"x".repeat(length), 1)).collect();
        told(&mut pods, &many, 0);
        assert_eq!(pods.ready(at(0)) as usize, MAX_BACKENDS);
    }
}
