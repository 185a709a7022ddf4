//! A pool that goes to zero and comes back, with its whole operator, on virtual time.

use std::net::IpAddr;

use corral_wire::{Position, ServePermission};
use serde_json::{Value, json};

use super::pods::{Activator, Sidecar};
use super::scaling_cluster::{Cluster, POOL};
use super::world::{NS, policy_spec};

const ACTIVATORS: [&str; 2] = ["10.1.0.1", "10.1.0.2"];

fn to_zero() -> Value {
    json!({"ollama": {"numParallel": 4}, "autoscaling": {"minReplicas": 0, "maxReplicas": 4,
        "scaleDown": {"windowSeconds": 30}, "scaleToZero": {"idleAfterSeconds": 60}}})
}

/// Starts the two pods that the activator's Deployment asks for, as Kubernetes does.
fn start_activators(cluster: &Cluster) {
    put_activators(cluster, true);
}

fn put_activators(cluster: &Cluster, ready: bool) {
    let ready = if ready { "True" } else { "False" };
    for (number, ip) in ACTIVATORS.iter().enumerate() {
        let name = format!("{POOL}-activator-{number}");
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NS, "labels": {"corral.dev/activator": POOL}},
            "spec": {"containers": [{"name": "activator"}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"name": "activator", "ready": ready == "True", "restartCount": 0,
                    "image": "x", "imageID": "x", "state": {"running": {}}}]}});
        let stored = cluster.world.api.put(&pod, "pods");
        let uid = stored["metadata"]["uid"].as_str().unwrap().to_owned();
        // As the real one says of itself: it waits for nobody's permission.
        let mut sidecar = Sidecar { serve: ServePermission::Granted, ..Sidecar::new(&uid) };
        sidecar.keys = cluster.world.keys(POOL);
        cluster.world.sidecars.0.lock().insert(ip.parse().unwrap(), sidecar);
        let activator = Activator {
            uid,
            keys: cluster.world.keys(POOL),
            obeyed: Position::default(),
            duty: None,
            held: 0,
            arrivals: 0,
        };
        cluster.world.sidecars.1.lock().insert(ip.parse().unwrap(), activator);
    }
}

fn end_activators(cluster: &Cluster) {
    for (number, ip) in ACTIVATORS.iter().enumerate() {
        let address = ip.parse::<IpAddr>().unwrap();
        cluster.world.remove("", "pods", &format!("{POOL}-activator-{number}"));
        cluster.world.sidecars.0.lock().remove(&address);
        cluster.world.sidecars.1.lock().remove(&address);
    }
}

/// Requests that come to an activator, which has no room for them.
fn refuse(cluster: &Cluster, ip: &str, requests: u64) {
    let mut all = cluster.world.sidecars.1.lock();
    all.get_mut(&ip.parse::<IpAddr>().unwrap()).unwrap().arrivals += requests;
}

/// How many activators are asked for.
fn activators_asked(cluster: &Cluster) -> u64 {
    let deployment = cluster.world.api.find("apps", "deployments", NS, "chat-activator").unwrap();
    deployment["spec"]["replicas"].as_u64().unwrap()
}

/// A pool that sleeps.
async fn asleep() -> Cluster {
    let mut cluster = Cluster::with_pool(&to_zero()).await;
    start_activators(&cluster);
    cluster.until(300, |cluster| cluster.asked() == 0).await;
    cluster.until(30, |cluster| cluster.pods.is_empty()).await;
    cluster.pass(70).await;
    assert_eq!(cluster.asked(), 0);
    cluster
}

fn hold(cluster: &Cluster, ip: &str, held: u32) {
    let mut all = cluster.world.sidecars.1.lock();
    let activator = all.get_mut(&ip.parse::<IpAddr>().unwrap()).unwrap();
    activator.arrivals += u64::from(held.saturating_sub(activator.held));
    activator.held = held;
}

/// What the last word to an activator was.
fn told(cluster: &Cluster, ip: &str) -> corral_wire::Duty {
    cluster.world.sidecars.1.lock()[&ip.parse::<IpAddr>().unwrap()].duty.clone().unwrap()
}

