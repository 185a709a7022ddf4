//! Bad input that reaches the operator: what no schema says, and what an API server of an older schema has let through.

use serde_json::{Value, json};

use super::world::{World, policy_spec, pool_spec};

fn per_client(fields: &Value) -> Value {
    let mut limit = json!({"name": "per-client", "per": ["Client"]});
    limit.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    limit
}

fn one(fields: &Value) -> Value {
    json!({"limits": [per_client(fields)]})
}

fn tiered(fields: &Value) -> Value {
    json!({"tiers": [{"name": "pro", "scale": "1000"}], "limits": [per_client(fields)]})
}

/// Puts each in place of a good policy, and says of which it is not told so, or which changed the plan.
async fn missed(cases: Vec<(Value, &str)>) -> Vec<String> {
    let mut world = World::new().await;
    world.put_pool("chat", &pool_spec(2));
    world.put_policy("fair-use", &policy_spec("chat", "60/m"));
    world.settle().await;
    let before = world.plan("chat");
    let mut missed = Vec::new();
    for (change, told) in cases {
        let mut spec = policy_spec("chat", "60/m");
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        world.put_policy("fair-use", &spec);
        world.settle().await;
        let (status, reason, message) = world.condition("ratelimitpolicies", "fair-use", "Accepted");
        let is_refused = (status.as_str(), reason.as_str()) == ("False", "Invalid");
        let is_told = message.contains(told) && message.contains("of its last accepted form stay in force");
        if !is_refused || !is_told || world.plan("chat") != before {
            missed.push(format!("{told}, but {status} {reason}: {message}"));
        }
    }
    missed
}

#[tokio::test(start_paused = true)]
async fn numbers_that_mean_nothing_are_not_accepted_are_told_by_their_field_and_leave_the_plan() {
    let nine = |more: Value| {
        let mut limit = json!({"requests": "9/m"});
        limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        one(&limit)
    };
    let cases = vec![
        (one(&json!({"requests": "0/m"})), "spec.limits[0].requests: this is no rate"),
        (one(&json!({"concurrency": 0})), "spec.limits[0].concurrency: should be greater than or equal to 1"),
        (nine(json!({"burst": {"requests": 0}})), "spec.limits[0].burst.requests: should be greater"),
        (
            nine(json!({"burst": {"requests": 2_000_000_000}})),
            "spec.limits[0].burst.requests: should be less",
        ),
        (
            one(&json!({"tokens": "999999999G/s"})),
            "spec.limits[0].tokens: the rate is above 1,000,000,000 per",
        ),
        (one(&json!({"tokens": "2G/h"})), "spec.limits[0].tokens: its burst would be 2000000000"),
        (
            tiered(&json!({"requests": "10M/s"})),
            "spec.limits[0].requests: is above a thousand million a second",
        ),
        (
            tiered(&json!({"requests": "100/h", "algorithm": "SlidingLog"})),
            "spec.limits[0].requests: a SlidingLog notes at most 10000",
        ),
        (one(&json!({"requests": "60/32d"})), "spec.limits[0].requests: the window is longer than 31 days"),
    ];
    let missed = missed(cases).await;
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn names_that_are_not_there_or_there_twice_are_not_accepted_and_leave_the_plan() {
    let nine = json!({"requests": "9/m"});
    let twice = json!({"limits": [per_client(&nine), per_client(&nine)]});
    let zone = json!({"requests": "9/d", "algorithm": "FixedWindow", "timeZone": "Europe/Atlantis"});
    let header = json!({"requests": "9/m", "per": ["Header:x-team"]});
    let model = json!({"requests": "9/m", "match": {"models": ["a b*"]}});
    let cases = vec![
        (twice, "spec.limits[1]: Duplicate value"),
        (
            tiered(&json!({"requests": "9/m", "match": {"tiers": ["gold"]}})),
            "spec.limits: match.tiers names tiers of this policy",
        ),
        (json!({"defaultTier": "gold"}), "spec.defaultTier: defaultTier is a tier of this policy"),
        (one(&zone), "spec.limits[0].timeZone: "),
        (one(&header), "spec.limits[0].per[0]: the pool does not trust header x-team"),
        (one(&model), "spec.limits[0].match.models[0]: "),
    ];
    let missed = missed(cases).await;
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
