//! More policies than one plan has room for: who is left out is told, and everybody else goes on.

use serde_json::{Value, json};

use super::world::{NS, World, policy_spec, pool_spec};

/// A policy with so many limits, each of so many models with long names.
fn policy(limits: usize, models: usize) -> Value {
    let models: Vec<String> =
        (0..models).map(|place| format!("{}/team/model-{place}", "h".repeat(340))).collect();
    let limit = |place: usize| {
        let name = format!("limit-{place}");
        json!({"name": name, "per": ["Client"], "requests": "60/m", "match": {"models": models}})
    };
    json!({"targetRefs": [{"kind": "OllamaPool", "name": "chat"}],
        "limits": (0..limits).map(limit).collect::<Vec<_>>()})
}

/// A pool with a pod, and eight policies that fill its plan.
async fn full() -> World {
    let mut world = World::new().await;
    world.put_pool("chat", &pool_spec(1));
    for place in 1..=8 {
        world.put_policy(&format!("p{place}"), &policy(32, 0));
    }
    world.settle().await;
    world.start_pod("chat", "chat-1", "10.0.0.1");
    world.settle().await;
    world
}

fn accepted(world: &World, policy: &str) -> (String, String) {
    let (status, reason, _) = world.condition("ratelimitpolicies", policy, "Accepted");
    (status, reason)
}

/// The limits of a policy that the pod enforces.
fn enforced(world: &World, policy: &str) -> usize {
    let plan = world.sidecars.get("10.0.0.1").plan.unwrap();
    plan.limits.iter().filter(|limit| limit.policy == format!("{NS}/{policy}")).count()
}

fn yes(reason: &str) -> (String, String) {
    ("True".to_owned(), reason.to_owned())
}

fn no(reason: &str) -> (String, String) {
    ("False".to_owned(), reason.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_ninth_policy_of_32_limits_is_told_that_there_is_no_room_and_so_is_the_pool() {
    let mut world = full().await;
    world.put_policy("p9", &policy(32, 0));
    world.settle().await;
    assert_eq!((accepted(&world, "p9"), world.programmed("p9")), (no("PlanTooLarge"), no("PlanTooLarge")));
    let (_, _, why) = world.condition("ratelimitpolicies", "p9", "Accepted");
    assert!(why.contains("at most 256 limits") && why.ends_with("288"), "{why}");
    let (_, _, said) = world.condition("ollamapools", "chat", "Ready");
    assert!(said.contains("the plan has no room for p9"), "{said}");
    for place in 1..=8 {
        let name = format!("p{place}");
        assert_eq!((accepted(&world, &name), world.programmed(&name)), (yes("Accepted"), yes("Programmed")));
        assert_eq!(enforced(&world, &name), 32);
    }
    assert_eq!(enforced(&world, "p9"), 0);
}

#[tokio::test(start_paused = true)]
async fn nine_policies_at_once_are_taken_until_the_plan_is_full() {
    let mut world = World::new().await;
    world.put_pool("chat", &pool_spec(1));
    for place in 1..=9 {
        world.put_policy(&format!("p{place}"), &policy(32, 0));
    }
    world.settle().await;
    assert_eq!(world.plan("chat").limits.len(), 256);
    assert!(world.deployment("chat").is_some(), "the pool runs");
    let taken: Vec<bool> = (1..=9).map(|p| accepted(&world, &format!("p{p}")) == yes("Accepted")).collect();
    assert_eq!(taken, [true, true, true, true, true, true, true, true, false]);
    assert_eq!(world.programmed("p9"), no("PlanTooLarge"));
}

#[tokio::test(start_paused = true)]
async fn a_full_plan_holds_nobodys_change_up_and_room_that_comes_free_is_given_out() {
    let mut world = full().await;
    world.put_policy("p9", &policy(32, 0));
    world.put_policy("p1", &policy_spec("chat", "7/m"));
    world.settle().await;
    assert_eq!(world.programmed("p1"), yes("Programmed"));
    assert_eq!((enforced(&world, "p1"), enforced(&world, "p9")), (1, 0), "31 limits of room are not 32");
    world.put_policy("p2", &policy(31, 0));
    world.settle().await;
    assert_eq!((accepted(&world, "p9"), world.programmed("p9")), (yes("Accepted"), yes("Programmed")));
    assert_eq!(enforced(&world, "p9"), 32);
    let (_, _, said) = world.condition("ollamapools", "chat", "Ready");
    assert!(!said.contains("no room"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_outgrows_the_room_keeps_what_it_had_and_takes_nothing_from_others() {
    let mut world = full().await;
    world.put_policy("p1", &policy(1, 0));
    world.put_policy("q", &policy(31, 0));
    world.settle().await;
    world.put_policy("p1", &policy(32, 0));
    world.settle().await;
    assert_eq!((accepted(&world, "p1"), world.programmed("p1")), (no("PlanTooLarge"), no("PlanTooLarge")));
    assert_eq!((enforced(&world, "p1"), enforced(&world, "q")), (1, 31));
    let (_, _, why) = world.condition("ratelimitpolicies", "p1", "Accepted");
    assert!(why.contains("1 limits of its last accepted form stay in force"), "{why}");
    let policy = world.api.find("corral.dev", "ratelimitpolicies", NS, "p1").unwrap();
    assert_eq!(policy["status"]["limits"][0]["state"], "Stale");
}

#[tokio::test(start_paused = true)]
async fn a_policy_with_which_the_plan_would_fit_no_secret_is_told_so_and_stops_no_other() {
    let mut world = World::new().await;
    world.put_pool("chat", &pool_spec(1));
    world.put_policy("big", &policy(32, 64));
    world.put_policy("big-too", &policy(32, 64));
    world.put_policy("small", &policy(1, 1));
    world.settle().await;
    assert_eq!(
        (accepted(&world, "big-too"), world.programmed("big-too")),
        (no("PlanTooLarge"), no("PlanTooLarge"))
    );
    let (_, _, why) = world.condition("ratelimitpolicies", "big-too", "Accepted");
    assert!(why.contains("900 KiB"), "{why}");
    assert_eq!((accepted(&world, "big"), accepted(&world, "small")), (yes("Accepted"), yes("Accepted")));
    assert_eq!(world.plan("chat").limits.len(), 33);
}