/// The addresses that the activator's slice brings the Service's traffic to.
fn standing(cluster: &Cluster) -> Vec<String> {
    let slice = cluster.world.api.find("discovery.k8s.io", "endpointslices", NS, "chat-activator").unwrap();
    let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
    endpoints.iter().map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_requests_goes_to_zero_and_the_first_that_is_held_brings_it_back() {
    let mut cluster = Cluster::with_pool(&to_zero()).await;
    assert_eq!((cluster.asked(), cluster.ready().len()), (1, 1), "it begins with a pod");
    start_activators(&cluster);
    cluster.pass(5).await;
    assert_eq!(standing(&cluster), Vec::<String>::new(), "a healthy pod is enough");
    assert_eq!(told(&cluster, ACTIVATORS[0]).backends.len(), 1);
    let (mut beside, mut alone) = (0, false);
    cluster
        .watch(120, |cluster| {
            let (stand, serves) = (standing(cluster) == ACTIVATORS, !cluster.ready().is_empty());
            beside += u32::from(stand && serves);
            alone |= !stand && !serves;
        })
        .await;
    assert_eq!(cluster.asked(), 0);
    let message = cluster.world.condition("ollamapools", POOL, "Ready").2;
    assert!(message.starts_with("0 of 0 pods"), "{message}");
    let decided = cluster.status()["autoscaling"]["decisions"][0]["message"].clone();
    assert!(decided.as_str().unwrap().contains("idleAfterSeconds"), "{decided}");
    assert!(!alone, "there was a moment without anybody behind the Service");
    assert!((20..48).contains(&beside), "they stood beside the last pod for {beside} quarters of a second");
    cluster.until(30, |cluster| cluster.pods.is_empty()).await;
    cluster.pass(10).await;
    assert_eq!(standing(&cluster), ACTIVATORS);
    let told_at_zero = told(&cluster, ACTIVATORS[1]);
    assert!(told_at_zero.backends.is_empty() && told_at_zero.start_left_ms > 1000, "{told_at_zero:?}");
    cluster.pass(120).await;
    assert_eq!(cluster.asked(), 0, "and it stays there");
    assert_eq!(cluster.condition("Ready"), ("True".to_owned(), "ScaledToZero".to_owned()));

    cluster.replace_operator();
    cluster.pass(60).await;
    assert_eq!(cluster.asked(), 0, "a new operator wakes nobody");

    hold(&cluster, ACTIVATORS[1], 3);
    let woken = cluster.until(5, |cluster| cluster.asked() > 0).await;
    assert!(woken <= 1, "after {woken} s");
    cluster.until(60, |cluster| !cluster.ready().is_empty()).await;
    cluster.pass(1).await;
    for ip in ACTIVATORS {
        let duty = told(&cluster, ip);
        assert_eq!((duty.backends.len(), duty.start_left_ms), (1, 0), "{ip} hears of it at once");
        assert_eq!(duty.backends[0].slots, 4);
    }
    assert_eq!(standing(&cluster), ACTIVATORS, "beside a pod that has just begun");
    hold(&cluster, ACTIVATORS[1], 0);
    cluster.pass(10).await;
    assert_eq!(standing(&cluster), Vec::<String>::new());
    cluster.pass(20).await;
    assert!(cluster.asked() >= 1, "it is not taken away as soon as it is there");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_finds_no_room_wakes_the_pool_all_the_same() {
    let mut cluster = asleep().await;
    refuse(&cluster, ACTIVATORS[0], 1);
    cluster.until(25, |cluster| cluster.asked() > 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_be_held_counts_as_coming() {
    let mut cluster = asleep().await;
    for held in 1..=15 {
        hold(&cluster, ACTIVATORS[0], 4 * held);
        cluster.pass(1).await;
    }
    let rate = cluster.status()["autoscaling"]["numbers"]["arrivalsPerSecond"].clone();
    let rate: f64 = rate.as_str().unwrap().parse().unwrap();
    assert!(rate > 0.3, "{rate} a second of sixty within a quarter of a minute");
}

#[tokio::test(start_paused = true)]
async fn whoever_lists_models_now_and_then_keeps_a_pool_awake_and_makes_no_second_pod() {
    let mut cluster = Cluster::with_pool(&to_zero()).await;
    start_activators(&cluster);
    for _ in 0..20 {
        cluster.list_models();
        cluster.watch(30, |cluster| assert_eq!((cluster.asked(), cluster.desired()), (1, 1))).await;
    }
    assert_eq!(cluster.status()["autoscaling"]["numbers"]["arrivalsPerSecond"], "0.00");
    cluster.until(120, |cluster| cluster.asked() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_somebody_takes_away_from_a_sleeping_pool_comes_back() {
    let mut cluster = asleep().await;
    cluster.world.remove("discovery.k8s.io", "endpointslices", "chat-activator");
    cluster.pass(30).await;
    assert_eq!(standing(&cluster), ACTIVATORS);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_sleeps_is_woken_if_somebody_else_begins_to_scale_it() {
    let mut cluster = asleep().await;
    let rival = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "second", "namespace": NS},
        "spec": {"maxReplicas": 9, "scaleTargetRef": {"apiVersion": "corral.dev/v1alpha1",
            "kind": "OllamaPool", "name": POOL}}});
    cluster.world.api.put(&rival, "horizontalpodautoscalers");
    cluster.until(70, |cluster| cluster.asked() == 1).await;
    assert_eq!(cluster.condition("AutoscalingConflict").0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_activators_say_nothing_keeps_a_pod() {
    let mut cluster = Cluster::with_pool(&to_zero()).await;
    assert_eq!(limited(&cluster).0, within_range());
    let mut seen = vec![within_range()];
    cluster
        .watch(600, |cluster| {
            seen.push(limited(cluster).0);
            seen.dedup();
        })
        .await;
    assert_eq!(cluster.asked(), 1, "nothing would hold what comes");
    assert_eq!(seen, [within_range(), no_activator()], "and it says so, once");
    let message = limited(&cluster).1;
    assert!(
        message.contains("Deployment chat-activator") && message.ends_with(": it has no pod"),
        "{message}"
    );
    start_activators(&cluster);
    cluster.watch(60, |cluster| assert_eq!(cluster.asked(), 1, "they may be gone again")).await;
    cluster.until(30, |cluster| cluster.asked() == 0).await;
    assert_eq!(limited(&cluster).0, within_range());
    assert_eq!(cluster.notes(&["NoActivator"]).len(), 1);
}

/// What is said of what holds the pool up, and its message.
fn limited(cluster: &Cluster) -> ((String, String), String) {
    let (status, reason, message) = cluster.world.condition("ollamapools", POOL, "ScalingLimited");
    ((status, reason), message)
}

fn within_range() -> (String, String) {
    ("False".to_owned(), "DesiredWithinRange".to_owned())
}

fn no_activator() -> (String, String) {
    ("True".to_owned(), "NoActivator".to_owned())
}

/// Lets time pass until the pool says that it has no activator for this.
async fn until_it_lacks(cluster: &mut Cluster, what: &str) {
    cluster
        .until(90, |cluster| {
            let (is, message) = limited(cluster);
            is == no_activator() && message.contains(what)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_keeps_activators_from_running_or_being_heard_is_told_while_it_keeps_the_last_pod() {
    let mut cluster = Cluster::with_pool(&to_zero()).await;
    let mut deployment = cluster.world.api.find("apps", "deployments", NS, "chat-activator").unwrap();
    deployment["status"] = json!({"observedGeneration": 1, "conditions": [{"type": "ReplicaFailure",
        "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"}]});
    cluster.world.api.put(&deployment, "deployments");
    cluster.pass(60).await;
    until_it_lacks(&mut cluster, "its pods are refused: exceeded quota: small").await;
    deployment["status"] = json!({"observedGeneration": 1});
    cluster.world.api.put(&deployment, "deployments");
    put_pod(
        &cluster,
        &json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/3 nodes are available: 3 had untolerated taint {gpu: }"}]}),
    );
    until_it_lacks(&mut cluster, "chat-activator-0: 0/3 nodes are available: 3 had untolerated taint").await;
    put_pod(
        &cluster,
        &json!({"phase": "Pending", "containerStatuses": [{"name": "activator", "image": "x",
        "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image x"}}}]}),
    );
    until_it_lacks(&mut cluster, "chat-activator-0, container activator: Back-off pulling image x").await;
    put_activators(&cluster, false);
    until_it_lacks(&mut cluster, "chat-activator-0, chat-activator-1: runs, and is not ready").await;
    cluster.world.sidecars.1.lock().clear();
    cluster.pass(40).await;
    put_activators(&cluster, true);
    cluster.world.sidecars.1.lock().clear();
    until_it_lacks(&mut cluster, "chat-activator-0, chat-activator-1: ready, but not heard").await;
    assert_eq!((cluster.asked(), cluster.ready().len()), (1, 1));
    assert_eq!(cluster.notes(&["NoActivator"]).len(), 1);

    let busy = cluster.ready()[0].to_owned();
    cluster.give(&busy, 1, 1);
    cluster.until(20, |cluster| limited(cluster).0 == within_range()).await;
}

/// The first pod of the activator's Deployment as Kubernetes shows it.
fn put_pod(cluster: &Cluster, status: &Value) {
    let name = format!("{POOL}-activator-0");
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NS, "labels": {"corral.dev/activator": POOL}},
        "spec": {"containers": [{"name": "activator"}]}, "status": status});
    cluster.world.api.put(&pod, "pods");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_sleeps_and_loses_its_activators_wakes_and_says_why_without_a_break() {
    let mut cluster = asleep().await;
    end_activators(&cluster);
    // Whoever asks now is refused by the Service itself.
    cluster.until(15, |cluster| cluster.asked() == 1).await;
    let mut seen = Vec::new();
    cluster
        .watch(120, |cluster| {
            seen.push(limited(cluster).0);
            seen.dedup();
        })
        .await;
    assert!(seen.last() == Some(&no_activator()) && seen.len() <= 2, "{seen:?}");
    let woken = "from 0 to 1: no activator is ready and heard, to hold what comes at zero";
    assert_eq!(cluster.notes(&["ScaledUp"]), [woken]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_activators_are_heard_but_not_ready_keeps_a_pod_and_so_does_one_that_has_them_the_other_way()
 {
    let mut cluster = Cluster::with_pool(&to_zero()).await;
    put_activators(&cluster, false);
    cluster.watch(300, |cluster| assert_eq!(cluster.ready().len(), 1)).await;
    assert_eq!(told(&cluster, ACTIVATORS[0]).backends.len(), 1, "they are heard");
    cluster.world.sidecars.1.lock().clear();
    cluster.pass(40).await;
    put_activators(&cluster, true);
    cluster.world.sidecars.1.lock().clear();
    cluster.watch(300, |cluster| assert_eq!(cluster.ready().len(), 1)).await;
}

#[tokio::test(start_paused = true)]
async fn activators_that_come_and_go_are_followed_though_no_pod_can_be_made() {
    let mut cluster = asleep().await;
    let mut spec = to_zero();
    spec["podTemplate"] = json!({"spec": {"hostNetwork": true}});
    cluster.world.put_pool(POOL, &spec);
    cluster.pass(5).await;
    assert_eq!(cluster.condition("Ready"), ("False".to_owned(), "TemplateInvalid".to_owned()));
    let mut pod = cluster.world.api.find("", "pods", NS, "chat-activator-0").unwrap();
    pod["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
    cluster.world.api.put(&pod, "pods");
    cluster.pass(30).await;
    assert_eq!(standing(&cluster), [ACTIVATORS[1]]);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_answered_though_the_pool_does_not_go_to_zero_any_more() {
    let mut cluster = asleep().await;
    hold(&cluster, ACTIVATORS[1], 3);
    cluster.pass(2).await;
    cluster.world.put_pool(POOL, &json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 4}}));
    let mut waited = 0;
    cluster
        .watch(20, |cluster| {
            waited += u32::from(cluster.ready().is_empty());
            let stand = (standing(cluster), activators_asked(cluster));
            assert!(stand == (ACTIVATORS.map(str::to_owned).to_vec(), 2), "nothing else is there: {stand:?}");
        })
        .await;
    assert!(waited > 40);
    cluster.until(60, |cluster| !cluster.ready().is_empty()).await;
    cluster.pass(30).await;
    let ready = cluster.ready().len();
    assert_eq!(told(&cluster, ACTIVATORS[1]).backends.len(), ready, "who holds them hears of each pod");
    assert_eq!((standing(&cluster), activators_asked(&cluster)), (vec![], 2), "it lets them go");
    hold(&cluster, ACTIVATORS[1], 0);
    cluster.until(20, |cluster| activators_asked(cluster) == 0).await;
    end_activators(&cluster);
    cluster.pass(5).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_goes_to_zero_no_more_loses_its_activators() {
    let mut cluster = Cluster::with_pool(&to_zero()).await;
    start_activators(&cluster);
    cluster.pass(5).await;
    cluster.world.put_pool(POOL, &json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 4}}));
    cluster.pass(5).await;
    assert_eq!((standing(&cluster), activators_asked(&cluster)), (vec![], 0));
}

/// The pool of these tests, stopped by whoever writes `spec.replicas`.
fn stopped(mode: &str, replicas: u32) -> Value {
    json!({"replicas": replicas, "autoscaling": {"mode": mode, "minReplicas": 0, "maxReplicas": 4,
        "scaleToZero": {"idleAfterSeconds": 60}}})
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_pool_that_is_stopped_has_nobody_wait_for_a_pod() {
    for mode in ["Disabled", "External"] {
        let mut cluster = asleep().await;
        hold(&cluster, ACTIVATORS[1], 0);
        cluster.world.put_pool(POOL, &stopped(mode, 0));
        cluster.pass(1).await;
        assert_eq!((standing(&cluster), activators_asked(&cluster)), (vec![], 0), "{mode}");
        assert!(ACTIVATORS.iter().all(|ip| told(&cluster, ip).stopped), "they hear that no pod comes");
        // One that came by an endpoint list that was late, and holds up nothing.
        hold(&cluster, ACTIVATORS[1], 1);
        cluster.replace_operator();
        cluster.pass(30).await;
        assert_eq!((standing(&cluster), activators_asked(&cluster)), (vec![], 0), "{mode}");
        assert_eq!(cluster.asked(), 0);
        end_activators(&cluster);
        cluster.world.put_pool(POOL, &to_zero());
        cluster.pass(5).await;
        assert_eq!(activators_asked(&cluster), 2, "{mode}");
        start_activators(&cluster);
        cluster.pass(5).await;
        assert!(ACTIVATORS.iter().all(|ip| !told(&cluster, ip).stopped));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_stopped_while_it_serves_loses_pods_and_activators() {
    let mut cluster = Cluster::with_pool(&to_zero()).await;
    start_activators(&cluster);
    cluster.pass(5).await;
    cluster.world.put_pool(POOL, &stopped("Disabled", 0));
    cluster
        .watch(30, |cluster| assert_eq!(standing(cluster), Vec::<String>::new(), "nobody waits for nothing"))
        .await;
    assert_eq!((cluster.asked(), activators_asked(&cluster)), (0, 0));
    end_activators(&cluster);
    cluster.pass(5).await;
    assert_eq!(cluster.condition("Ready").0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_pool_of_which_somebody_asks_for_pods_holds_on_until_one_serves() {
    let mut cluster = asleep().await;
    hold(&cluster, ACTIVATORS[1], 3);
    cluster.world.put_pool(POOL, &stopped("Disabled", 2));
    cluster
        .watch(20, |cluster| {
            assert_eq!(
                (standing(cluster), activators_asked(cluster)),
                (ACTIVATORS.map(str::to_owned).to_vec(), 2)
            );
            assert!(!told(cluster, ACTIVATORS[1]).stopped);
        })
        .await;
    cluster.until(60, |cluster| !cluster.ready().is_empty()).await;
    hold(&cluster, ACTIVATORS[1], 0);
    cluster.until(40, |cluster| activators_asked(cluster) == 0).await;
}

/// What each activator has obeyed last.
fn obeyed(cluster: &Cluster) -> [Position; 2] {
    ACTIVATORS.map(|ip| cluster.world.sidecars.1.lock()[&ip.parse::<IpAddr>().unwrap()].obeyed)
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_pool_that_is_deleted_has_nobody_wait_for_a_pod() {
    let mut cluster = asleep().await;
    hold(&cluster, ACTIVATORS[1], 0);
    cluster.world.remove("corral.dev", "ollamapools", POOL);
    cluster.pass(8).await;
    assert!(ACTIVATORS.iter().all(|ip| told(&cluster, ip).stopped), "they hear that no pod comes");
    let last = obeyed(&cluster);
    cluster.pass(60).await;
    assert_eq!(obeyed(&cluster), last, "and nothing after that");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_made_anew_at_once_has_other_activators_and_those_of_the_last_one_let_go() {
    let mut cluster = asleep().await;
    hold(&cluster, ACTIVATORS[1], 6);
    cluster.world.remove("corral.dev", "ollamapools", POOL);
    cluster.world.put_pool(POOL, &to_zero());
    cluster.pass(5).await;
    assert!(ACTIVATORS.iter().all(|ip| told(&cluster, ip).stopped), "with the key that they know");
    cluster.world.remove("", "secrets", "chat-key");
    cluster.pass(30).await;
    let held = cluster.status()["autoscaling"]["numbers"]["queued"].clone();
    assert_eq!(held, 0, "who waited for the last one is no work for this one");
    end_activators(&cluster);
    start_activators(&cluster);
    cluster.pass(5).await;
    assert!(ACTIVATORS.iter().all(|ip| !told(&cluster, ip).stopped));
}

/// Has an activator end, which takes its time.
fn delete_activator(cluster: &Cluster, number: usize) {
    let mut pod = cluster.world.api.find("", "pods", NS, &format!("{POOL}-activator-{number}")).unwrap();
    pod["metadata"]["deletionTimestamp"] = json!("2026-07-06T06:00:00Z");
    cluster.world.api.put(&pod, "pods");
}

#[tokio::test(start_paused = true)]
async fn where_kubernetes_makes_neither_pods_nor_activators_any_more_nobody_waits_for_them() {
    let mut cluster = asleep().await;
    cluster.controller = false;
    hold(&cluster, ACTIVATORS[1], 3);
    delete_activator(&cluster, 0);
    cluster.pass(30).await;
    assert!(!told(&cluster, ACTIVATORS[1]).stopped, "one of them stays");
    delete_activator(&cluster, 1);
    cluster.watch(28, |cluster| assert!(!told(cluster, ACTIVATORS[1]).stopped, "another may come")).await;
    cluster.pass(6).await;
    assert!(ACTIVATORS.iter().all(|ip| told(&cluster, ip).stopped));
    start_activators(&cluster);
    cluster.pass(2).await;
    assert!(ACTIVATORS.iter().all(|ip| !told(&cluster, ip).stopped), "they came after all");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_being_deleted_and_kept_by_a_finalizer_has_nobody_wait_either() {
    let mut cluster = asleep().await;
    let mut pool = cluster.world.api.find("corral.dev", "ollamapools", NS, POOL).unwrap();
    pool["metadata"]["deletionTimestamp"] = json!("2026-07-06T06:00:00Z");
    pool["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    cluster.world.api.put(&pool, "ollamapools");
    cluster.pass(4).await;
    assert!(ACTIVATORS.iter().all(|ip| told(&cluster, ip).stopped));
    hold(&cluster, ACTIVATORS[1], 1);
    cluster.pass(10).await;
    assert_eq!(cluster.asked(), 0, "and wakes nobody");
}

/// The clients whose keys an activator knows, by the plan that came to it; it has no other.
fn known_to(cluster: &Cluster, ip: &str) -> Vec<String> {
    let plan = cluster.world.sidecars.get(ip).plan.unwrap();
    plan.identity.api_keys.iter().map(|key| key.client.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_known_to_the_activators_of_a_sleeping_pool_at_once_and_a_removed_one_is_not() {
    let mut cluster = Cluster::new().await;
    cluster.world.put_secret("team-keys", &[("alice", "alice-key-1")]);
    let mut spec = to_zero();
    spec["identity"] = json!({"apiKeys": [{"secretName": "team-keys"}], "unauthenticated": "Reject"});
    cluster.world.put_pool(POOL, &spec);
    cluster.world.put_policy("fair-use", &policy_spec(POOL, "60/m"));
    cluster.pass(50).await;
    start_activators(&cluster);
    cluster.until(300, |cluster| cluster.asked() == 0 && cluster.pods.is_empty()).await;
    assert_eq!(ACTIVATORS.map(|ip| known_to(&cluster, ip)), [["alice"]; 2]);
    cluster.world.put_secret("team-keys", &[("bob", "bob-key-1")]);
    cluster.pass(2).await;
    assert_eq!(ACTIVATORS.map(|ip| known_to(&cluster, ip)), [["bob"]; 2]);
    let (status, reason, message) = cluster.world.condition("ratelimitpolicies", "fair-use", "Programmed");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "NoPods"));
    assert_eq!(message, "no pod runs; the first will start with it; 2/2 activators go by it");
    assert_eq!(cluster.asked(), 0, "and nobody is woken for it");
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_programmed_once_the_activators_go_by_it_and_they_share_no_limit() {
    let mut cluster = Cluster::with_pool(&to_zero()).await;
    start_activators(&cluster);
    let programmed = |cluster: &Cluster| {
        let world = &cluster.world;
        assert_eq!((world.divisor(POOL), world.sidecars.get("10.0.0.1").divisor), (1, 1), "of one pod");
        world.condition("ratelimitpolicies", "fair-use", "Programmed")
    };
    cluster.world.put_policy("fair-use", &policy_spec(POOL, "60/m"));
    cluster.pass(3).await;
    let (status, _, message) = programmed(&cluster);
    assert_eq!((status.as_str(), message.as_str()), ("True", "1/1 pods enforce it; 2/2 activators go by it"));

    cluster.world.sidecars.change(ACTIVATORS[1], |activator| activator.silent = true);
    cluster.world.put_policy("fair-use", &policy_spec(POOL, "7/m"));
    cluster.pass(1).await;
    let plan = cluster.world.sidecars.get(ACTIVATORS[0]).plan.unwrap();
    assert_eq!(plan.limits[0].requests.unwrap().count_milli, 7_000, "the other one has it at once");
    cluster.watch(15, |cluster| assert_eq!(programmed(cluster).0, "False")).await;
    let (_, reason, message) = programmed(&cluster);
    assert_eq!(reason, "PartiallyProgrammed");
    assert!(message.contains("1/2 activators") && message.contains("chat-activator-1 has not"), "{message}");
    assert_eq!(cluster.condition("Ready").0, "True", "the pod is within reach");

    cluster.world.sidecars.change(ACTIVATORS[1], |activator| activator.silent = false);
    cluster.until(10, |cluster| programmed(cluster).0 == "True").await;
    assert!(!cluster.world.sidecars.get(ACTIVATORS[1]).retiring);
    end_activators(&cluster);
    cluster.pass(3).await;
    assert_eq!(programmed(&cluster).2, "1/1 pods enforce it", "who is gone is waited for by nobody");
}
