//! L: how long a pod takes from its node to being ready, learned from those whose beginning was seen.
//!
//! Those that start now teach too: the oldest quarter of them have taken so long already.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::timeline::Timeline;
use crate::{Observation, Phase, PodSeen};

/// What is believed before any was seen, in seconds.
const INITIAL: f64 = 120.0;
const LEAST: f64 = 1.0;
const MOST: f64 = 3600.0;
/// A pod that has started for longer may never be ready: it is not believed beyond this, in seconds.
const MOST_OF_STARTING: f64 = 900.0;
/// What the latest counts for at least; the first ones count alike.
const LATEST: f64 = 0.2;

/// What is known of pods that exist, and what was learned from them.
#[derive(Debug, Clone)]
pub(crate) struct Startup {
    seconds: f64,
    /// What the last pod that taught counted for; none before the first.
    weight: Option<f64>,
    /// What the oldest quarter of those that start have taken by now, in seconds.
    starting: f64,
    pods: BTreeMap<String, Known>,
    has_looked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// When it was first seen.
    seen: Duration,
    /// When it was made, if it did not exist when it was first looked.
    born: Option<Duration>,
    /// It has not been ready since it was made.
    is_starting: bool,
}

impl Default for Startup {
    fn default() -> Self {
        Self { seconds: INITIAL, weight: None, starting: 0.0, pods: BTreeMap::new(), has_looked: false }
    }
}

impl Startup {
    /// One that begins with what was believed before, in seconds.
    pub(crate) fn after(seconds: f64) -> Self {
        Self { seconds: seconds.clamp(LEAST, MOST), ..Self::default() }
    }

    /// Takes the pods that exist now.
    pub(crate) fn look(&mut self, seen: &Observation, time: &Timeline) {
        let mut pods = BTreeMap::new();
        let mut ages = Vec::new();
        for pod in &seen.pods {
            let known = self.pods.remove(&pod.uid).unwrap_or_else(|| self.meet(pod, time));
            if known.is_starting && pod.ready {
                self.learn(pod);
            }
            let is_starting = known.is_starting && !pod.ready;
            if let Some(scheduled) = pod.scheduled.filter(|_| is_starting && !pod.terminating) {
                ages.push(time.now().saturating_sub(time.at(scheduled)));
            }
            pods.insert(pod.uid.clone(), Known { is_starting, ..known });
        }
        self.pods = pods;
        self.has_looked = true;
        ages.sort_unstable_by_key(|age| Reverse(*age));
        self.starting = ages.get(ages.len() / 4).map_or(0.0, Duration::as_secs_f64).min(MOST_OF_STARTING);
    }

    fn meet(&self, pod: &PodSeen, time: &Timeline) -> Known {
        // Of a pod that was there before and is not ready nobody knows whether it ever was, but for one that cannot have.
        let cannot_have_been = pod.node.is_none() || pod.phase == Phase::Pending;
        let is_starting = self.has_looked || (!pod.ready && cannot_have_been);
        Known { seen: time.now(), born: self.has_looked.then(|| time.at(pod.created)), is_starting }
    }

    fn learn(&mut self, pod: &PodSeen) {
        let Some(ready) = pod.ready_since else { return };
        let took =
            ready.saturating_sub(pod.scheduled.unwrap_or(pod.created)).as_secs_f64().clamp(LEAST, MOST);
        let weight = self.weight.map_or(1.0, |last| (last / (last + 1.0)).max(LATEST));
        self.seconds += (took - self.seconds) * weight;
        self.weight = Some(weight);
    }

    /// L, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds.max(self.starting)
    }

    /// Whether a pod has not been ready since it was made.
    pub(crate) fn is_starting(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|known| known.is_starting)
    }

    /// Whether a pod has been looked at for so long that it would have begun, twice over.
    pub(crate) fn is_overdue(&self, uid: &str, now: Duration) -> bool {
        self.known_for(uid, now).as_secs_f64() >= 2.0 * self.seconds()
    }

    /// When a pod began, if that was looked at.
    pub(crate) fn born(&self, uid: &str) -> Option<Duration> {
        self.pods.get(uid).and_then(|known| known.born)
    }

    /// For how long a pod has been seen.
    pub(crate) fn known_for(&self, uid: &str, now: Duration) -> Duration {
        self.pods.get(uid).map_or(Duration::ZERO, |known| now.saturating_sub(known.seen))
    }

    pub(crate) fn knows(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "these are exact")]

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn pod(uid: &str, scheduled: u64, ready: Option<u64>) -> PodSeen {
        PodSeen {
            uid: uid.into(),
            node: Some("n".into()),
            phase: Phase::Running,
            ready: ready.is_some(),
            ready_since: ready.map(at),
            created: at(0),
            scheduled: Some(at(scheduled)),
            ..PodSeen::default()
        }
    }

    fn look(startup: &mut Startup, pods: &[PodSeen], now: u64) -> f64 {
        startup.look(&Observation { pods: pods.to_vec(), ..Observation::default() }, &Timeline::new(at(now)));
        startup.seconds()
    }

    #[test]
    fn a_pod_whose_beginning_was_seen_teaches_once() {
        let mut startup = Startup::default();
        look(&mut startup, &[], 0);
        assert_eq!(look(&mut startup, &[pod("a", 10, None)], 12), 120.0);
        assert!(startup.is_starting("a"));
        assert_eq!(look(&mut startup, &[pod("a", 10, Some(70))], 72), 60.0);
        assert!(!startup.is_starting("a"));
        look(&mut startup, &[pod("a", 10, None)], 100);
        assert_eq!(look(&mut startup, &[pod("a", 10, Some(500))], 500), 60.0, "it was ready before");
        assert_eq!(look(&mut startup, &[pod("b", 510, Some(530))], 530), 40.0);
    }

    #[test]
    fn what_was_believed_before_holds_until_a_pod_teaches() {
        let mut startup = Startup::after(30.0);
        assert_eq!(look(&mut startup, &[], 0), 30.0);
        assert_eq!(look(&mut startup, &[pod("a", 10, Some(20))], 20), 10.0);
    }

    #[test]
    fn those_that_start_teach_by_what_they_have_taken() {
        let mut startup = Startup::default();
        look(&mut startup, &[], 0);
        let pods = [pod("a", 10, None), pod("b", 20, None), pod("c", 390, None)];
        assert_eq!(look(&mut startup, &pods, 100), 120.0);
        assert_eq!(look(&mut startup, &pods, 420), 410.0);
        assert_eq!(look(&mut startup, &pods, 90_000), MOST_OF_STARTING);
    }

    #[test]
    fn who_was_there_before_teaches_nothing() {
        let mut startup = Startup::default();
        look(&mut startup, &[pod("a", 10, Some(9000)), pod("b", 10, None)], 9001);
        assert_eq!(look(&mut startup, &[pod("a", 10, Some(9000)), pod("b", 10, Some(9100))], 9102), 120.0);
    }

    #[test]
    fn it_follows_what_pods_take_and_stays_within_belief() {
        let mut startup = Startup::default();
        look(&mut startup, &[], 0);
        let pods =
            |took: u64| (0..20).map(|n| pod(&format!("{took}-{n}"), 10, Some(10 + took))).collect::<Vec<_>>();
        let slow = look(&mut startup, &pods(240), 1000);
        assert!((230.0..=240.0).contains(&slow), "{slow}");
        let odd = look(&mut startup, &pods(0), 2000);
        assert!((LEAST..5.0).contains(&odd), "{odd}");
    }
}
