//! Node drains: how many pods they may take, and that nothing which cannot run holds them up.

use std::time::Duration;

use corral_tests::fake_api::store::Key;
use serde_json::{Value, json};

use super::world::{NS, World, pool_spec};

async fn settled(spec: &Value) -> World {
    let mut world = World::new().await;
    world.put_pool("chat", spec);
    world.settle().await;
    world
}

fn budget(world: &World) -> Value {
    world.api.find("policy", "poddisruptionbudgets", NS, "chat").unwrap()
}

fn unschedulable_pod(world: &World, name: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NS, "labels": {"corral.dev/pool": "chat"}},
        "spec": {"containers": []},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."}]}});
    world.api.put(&pod, "pods");
}

fn placed_pod(world: &World, name: &str, terminating: bool) {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NS, "labels": {"corral.dev/pool": "chat"}},
        "spec": {"containers": [], "nodeName": "n1"}, "status": {"phase": "Running"}});
    if terminating {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    world.api.put(&pod, "pods");
}

fn remove_pod(world: &World, name: &str) {
    world.api.store(|store| store.remove(&Key::new("", "pods", Some(NS), name)));
}

/// What a rollout and what a drain may take.
fn allowed(world: &World) -> (Value, Value) {
    let deployment = world.deployment("chat").unwrap();
    let rollout = deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"].clone();
    (rollout, budget(world)["spec"]["maxUnavailable"].clone())
}

/// Looks once a second for so many seconds.
async fn pass_for(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.pass().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.pass().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_as_many_pods_as_a_rollout_and_always_one_that_does_not_serve() {
    let world = settled(&pool_spec(4)).await;
    let budget = budget(&world);
    let pool = world.api.find("corral.dev", "ollamapools", NS, "chat").unwrap();
    assert_eq!(budget["metadata"]["ownerReferences"][0]["uid"], pool["metadata"]["uid"]);
    assert_eq!(
        budget["spec"],
        json!({"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {"corral.dev/pool": "chat"}}})
    );
}

#[tokio::test(start_paused = true)]
async fn pods_that_no_node_has_room_for_hold_neither_drain_nor_rollout_up() {
    let mut world = settled(&pool_spec(4)).await;
    unschedulable_pod(&world, "chat-8");
    unschedulable_pod(&world, "chat-9");
    world.settle().await;
    assert_eq!(allowed(&world), (json!(3), json!(3)));
    for name in ["chat-8", "chat-9"] {
        remove_pod(&world, name);
    }
    for name in ["chat-0", "chat-1", "chat-2", "chat-3"] {
        placed_pod(&world, name, false);
    }
    world.settle().await;
    assert_eq!(allowed(&world), (json!(1), json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_that_waits_for_an_old_ones_gpu_costs_no_other_old_one() {
    let mut world = settled(&pool_spec(3)).await;
    for name in ["old-0", "old-1", "old-2"] {
        placed_pod(&world, name, false);
    }
    pass_for(&mut world, 20).await;
    placed_pod(&world, "old-0", true);
    unschedulable_pod(&world, "new-0");
    pass_for(&mut world, 300).await;
    assert_eq!(allowed(&world), (json!(1), json!(1)), "the old one takes its time");
    remove_pod(&world, "old-0");
    pass_for(&mut world, 10).await;
    assert_eq!(allowed(&world), (json!(1), json!(1)), "the scheduler takes its time");
    pass_for(&mut world, 10).await;
    assert_eq!(allowed(&world), (json!(2), json!(2)), "the GPU is somebody else's now");
    placed_pod(&world, "new-0", false);
    pass_for(&mut world, 1).await;
    assert_eq!(allowed(&world), (json!(1), json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_room_allows_one_more_all_through_a_rollout() {
    let mut world = settled(&pool_spec(3)).await;
    placed_pod(&world, "old-0", false);
    placed_pod(&world, "old-1", false);
    unschedulable_pod(&world, "old-2");
    pass_for(&mut world, 20).await;
    assert_eq!(allowed(&world), (json!(2), json!(2)));
    remove_pod(&world, "old-2");
    pass_for(&mut world, 1).await;
    unschedulable_pod(&world, "new-0");
    placed_pod(&world, "old-0", true);
    unschedulable_pod(&world, "new-1");
    pass_for(&mut world, 1).await;
    assert_eq!(allowed(&world), (json!(2), json!(2)), "an old one goes");
    remove_pod(&world, "old-0");
    pass_for(&mut world, 5).await;
    assert_eq!(allowed(&world), (json!(2), json!(2)), "it has gone");
    placed_pod(&world, "new-0", false);
    pass_for(&mut world, 1).await;
    assert_eq!(allowed(&world), (json!(2), json!(2)), "a new one has its GPU");
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_never_nothing_and_never_more_than_the_pool() {
    for (replicas, allowed, budgeted) in
        [(5, json!("25%"), 2), (2, json!("10%"), 1), (3, json!(0), 1), (2, json!(7), 2), (0, json!(1), 1)]
    {
        let mut spec = pool_spec(replicas);
        spec["rollout"] = json!({"maxUnavailable": allowed, "maxSurge": 1});
        let world = settled(&spec).await;
        assert_eq!(budget(&world)["spec"]["maxUnavailable"], budgeted, "{allowed} of {replicas}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_somebody_else_is_left_alone_and_the_pods_run() {
    let mut world = World::new().await;
    let theirs = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "chat", "namespace": NS}, "spec": {"maxUnavailable": 2}});
    let before = world.api.put(&theirs, "poddisruptionbudgets");
    world.put_pool("chat", &pool_spec(2));
    world.settle().await;
    assert_eq!(budget(&world), before);
    assert_eq!(world.ready("chat"), ("False".into(), "NameConflict".into()));
    assert!(world.deployment("chat").is_some());
}
