use super::*;
use crate::startup::Startup;
use crate::timeline::Timeline;
use crate::{Heard, Observation, Phase, PodSeen};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Four pods that have been known for long, the machine for their shrink, and the Deployment.
struct Scene {
    pods: Vec<PodSeen>,
    shrink: Shrink,
    replicas: u32,
    rollout: bool,
    exist: u32,
    startup: Startup,
}

impl Scene {
    fn new(names: &[&str]) -> Self {
        let mut scene = Self {
            pods: names.iter().map(|name| pod(name)).collect(),
            shrink: Shrink::default(),
            replicas: u32::try_from(names.len()).unwrap(),
            rollout: false,
            exist: 0,
            startup: Startup::default(),
        };
        scene.startup.look(&scene.seen(), &Timeline::new(at(0)));
        scene
    }

    fn seen(&self) -> Observation {
        Observation { pods: self.pods.clone(), exist: self.exist, ..Observation::default() }
    }

    fn pod(&mut self, uid: &str) -> &mut PodSeen {
        self.pods.iter_mut().find(|pod| pod.uid == uid).unwrap()
    }

    fn heard(&mut self, uid: &str) -> &mut Heard {
        self.pod(uid).heard.as_mut().unwrap()
    }

    fn work(&mut self, uid: &str, in_flight: u32) {
        self.heard(uid).gauges.in_flight = in_flight;
    }

    /// Asks for so many pods; what the Deployment is asked for is taken over, as are the costs and who retires.
    fn step(&mut self, desired: u32, second: u64) -> Orders {
        let orders = self.look(desired, second);
        self.replicas = orders.replicas;
        for pod in &mut self.pods {
            let retires = orders.retire.contains(&pod.uid);
            pod.deletion_cost = orders.costs.get(&pod.uid).copied().unwrap_or_default();
            if let Some(heard) = pod.heard.as_mut() {
                pod.ready = !retires;
                heard.retiring = retires;
            }
        }
        orders
    }

    /// Asks, and nothing follows from it.
    fn look(&mut self, desired: u32, second: u64) -> Orders {
        for heard in self.pods.iter_mut().filter_map(|pod| pod.heard.as_mut()) {
            if heard.at != at(0) {
                heard.at = at(second);
            }
        }
        let seen = self.seen();
        self.startup.look(&seen, &Timeline::new(at(second)));
        let reports = Reports::of(&seen, &self.startup, at(second), at(second));
        let ask = Ask {
            desired,
            replicas: self.replicas,
            rollout: self.rollout,
            is_blind: reports.are_partial(),
            drain_timeout: at(600),
            now: at(second),
        };
        self.shrink.step(&ask, &reports)
    }

    fn dies(&mut self, uid: &str) {
        self.pods.retain(|pod| pod.uid != uid);
    }
}

fn pod(name: &str) -> PodSeen {
    PodSeen {
        uid: name.into(),
        node: Some(format!("node-of-{name}")),
        phase: Phase::Running,
        ready: true,
        heard: Some(Heard { at: at(1), ready: true, ..Heard::default() }),
        ..PodSeen::default()
    }
}

/// A pod that has just been made.
fn newborn(name: &str) -> PodSeen {
    PodSeen { uid: name.into(), ..PodSeen::default() }
}

fn set(uids: &[&str]) -> BTreeSet<String> {
    uids.iter().map(ToString::to_string).collect()
}

fn priced(orders: &Orders) -> Vec<&str> {
    assert!(orders.costs.values().all(|cost| *cost == VICTIM_COST));
    orders.costs.keys().map(String::as_str).collect()
}

/// A shrink of idle pods goes so: told, obeyed and priced, the cost seen, five seconds over.
const TOLD: u64 = 100;
const PRICED: u64 = 102;
const SEEN: u64 = 104;
const GOES: u64 = 109;

