//! Requests that fail, and clients that leave: they make no more work than they take of a slot.

use corral_scaler::{Config, Heard, Observation, Phase, PodSeen, Scaler};

use crate::world::at;

/// A pod of so many slots, and what it counts.
struct Pod {
    seen: PodSeen,
    scaler: Scaler,
    config: Config,
}

impl Pod {
    fn new(slots: u32) -> Self {
        let heard = Heard { epoch: 1, ready: true, ..Heard::default() };
        let mut seen = PodSeen { uid: "a".into(), node: Some("n".into()), ready: true, ..PodSeen::default() };
        (seen.phase, seen.heard) = (Phase::Running, Some(heard));
        seen.heard.as_mut().unwrap().gauges.slots = slots;
        let expected_service = at(2);
        let config = Config { min: 1, max: 50, slots_per_pod: slots, expected_service, ..Config::default() };
        Self { seen, scaler: Scaler::new(at(0)), config }
    }

    /// So many requests have come, so many gone, of which some had their answer, after a time in all.
    fn had(&mut self, (came, gone, answered, millis): (u64, u64, u64, u64)) {
        let counters = &mut self.seen.heard.as_mut().unwrap().counters;
        counters.arrivals += came;
        counters.releases += gone;
        counters.completions += answered;
        counters.slot_millis += millis;
    }

    fn desired(&mut self, second: u64, in_flight: u32) -> u32 {
        let heard = self.seen.heard.as_mut().unwrap();
        (heard.at, heard.gauges.in_flight) = (at(second), in_flight);
        let seen = Observation { replicas: 1, pods: vec![self.seen.clone()], ..Observation::default() };
        self.scaler.decide(&self.config, &seen, at(second)).desired
    }
}

#[test]
fn answers_that_fail_at_once_make_one_pod_at_most_that_stays() {
    let mut pod = Pod::new(1);
    let (mut most, mut last) = (1, 1);
    for second in (0..1200).step_by(2) {
        if second % 16 == 0 {
            pod.had((1, 1, 1, 8000));
        }
        if second >= 600 {
            pod.had((20, 20, 0, 100));
        }
        let desired = pod.desired(second, u32::from(second % 16 < 8));
        most = most.max(desired);
        last = desired;
    }
    // Until they have made up most of a minute a long answer among them counts for more than it is.
    assert!(most <= 5 && last <= 2, "{most}, then {last}");
    // What comes after them is no such thing.
    let mut desired = 1;
    for second in (1200..1300).step_by(2) {
        let ended = if second >= 1208 { 2 } else { 0 };
        pod.had((2, ended, ended, 8000 * ended));
        desired = pod.desired(second, 8);
    }
    assert!(desired >= 8, "{desired}");
}

#[test]
fn clients_that_leave_make_no_pods() {
    let mut pod = Pod::new(4);
    for second in (0..1500).step_by(2) {
        pod.had((1, 1, u64::from(second < 700 || second % 20 == 0), 2000));
        assert_eq!(pod.desired(second, 1), 1, "at {second}");
    }
}
