//! The whole operator as it runs: watches, controllers, exchange, on a paused clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use corral_operator::clock::SystemClock;
use corral_operator::config::Settings;
use corral_operator::context::Stores;
use corral_operator::names::DELETION_COST;
use corral_operator::rbac;
use corral_operator::run::{Parts, run};
use corral_scaler::VICTIM_COST;
use corral_tests::fake_api::FakeApi;
use corral_tests::fake_api::store::{Key, Store};
use kube::runtime::{reflector, watcher::Event};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::pods::Sidecars;
use super::world::{NS, World, policy_spec, pool_spec};

/// A world that only looks on, and an operator that works in it.
struct Scene {
    world: World,
    operator: JoinHandle<anyhow::Result<()>>,
}

pub(crate) fn start(api: &FakeApi, sidecars: &Sidecars, who: &str) -> JoinHandle<anyhow::Result<()>> {
    let args = ["corral-operator", "--sidecar-image", "corral/sidecar:1", "--listen", "127.0.0.1:0"];
    let parts = Parts {
        client: api.client(),
        clock: SystemClock::shared(),
        transport: Arc::new(sidecars.clone()),
        identity: who.to_owned(),
    };
    tokio::spawn(run(Settings::parse_from(args), parts, std::future::pending()))
}

async fn scene() -> Scene {
    let world = World::new().await;
    let operator = start(&world.api, &world.sidecars, "whole");
    world.put_pool("chat", &pool_spec(2));
    world.put_policy("fair-use", &policy_spec("chat", "60/m"));
    sleep(Duration::from_secs(5)).await;
    world.start_pod("chat", "chat-1", "10.0.0.1");
    world.start_pod("chat", "chat-2", "10.0.0.2");
    sleep(Duration::from_secs(20)).await;
    Scene { world, operator }
}

#[tokio::test(start_paused = true)]
async fn a_pool_and_a_policy_come_true_by_themselves() {
    let Scene { world, .. } = scene().await;
    world.complete("chat");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.ready("chat"), ("True".into(), "Ready".into()));
    assert_eq!(world.programmed("fair-use"), ("True".into(), "Programmed".into()));
    assert!(world.sidecars.get("10.0.0.2").serves());
}

#[tokio::test(start_paused = true)]
async fn a_change_is_everywhere_in_less_than_a_second() {
    let Scene { world, .. } = scene().await;
    for count in 1..10_u64 {
        world.put_policy("fair-use", &policy_spec("chat", &format!("{count}/m")));
        sleep(Duration::from_millis(900)).await;
        for ip in ["10.0.0.1", "10.0.0.2"] {
            let plan = world.sidecars.get(ip).plan.unwrap();
            assert_eq!(plan.limits[0].requests.unwrap().count_milli, count * 1000);
        }
        assert_eq!(world.programmed("fair-use").0, "True");
    }
}