#[test]
fn an_idle_pod_retires_is_priced_and_goes_five_seconds_after_that_was_seen() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    scene.work("a", 2);
    scene.work("b", 1);
    let told = scene.step(2, TOLD);
    assert_eq!((told.replicas, &told.retire, priced(&told)), (3, &set(&["c"]), vec![]));
    assert_eq!(priced(&scene.step(2, PRICED)), ["c"]);
    assert_eq!(scene.step(2, SEEN).replicas, 3, "its cost is seen from now on");
    assert_eq!(scene.step(2, GOES - 1).replicas, 3);
    assert_eq!(scene.step(2, GOES).replicas, 2);
    let lagging = scene.step(2, GOES + 1);
    assert_eq!((lagging.replicas, lagging.retire), (2, set(&["c"])), "until it is gone it stays what it is");
    scene.dies("c");
    let over = scene.step(2, GOES + 2);
    assert_eq!((over.replicas, over.retire, over.costs.len(), over.wrong), (2, set(&[]), 0, 0));
}

#[test]
fn a_pod_with_work_is_neither_priced_nor_taken_and_those_without_do_not_wait_for_it() {
    let mut scene = Scene::new(&["a", "b", "c", "d"]);
    scene.work("a", 9);
    scene.work("b", 9);
    scene.work("c", 1);
    assert_eq!(scene.step(2, TOLD).retire, set(&["c", "d"]));
    assert_eq!(priced(&scene.step(2, PRICED)), ["d"]);
    scene.step(2, SEEN);
    assert_eq!(scene.step(2, GOES).replicas, 3, "d goes");
    scene.dies("d");
    assert_eq!(scene.step(2, 400).replicas, 3);
    scene.work("c", 0);
    assert_eq!(priced(&scene.step(2, 402)), ["c"]);
    scene.step(2, 404);
    assert_eq!(scene.step(2, 409).replicas, 2);
}

#[test]
fn while_some_are_priced_nobody_else_is_so_that_each_dies_who_should() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    scene.work("a", 9);
    scene.work("b", 1);
    scene.step(1, TOLD);
    assert_eq!(priced(&scene.step(1, PRICED)), ["c"]);
    scene.work("b", 0);
    assert_eq!(priced(&scene.step(1, SEEN)), ["c"]);
    let goes = scene.step(1, GOES);
    assert_eq!((goes.replicas, priced(&goes)), (2, vec!["c"]));
    scene.dies("c");
    let next = scene.step(1, GOES + 2);
    assert_eq!((next.replicas, priced(&next), next.wrong), (2, vec!["b"], 0));
}

#[test]
fn a_victim_that_works_again_loses_its_price() {
    let mut scene = Scene::new(&["a", "b"]);
    scene.work("a", 9);
    scene.step(1, TOLD);
    assert_eq!(priced(&scene.step(1, PRICED)), ["b"]);
    scene.work("b", 1);
    let busy = scene.step(1, SEEN);
    assert_eq!((busy.replicas, busy.retire, busy.costs.len()), (2, set(&["b"]), 0));
    assert_eq!(scene.step(1, 200).replicas, 2);
}

#[test]
fn a_pod_that_never_ends_its_work_is_waited_for_only_so_long() {
    let mut scene = Scene::new(&["a", "b"]);
    scene.work("a", 1);
    scene.work("b", 1);
    scene.step(1, TOLD);
    assert!(scene.step(1, TOLD + 599).costs.is_empty());
    assert_eq!(scene.step(1, TOLD + 600).costs.len(), 1);
    scene.step(1, TOLD + 602);
    assert_eq!(scene.step(1, TOLD + 607).replicas, 1);
}

#[test]
fn who_does_not_say_that_it_retires_does_not_go() {
    let mut scene = Scene::new(&["a", "b"]);
    scene.work("a", 1);
    scene.step(1, TOLD);
    scene.heard("b").retiring = false;
    let disobeyed = scene.step(1, 120);
    assert_eq!((disobeyed.replicas, disobeyed.retire, disobeyed.costs.len()), (2, set(&["b"]), 0));
}

#[test]
fn an_overloaded_pod_out_of_its_service_is_never_taken_for_the_victim() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    scene.work("a", 4);
    scene.work("b", 4);
    for second in [TOLD, PRICED, SEEN] {
        scene.step(2, second);
    }
    // Not ready, at no cost: it would go before a victim that is still ready.
    scene.pod("a").ready = false;
    scene.pod("c").ready = true;
    assert_eq!(scene.look(2, 120).replicas, 3);
    scene.pod("c").ready = false;
    assert_eq!(scene.look(2, 122).replicas, 2);
}

