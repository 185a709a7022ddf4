//! Priorities and weights on their way from policies to pods, and what each policy says of its own.

use corral_wire::{CostModel, PriorityDoc};
use serde_json::{Value, json};

use super::world::{NS, World, policy_spec, pool_spec};

fn urgent(tiers: Value, endpoints: Value) -> Value {
    let mut spec = policy_spec("chat", "60/m");
    spec["tiers"] = tiers;
    spec["endpointPriorities"] = endpoints;
    spec
}

fn priorities(world: &World, policy: &str) -> Value {
    world.api.find("corral.dev", "ratelimitpolicies", NS, policy).unwrap()["status"]["priorities"].clone()
}

#[tokio::test(start_paused = true)]
async fn what_a_pool_and_a_policy_say_of_priorities_is_in_the_plan_and_in_the_status() {
    let mut world = World::new().await;
    let mut pool = pool_spec(1);
    pool["identity"] = json!({"priorityHeader": "x-priority"});
    pool["capacity"] =
        json!({"queue": {"maxDepthPerClient": 7, "batchMaxWaitSeconds": 900, "costModel": "Tokens"}});
    world.put_pool("chat", &pool);
    let tiers =
        json!([{"name": "premium", "weight": 5, "priority": "high"}, {"name": "batch", "priority": "low"}]);
    world.put_policy("bots", &urgent(tiers, json!([{"endpoint": "Embed", "priority": "low"}])));
    world.settle().await;
    let plan = world.plan("chat");
    assert_eq!(plan.identity.priority_header.as_deref(), Some("x-priority"));
    let queue = plan.queue;
    assert_eq!(
        (queue.batch_max_wait_ms, queue.max_depth_per_client, queue.cost_model),
        (900_000, Some(7), CostModel::Tokens)
    );
    let premium = plan.tiers.iter().find(|tier| tier.name == "premium").unwrap();
    assert_eq!((premium.weight, premium.priority), (5, Some(PriorityDoc::High)));
    assert_eq!(priorities(&world, "bots"), "batch=low,premium=high,Embed=low");
}

#[tokio::test(start_paused = true)]
async fn a_policy_whose_priorities_another_decides_says_whose_and_gets_them_back() {
    let mut world = World::new().await;
    world.put_pool("chat", &pool_spec(1));
    let embed = |priority: &str| json!([{"endpoint": "Embed", "priority": priority}]);
    world.put_policy("bots", &urgent(json!([]), embed("low")));
    let mut over = urgent(json!([]), embed("high"));
    over["precedence"] = json!("Override");
    over["limits"][0]["name"] = json!("another");
    world.put_policy("ops", &over);
    world.settle().await;
    world.start_pod("chat", "chat-1", "10.0.0.1");
    world.settle().await;
    assert_eq!((priorities(&world, "ops"), priorities(&world, "bots")), (json!("Embed=high"), Value::Null));
    let (programmed, _, message) = world.condition("ratelimitpolicies", "bots", "Programmed");
    assert_eq!(programmed, "True");
    assert_eq!(message, "1/1 pods enforce it; endpoint Embed is as policy llm/ops says");
    world.remove("corral.dev", "ratelimitpolicies", "ops");
    world.settle().await;
    assert_eq!(priorities(&world, "bots"), "Embed=low");
}

#[tokio::test(start_paused = true)]
async fn a_mistake_keeps_the_last_priorities_and_shadow_has_none() {
    let mut world = World::new().await;
    world.put_pool("chat", &pool_spec(1));
    let good =
        urgent(json!([{"name": "gold", "weight": 3}]), json!([{"endpoint": "Chat", "priority": "high"}]));
    world.put_policy("bots", &good);
    world.settle().await;
    let before = world.plan("chat");
    let mut faulty = urgent(json!([]), json!([]));
    faulty["limits"][0]["requests"] = json!("60/32d");
    world.put_policy("bots", &faulty);
    world.settle().await;
    assert_eq!(world.condition("ratelimitpolicies", "bots", "Accepted").0, "False");
    assert_eq!(world.plan("chat"), before);
    assert_eq!(priorities(&world, "bots"), "Chat=high");
    let mut shadow = good;
    shadow["mode"] = json!("Shadow");
    world.put_policy("bots", &shadow);
    world.settle().await;
    assert!(world.plan("chat").endpoint_priorities.is_empty());
    assert_eq!(priorities(&world, "bots"), Value::Null);
}