#[tokio::test(start_paused = true)]
async fn at_rest_it_writes_nothing_for_minutes() {
    let Scene { world, .. } = scene().await;
    world.complete("chat");
    sleep(Duration::from_secs(5)).await;
    let before = world.writes();
    sleep(Duration::from_mins(8)).await;
    let last = world.api.writes().into_iter().rfind(|write| write.resource != "leases");
    assert_eq!(world.writes(), before, "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn it_uses_every_right_it_has_and_no_other() {
    let Scene { world, operator } = scene().await;
    world.put_pool("broken", &serde_json::json!({"replicas": "many"}));
    let keys = serde_json::json!({"identity": {"apiKeys": [{"secretName": "team-keys"}]}});
    world.put_pool("keyed", &keys);
    world.put_policy("broken", &serde_json::json!({"limits": 1}));
    sleep(Duration::from_secs(5)).await;
    // The same event again becomes a series, which is a patch.
    for round in 0..4 {
        world.put_policy("fair-use", &policy_spec(if round % 2 == 0 { "nowhere" } else { "chat" }, "60/m"));
        sleep(Duration::from_secs(5)).await;
    }
    // More revisions than are kept.
    for slots in 2..10 {
        let mut spec = pool_spec(2);
        spec["ollama"] = serde_json::json!({"numParallel": slots});
        world.put_pool("chat", &spec);
        sleep(Duration::from_secs(2)).await;
    }
    let own = serde_json::json!({"autoscaling": {"minReplicas": 0, "maxReplicas": 2, "scaleToZero": {}}});
    world.put_pool("own", &own);
    let mut pod = world.api.find("", "pods", NS, "chat-1").unwrap();
    pod["metadata"]["annotations"] = serde_json::json!({DELETION_COST: VICTIM_COST.to_string()});
    world.api.put(&pod, "pods");
    sleep(Duration::from_secs(70)).await;
    operator.abort();
    let made: BTreeSet<(String, String, String)> =
        world.api.permissions().into_iter().map(|made| (made.group, made.resource, made.verb)).collect();
    // What a cluster may ask of whoever writes slices with addresses of his own is no call.
    let grants =
        rbac::POOLS.iter().chain(&rbac::OWN).filter(|grant| !grant.resource.ends_with("/restricted"));
    let granted: BTreeSet<(String, String, String)> = grants
        .flat_map(|grant| {
            grant.verbs.iter().map(|verb| (grant.group.into(), grant.resource.into(), (*verb).into()))
        })
        .collect();
    assert_eq!(made, granted);
}

#[tokio::test(start_paused = true)]
async fn a_second_operator_takes_over_and_pods_obey_it() {
    let Scene { world, operator } = scene().await;
    let before = world.sidecars.get("10.0.0.1").obeyed.term;
    operator.abort();
    let _second = start(&world.api, &world.sidecars, "second");
    sleep(Duration::from_secs(40)).await;
    assert!(world.sidecars.get("10.0.0.1").obeyed.term > before);
    world.put_policy("fair-use", &policy_spec("chat", "7/m"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.sidecars.get("10.0.0.1").plan.unwrap().limits[0].requests.unwrap().count_milli, 7_000);
}

/// Takes the API server away for a while; what was watched before cannot be watched on from there.
async fn outage(world: &World, meanwhile: impl FnOnce(&World), how_long: Duration) {
    world.api.faults(|faults| faults.down(true));
    world.api.store(Store::close_watches);
    meanwhile(world);
    sleep(how_long).await;
    world.api.store(Store::compact);
    world.api.faults(|faults| faults.down(false));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_can_never_fill_is_never_taken_for_an_empty_one() {
    let (pools, mut pool_writer) = reflector::store();
    let (policies, mut policy_writer) = reflector::store();
    let (pods, pod_writer) = reflector::store();
    let (activators, mut activator_writer) = reflector::store();
    pool_writer.apply_watcher_event(&Event::InitDone);
    policy_writer.apply_watcher_event(&Event::InitDone);
    activator_writer.apply_watcher_event(&Event::InitDone);
    drop(pod_writer);
    let stores = Stores { pools, policies, pods, activators };
    assert!(timeout(Duration::from_mins(10), stores.ready()).await.is_err(), "no pod was ever listed");
}

const SECONDS: Duration = Duration::from_secs(6);

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_after_an_outage_of_the_api_server_is_told_to_serve() {
    let Scene { world, operator } = scene().await;
    outage(&world, |_| {}, SECONDS).await;
    sleep(Duration::from_mins(1)).await;
    assert!(!operator.is_finished(), "it leads on");
    world.put_pool("chat", &pool_spec(3));
    world.start_pod("chat", "chat-3", "10.0.0.3");
    sleep(Duration::from_secs(10)).await;
    let newcomer = world.sidecars.get("10.0.0.3");
    assert!(newcomer.serves() && newcomer.divisor == 3, "{newcomer:?}");
    assert_eq!(world.programmed("fair-use"), ("True".into(), "Programmed".into()));
    world.put_policy("fair-use", &policy_spec("chat", "7/m"));
    sleep(Duration::from_secs(1)).await;
    for ip in ["10.0.0.1", "10.0.0.3"] {
        let plan = world.sidecars.get(ip).plan.unwrap();
        assert_eq!(plan.limits[0].requests.unwrap().count_milli, 7_000, "{ip}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_during_an_outage_is_gone_soon_after_it() {
    let Scene { world, operator } = scene().await;
    world.put_policy("second", &policy_spec("chat", "9/m"));
    world.put_policy("astray", &policy_spec("other", "9/m"));
    world.put_pool("other", &pool_spec(1));
    sleep(Duration::from_secs(5)).await;
    let service = Key::new("", "services", Some(NS), "chat");
    let gone = |world: &World| {
        world.api.store(|store| {
            store.remove(&Key::new("corral.dev", "ratelimitpolicies", Some(NS), "second"));
            store.remove(&Key::new("corral.dev", "ollamapools", Some(NS), "other"));
            store.remove(&service);
        });
        world.end_pod("chat-2", "10.0.0.2");
    };
    outage(&world, gone, SECONDS).await;
    sleep(Duration::from_mins(1)).await;
    assert!(!operator.is_finished(), "it leads on");
    let last = world.sidecars.get("10.0.0.1");
    assert_eq!((last.divisor, last.plan.unwrap().limits.len()), (1, 1));
    let (resolved, why, _) = world.condition("ratelimitpolicies", "astray", "ResolvedRefs");
    assert_eq!((resolved.as_str(), why.as_str()), ("False", "TargetNotFound"));
    assert!(world.api.store(|store| store.get(&service).is_some()));
}

#[tokio::test(start_paused = true)]
async fn each_watch_goes_on_after_it_alone_broke() {
    for plural in ["ollamapools", "ratelimitpolicies", "pods", "deployments", "services"] {
        let Scene { world, .. } = scene().await;
        world.api.faults(|faults| faults.break_watches(plural, 3));
        world.api.store(Store::close_watches);
        sleep(Duration::from_mins(1)).await;
        world.put_pool("chat", &pool_spec(3));
        world.put_policy("fair-use", &policy_spec("chat", "7/m"));
        world.start_pod("chat", "chat-3", "10.0.0.3");
        for (group, plural) in [("", "services"), ("apps", "deployments")] {
            world.api.store(|store| store.remove(&Key::new(group, plural, Some(NS), "chat")));
        }
        sleep(Duration::from_secs(10)).await;
        let newcomer = world.sidecars.get("10.0.0.3");
        assert!(newcomer.serves(), "{plural}: {newcomer:?}");
        assert_eq!(newcomer.plan.unwrap().limits[0].requests.unwrap().count_milli, 7_000, "{plural}");
        assert_eq!(world.deployment("chat").unwrap()["spec"]["replicas"], 3, "{plural}");
        assert!(world.api.find("", "services", NS, "chat").is_some(), "{plural}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_gone_for_minutes_ends_the_lead_and_the_next_process_takes_up() {
    let Scene { world, operator } = scene().await;
    let minutes = Duration::from_mins(5);
    let next = outage(&world, |_| {}, minutes);
    let before = world.sidecars.get("10.0.0.1");
    let ((), ended) = tokio::join!(next, operator);
    assert_eq!(ended.unwrap().unwrap_err().to_string(), "the lead was lost");
    assert_eq!(world.sidecars.get("10.0.0.1").plan, before.plan, "pods enforce what they had");
    let _next = start(&world.api, &world.sidecars, "next");
    world.put_policy("fair-use", &policy_spec("chat", "7/m"));
    world.start_pod("chat", "chat-3", "10.0.0.3");
    sleep(Duration::from_mins(1)).await;
    assert_eq!(world.programmed("fair-use"), ("True".into(), "Programmed".into()));
    for ip in ["10.0.0.1", "10.0.0.3"] {
        let pod = world.sidecars.get(ip);
        assert!(pod.serves() && pod.divisor == 3, "{pod:?}");
        assert_eq!(pod.plan.unwrap().limits[0].requests.unwrap().count_milli, 7_000, "{ip}");
    }
}