#[test]
fn a_cost_that_somebody_else_sets_puts_the_shrink_off() {
    let mut scene = Scene::new(&["a", "b"]);
    scene.work("a", 1);
    for second in [TOLD, PRICED, SEEN] {
        scene.step(1, second);
    }
    scene.pod("b").deletion_cost = 5;
    assert_eq!(scene.look(1, 109).replicas, 2);
    scene.pod("b").deletion_cost = VICTIM_COST;
    assert_eq!(scene.look(1, 110).replicas, 2, "seen anew");
    scene.pod("a").deletion_cost = -7;
    assert_eq!(scene.look(1, 114).replicas, 2, "also where it is another's");
    assert_eq!(scene.look(1, 119).replicas, 1);
    scene.pod("a").ready = false;
    scene.pod("a").deletion_cost = i32::MIN;
    assert_eq!(scene.look(1, 120).replicas, 2);
    assert_eq!(scene.look(1, 130).replicas, 2, "another stands lower");
}

#[test]
fn the_pods_that_serve_stay_beside_one_that_is_stuck() {
    let mut scene = Scene::new(&["a", "b", "stuck"]);
    scene.work("stuck", 1);
    scene.pod("stuck").ready = false;
    let mut orders = Orders::default();
    for second in (100..1200).step_by(2) {
        orders = scene.look(1, second);
        scene.replicas = orders.replicas;
        for uid in ["a", "b"] {
            let retires = orders.retire.contains(uid);
            if let Some(pod) = scene.pods.iter_mut().find(|pod| pod.uid == uid) {
                pod.ready = !retires;
                pod.deletion_cost = orders.costs.get(uid).copied().unwrap_or_default();
                pod.heard.as_mut().unwrap().retiring = retires;
            }
        }
        assert!(scene.pods.iter().any(|pod| pod.ready), "nobody serves at {second}");
        if orders.replicas < 3 {
            scene.pods.retain(|pod| !orders.retire.contains(&pod.uid));
        }
    }
    assert_eq!((orders.replicas, orders.retire.len()), (2, 0), "the last that serves stays");
}

#[test]
fn who_was_to_go_comes_back_if_nobody_else_serves_any_more() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    scene.work("a", 1);
    assert_eq!(scene.step(1, 100).retire, set(&["b", "c"]));
    scene.pod("a").ready = false;
    let orders = scene.look(1, 102);
    assert_eq!((orders.retire.len(), orders.has_let_go), (1, true));
}

#[test]
fn while_pods_are_not_seen_that_kubernetes_counts_nobody_goes() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    (scene.replicas, scene.exist) = (5, 5);
    let behind = scene.step(2, 100);
    assert_eq!((behind.replicas, behind.retire), (5, set(&[])));
    scene.exist = 3;
    assert_eq!(scene.step(2, 102).replicas, 3, "two never came");
}

#[test]
fn load_that_returns_lets_victims_go_before_any_pod_is_made() {
    let mut scene = Scene::new(&["a", "b", "c", "d"]);
    scene.work("a", 4);
    scene.work("c", 1);
    scene.work("d", 2);
    assert_eq!(scene.step(1, 100).retire, set(&["b", "c", "d"]));
    let some = scene.step(2, 102);
    assert_eq!((some.replicas, some.retire, some.has_let_go), (4, set(&["b", "c"]), true));
    let all = scene.step(4, 104);
    assert_eq!((all.replicas, all.retire, all.costs.len(), all.has_let_go), (4, set(&[]), 0, true));
    let more = scene.step(6, 106);
    assert_eq!((more.replicas, more.has_let_go), (6, false));
}

#[test]
fn who_was_given_up_is_not_let_go_until_the_deployment_is_asked_for_as_many_again() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    for second in [TOLD, PRICED, SEEN] {
        scene.step(2, second);
    }
    let gone = scene.step(2, GOES);
    assert_eq!((gone.replicas, priced(&gone)), (2, vec!["a"]));
    // Load returns before Kubernetes has taken it.
    let back = scene.look(3, GOES + 1);
    assert_eq!((back.replicas, back.retire, back.wrong), (3, set(&["a"]), 0));
    scene.replicas = 3;
    let back = scene.look(3, GOES + 2);
    assert_eq!((back.retire, back.has_let_go), (set(&[]), true), "it was in time");
}

