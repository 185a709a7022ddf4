//! Policies that select pools, override each other and give way: what each of them says of itself.

use serde_json::{Value, json};

use super::world::{NS, World, policy_spec, pool_spec};

fn selecting(labels: &Value) -> Value {
    let mut spec = policy_spec("chat", "60/m");
    spec.as_object_mut().unwrap().remove("targetRefs");
    spec["targetSelector"] = json!({"matchLabels": labels});
    spec
}

fn with(mut spec: Value, field: &str, value: Value) -> Value {
    spec[field] = value;
    spec
}

fn limits(world: &World, pool: &str) -> Vec<String> {
    world.plan(pool).limits.into_iter().map(|limit| limit.policy).collect()
}

fn status(world: &World, policy: &str) -> Value {
    world.api.find("corral.dev", "ratelimitpolicies", NS, policy).unwrap()["status"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_selects_no_pool_is_accepted_and_says_what_it_looked_for() {
    let mut world = World::new().await;
    world.put_policy("big", &selecting(&json!({"size": "big"})));
    world.settle().await;
    let of = |kind: &str| world.condition("ratelimitpolicies", "big", kind);
    assert_eq!((of("Accepted").0.as_str(), of("Accepted").1.as_str()), ("True", "Accepted"));
    let (resolved, reason, message) = of("ResolvedRefs");
    assert_eq!((resolved.as_str(), reason.as_str()), ("False", "TargetNotFound"));
    assert_eq!(message, "targetSelector selects no OllamaPool of its namespace: size=big");
    assert_eq!((of("Programmed").0.as_str(), of("Programmed").1.as_str()), ("False", "TargetNotFound"));
}

#[tokio::test(start_paused = true)]
async fn pools_come_and_go_with_their_labels() {
    let mut world = World::new().await;
    world.put_policy("big", &selecting(&json!({"size": "big"})));
    world.put_labelled_pool("chat", &json!({"size": "big"}), &pool_spec(1));
    world.put_labelled_pool("code", &json!({"size": "small"}), &pool_spec(1));
    world.settle().await;
    assert_eq!((limits(&world, "chat"), limits(&world, "code")), (vec!["llm/big".to_owned()], vec![]));
    let ancestors = status(&world, "big")["ancestors"].clone();
    assert_eq!(ancestors.as_array().unwrap().len(), 1);
    assert_eq!(ancestors[0]["ancestorRef"]["name"], "chat");
    assert_eq!(status(&world, "big")["targets"], "size=big");
    world.put_labelled_pool("chat", &json!({}), &pool_spec(1));
    world.put_labelled_pool("code", &json!({"size": "big"}), &pool_spec(1));
    world.settle().await;
    assert_eq!((limits(&world, "chat"), limits(&world, "code")), (vec![], vec!["llm/big".to_owned()]));
    assert_eq!(status(&world, "big")["ancestors"][0]["ancestorRef"]["name"], "code");
}

#[tokio::test(start_paused = true)]
async fn an_overridden_limit_says_by_whom_and_comes_back_when_that_policy_goes() {
    let mut world = World::new().await;
    world.put_pool("chat", &pool_spec(1));
    let two = json!([{"name": "per-client", "per": ["Client"], "requests": "60/m"},
        {"name": "all", "per": ["Global"], "concurrency": 9}]);
    world.put_policy("fair-use", &with(policy_spec("chat", "60/m"), "limits", two));
    world.put_policy("ops", &with(policy_spec("chat", "5/m"), "precedence", json!("Override")));
    world.settle().await;
    world.start_pod("chat", "chat-1", "10.0.0.1");
    world.settle().await;
    let (programmed, reason, message) = world.condition("ratelimitpolicies", "fair-use", "Programmed");
    assert_eq!((programmed.as_str(), reason.as_str()), ("True", "Programmed"));
    assert_eq!(message, "1/1 pods enforce it; limit per-client is overridden by that of policy llm/ops");
    let told = status(&world, "fair-use")["limits"].clone();
    assert_eq!((&told[0]["name"], &told[0]["state"]), (&json!("all"), &json!("Enforced")));
    assert_eq!((&told[1]["state"], &told[1]["by"]), (&json!("Overridden"), &json!("ops")));
    assert_eq!(told[1]["bound"], "not in force");
    world.remove("corral.dev", "ratelimitpolicies", "ops");
    world.settle().await;
    assert_eq!(status(&world, "fair-use")["limits"][1]["state"], "Enforced");
    assert_eq!(limits(&world, "chat").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_lost_all_its_limits_is_accepted_and_not_programmed() {
    let mut world = World::new().await;
    world.put_pool("chat", &pool_spec(1));
    world.put_policy("base", &with(policy_spec("chat", "60/m"), "precedence", json!("Default")));
    world.put_policy("team", &policy_spec("chat", "5/m"));
    world.settle().await;
    let (accepted, ..) = world.condition("ratelimitpolicies", "base", "Accepted");
    let (programmed, reason, message) = world.condition("ratelimitpolicies", "base", "Programmed");
    assert_eq!((accepted.as_str(), programmed.as_str(), reason.as_str()), ("True", "False", "Overridden"));
    assert_eq!(message, "limit per-client is a default and gives way to that of policy llm/team");
    assert_eq!(status(&world, "base")["limits"][0]["state"], "Replaced");
    assert_eq!(limits(&world, "chat"), ["llm/team"]);
    let pool = world.api.find("corral.dev", "ollamapools", NS, "chat").unwrap();
    let effective = pool["status"]["effectiveLimits"].clone();
    assert_eq!(effective.as_array().unwrap().len(), 1);
    assert_eq!((&effective[0]["policy"], &effective[0]["name"]), (&json!("team"), &json!("per-client")));
    assert!(effective[0]["summary"].as_str().unwrap().contains("min"), "{effective}");
}

#[tokio::test(start_paused = true)]
async fn beyond_sixteen_pools_a_status_says_that_it_is_not_whole() {
    let mut world = World::new().await;
    for place in 0..18 {
        world.put_labelled_pool(&format!("p{place:02}"), &json!({"size": "big"}), &pool_spec(0));
    }
    world.put_policy("big", &selecting(&json!({"size": "big"})));
    world.settle().await;
    assert_eq!(status(&world, "big")["ancestors"].as_array().unwrap().len(), 16);
    let (truncated, reason, message) = world.condition("ratelimitpolicies", "big", "AncestorsTruncated");
    assert_eq!((truncated.as_str(), reason.as_str()), ("True", "TooManyAncestors"));
    assert_eq!(message, "it has 18 pools, and room for 16 of them here; not listed: p16, p17");
    assert_eq!(limits(&world, "p17"), ["llm/big"], "they are enforced as the others");
}
