//! The whole operator as it runs: watches, controllers, exchange, on a paused clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use corral_operator::clock::SystemClock;
use corral_operator::config::Settings;
use corral_operator::rbac;
use corral_operator::run::{Parts, run};
use corral_tests::fake_api::FakeApi;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::pods::Sidecars;
use super::world::{World, policy_spec, pool_spec};

/// A world that only looks on, and an operator that works in it.
struct Scene {
    world: World,
    operator: JoinHandle<anyhow::Result<()>>,
}

fn start(api: &FakeApi, sidecars: &Sidecars, who: &str) -> JoinHandle<anyhow::Result<()>> {
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
    world.put_policy("broken", &serde_json::json!({"limits": 1}));
    sleep(Duration::from_secs(5)).await;
    // The same event again becomes a series, which is a patch.
    for round in 0..4 {
        world.put_policy("fair-use", &policy_spec(if round % 2 == 0 { "nowhere" } else { "chat" }, "60/m"));
        sleep(Duration::from_secs(5)).await;
    }
    operator.abort();
    let made: BTreeSet<(String, String, String)> =
        world.api.permissions().into_iter().map(|made| (made.group, made.resource, made.verb)).collect();
    let grants = rbac::POOLS.iter().chain(&rbac::OWN);
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

#[tokio::test(start_paused = true)]
async fn it_outlives_an_api_server_that_is_gone_for_minutes() {
    let Scene { world, .. } = scene().await;
    world.api.faults(|faults| faults.down(true));
    sleep(Duration::from_secs(5)).await;
    world.api.faults(|faults| faults.down(false));
    world.api.store(|store| {
        store.close_watches();
        store.compact();
    });
    world.put_policy("fair-use", &policy_spec("chat", "7/m"));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(world.programmed("fair-use"), ("True".into(), "Programmed".into()));
    assert_eq!(world.sidecars.get("10.0.0.1").plan.unwrap().limits[0].requests.unwrap().count_milli, 7_000);
}