#[test]
fn a_rollout_lets_all_victims_go_and_the_shrink_begins_again_after_it() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    scene.work("a", 1);
    scene.step(1, 100);
    scene.rollout = true;
    let during = scene.step(1, 120);
    assert_eq!((during.replicas, during.retire, during.costs.len()), (3, set(&[]), 0));
    assert_eq!(scene.step(5, 122).replicas, 5, "it may grow");
    scene.replicas = 3;
    scene.rollout = false;
    assert_eq!(scene.step(1, 130).retire, set(&["b", "c"]));
}

#[test]
fn a_victim_that_dies_by_itself_leaves_no_other_to_die() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    scene.work("a", 2);
    scene.work("b", 1);
    scene.step(2, 100);
    scene.dies("c");
    let after = scene.step(2, 102);
    assert_eq!((after.replicas, after.retire, after.wrong), (2, set(&[]), 0));
}

#[test]
fn the_one_that_was_made_in_its_place_goes_instead() {
    let mut scene = Scene::new(&["a", "b", "c", "d"]);
    for uid in ["a", "b", "c"] {
        scene.work(uid, 5);
    }
    scene.work("d", 1);
    assert_eq!(scene.step(3, 100).retire, set(&["d"]));
    // Another died, and the ReplicaSet has replaced it: what is new goes before anybody's cost.
    scene.dies("a");
    scene.pods.push(newborn("new"));
    let swapped = scene.step(3, 102);
    assert_eq!((&swapped.retire, swapped.has_let_go), (&set(&["new"]), true));
    scene.step(3, 104);
    assert_eq!(scene.step(3, 109).replicas, 3);
}

#[test]
fn a_death_that_was_not_meant_is_told() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    scene.work("a", 2);
    scene.work("b", 1);
    for second in [TOLD, PRICED, SEEN, GOES] {
        assert_eq!(scene.step(2, second).wrong, 0);
    }
    assert_eq!(scene.replicas, 2);
    scene.dies("b");
    assert_eq!(scene.step(2, GOES + 1).wrong, 1);
    let after = scene.step(2, GOES + 2);
    assert_eq!((after.wrong, after.retire), (0, set(&[])));
    scene.dies("c");
    assert_eq!(scene.step(2, GOES + 3).wrong, 0, "no shrink is under way");
}

#[test]
fn with_too_many_silent_nobody_new_is_chosen_and_nobody_goes() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    scene.work("a", 2);
    scene.work("b", 1);
    scene.step(2, 100);
    scene.step(2, 102);
    scene.heard("a").at = at(0);
    let blind = scene.step(1, 120);
    assert_eq!((blind.replicas, blind.retire), (3, set(&["c"])));
    assert_eq!(scene.step(5, 122).replicas, 5);
}

#[test]
fn pods_that_never_came_are_not_waited_for() {
    let mut scene = Scene::new(&["a", "b"]);
    scene.replicas = 9;
    let orders = scene.step(2, 100);
    assert_eq!((orders.replicas, orders.retire), (2, set(&[])));
}

#[test]
fn a_new_operator_goes_on_with_those_that_are_about_to_go() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    scene.pod("b").deletion_cost = VICTIM_COST;
    // The Deployment has been asked for two already.
    scene.replicas = 2;
    assert_eq!(scene.step(2, TOLD).retire, set(&["b"]));
}

#[test]
fn many_go_at_once() {
    let names: Vec<String> = (0..100).map(|n| format!("p{n:02}")).collect();
    let mut scene = Scene::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(scene.step(75, TOLD).retire.len(), 25);
    scene.step(75, PRICED);
    scene.step(75, SEEN);
    assert_eq!(scene.step(75, GOES).replicas, 75);
}

#[test]
fn the_last_pod_of_a_pool_may_go() {
    let mut scene = Scene::new(&["a"]);
    for second in [TOLD, PRICED, SEEN] {
        assert_eq!(scene.step(0, second).replicas, 1);
    }
    assert_eq!(scene.step(0, GOES).replicas, 0);
}
