//! The exchange with scripted pods: permissions, D, terms, and when a policy is Programmed.

use std::collections::BTreeSet;
use std::time::Duration;

use corral_wire::{PoolRef, Position, Relief};
use tokio::time::sleep;

use super::world::{World, policy_spec, pool_spec};

pub(super) async fn with_pods(replicas: u32) -> World {
    let mut world = World::new().await;
    world.put_pool("chat", &pool_spec(replicas));
    world.put_policy("fair-use", &policy_spec("chat", "60/m"));
    world.settle().await;
    for pod in 1..=replicas {
        world.start_pod("chat", &format!("chat-{pod}"), &format!("10.0.0.{pod}"));
    }
    world.settle().await;
    world
}

#[tokio::test(start_paused = true)]
async fn every_pod_is_counted_and_told_to_serve() {
    let world = with_pods(3).await;
    for ip in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        let pod = world.sidecars.get(ip);
        assert!(pod.serves() && pod.divisor == 3, "{ip}: {pod:?}");
    }
    assert_eq!(world.divisor("chat"), 3);
}

#[tokio::test(start_paused = true)]
async fn at_no_time_do_more_pods_serve_than_share() {
    let mut world = with_pods(2).await;
    world.put_pool("chat", &pool_spec(4));
    world.start_pod("chat", "chat-3", "10.0.0.3");
    world.start_pod("chat", "chat-4", "10.0.0.4");
    for _ in 0..100 {
        world.pass().await;
        assert!(world.sidecars.shares() <= 1000, "{}", world.sidecars.shares());
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.sidecars.get("10.0.0.4").divisor, 4);
    assert!(world.sidecars.get("10.0.0.4").serves());
    world.end_pod("chat-1", "10.0.0.1");
    for _ in 0..50 {
        world.pass().await;
        assert!(world.sidecars.shares() <= 1000);
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.sidecars.get("10.0.0.2").divisor, 3);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_able_yet_halves_nobodys_limit() {
    let mut world = with_pods(1).await;
    world.start_pod("chat", "chat-2", "10.0.0.2");
    world.sidecars.change("10.0.0.2", |pod| pod.able = false);
    world.settle().await;
    assert_eq!(world.sidecars.get("10.0.0.1").divisor, 1);
    world.sidecars.change("10.0.0.2", |pod| pod.able = true);
    world.settle().await;
    assert_eq!(world.sidecars.get("10.0.0.1").divisor, 2);
    assert!(world.sidecars.get("10.0.0.2").serves());
}

#[tokio::test(start_paused = true)]
async fn a_changed_policy_reaches_every_pod_well_within_two_seconds() {
    let mut world = with_pods(2).await;
    world.put_policy("fair-use", &policy_spec("chat", "7/m"));
    world.pass().await;
    sleep(Duration::from_millis(100)).await;
    for ip in ["10.0.0.1", "10.0.0.2"] {
        let plan = world.sidecars.get(ip).plan.unwrap();
        assert_eq!(plan.limits[0].requests.unwrap().count_milli, 7_000);
    }
    world.pass().await;
    assert_eq!(world.programmed("fair-use"), ("True".into(), "Programmed".into()));
}

#[tokio::test(start_paused = true)]
async fn programmed_is_never_true_before_the_last_pod_enforces_it() {
    let mut world = with_pods(2).await;
    world.sidecars.change("10.0.0.2", |pod| pod.silent = true);
    world.put_policy("fair-use", &policy_spec("chat", "7/m"));
    for _ in 0..40 {
        world.pass().await;
        assert_eq!(world.programmed("fair-use").0, "False");
        sleep(Duration::from_millis(500)).await;
    }
    let (_, reason, message) = world.condition("ratelimitpolicies", "fair-use", "Programmed");
    assert_eq!(reason, "PartiallyProgrammed");
    assert!(message.contains("1/2") && message.contains("chat-2"), "{message}");
    world.sidecars.change("10.0.0.2", |pod| pod.silent = false);
    world.settle().await;
    assert_eq!(world.programmed("fair-use"), ("True".into(), "Programmed".into()));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_without_the_plan_makes_programmed_false_until_it_has_it() {
    let mut world = with_pods(1).await;
    world.start_pod("chat", "chat-2", "10.0.0.2");
    world.pass().await;
    assert_eq!(world.programmed("fair-use"), ("False".into(), "Reconciling".into()));
    world.settle().await;
    assert_eq!(world.programmed("fair-use"), ("True".into(), "Programmed".into()));
}

#[tokio::test(start_paused = true)]
async fn without_pods_a_policy_is_programmed_for_want_of_any() {
    let mut world = with_pods(1).await;
    world.end_pod("chat-1", "10.0.0.1");
    world.settle().await;
    assert_eq!(world.programmed("fair-use"), ("True".into(), "NoPods".into()));
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_refuses_or_is_too_old_is_named() {
    let mut world = with_pods(1).await;
    world.sidecars.change("10.0.0.1", |pod| pod.refuses = Some("it does not compile".into()));
    world.put_policy("fair-use", &policy_spec("chat", "7/m"));
    world.settle().await;
    let (_, reason, message) = world.condition("ratelimitpolicies", "fair-use", "Programmed");
    assert_eq!(reason, "PlanRefused");
    assert!(message.contains("it does not compile"), "{message}");
    world.sidecars.change("10.0.0.1", |pod| pod.versions = vec![0]);
    world.settle().await;
    assert_eq!(world.programmed("fair-use").1, "SidecarTooOld");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_obeyed_a_higher_term_is_caught_up_with() {
    let mut world = with_pods(1).await;
    world.sidecars.change("10.0.0.1", |pod| pod.obeyed = Position { term: 40, sequence: 7 });
    world.put_policy("fair-use", &policy_spec("chat", "7/m"));
    world.settle().await;
    let pod = world.sidecars.get("10.0.0.1");
    assert_eq!(pod.obeyed.term, 41);
    assert_eq!(pod.plan.unwrap().limits[0].requests.unwrap().count_milli, 7_000);
    assert_eq!(world.programmed("fair-use"), ("True".into(), "Programmed".into()));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_holds_a_later_plan_is_overtaken() {
    let mut world = with_pods(1).await;
    world.sidecars.change("10.0.0.1", |pod| pod.plan.as_mut().unwrap().sequence = 900);
    world.put_policy("fair-use", &policy_spec("chat", "7/m"));
    world.settle().await;
    assert_eq!(world.plan("chat").sequence, 901);
    assert_eq!(world.programmed("fair-use"), ("True".into(), "Programmed".into()));
}

#[tokio::test(start_paused = true)]
async fn a_pod_at_a_reused_address_is_not_believed() {
    let mut world = with_pods(1).await;
    world.sidecars.change("10.0.0.1", |pod| pod.uid = "another".into());
    world.put_policy("fair-use", &policy_spec("chat", "7/m"));
    world.settle().await;
    assert_eq!(world.programmed("fair-use").1, "PartiallyProgrammed");
    assert_eq!(world.sidecars.get("10.0.0.1").plan.unwrap().limits[0].requests.unwrap().count_milli, 60_000);
}

#[tokio::test(start_paused = true)]
async fn an_order_to_retire_is_news_at_once_and_so_is_its_end() {
    let mut world = with_pods(3).await;
    let pool = PoolRef { namespace: "llm".into(), name: "chat".into() };
    let victim = world.sidecars.get("10.0.0.2").uid;
    let mut stirs = world.ctx.exchange.stirs();
    world.ctx.exchange.retire(&pool, BTreeSet::from([victim.clone()]));
    sleep(Duration::from_millis(50)).await;
    let retiring =
        |world: &World| ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| world.sidecars.get(ip).retiring);
    assert_eq!(retiring(&world), [false, true, false]);
    assert_eq!(stirs.try_recv().unwrap(), pool, "that it obeys is worth a look");
    let heard = world.ctx.exchange.heard(&pool);
    let says = heard.iter().find(|(uid, _)| *uid == victim).map(|(_, heard)| (heard.retiring, heard.ready));
    assert_eq!(says, Some((true, false)));
    world.pass().await;
    assert!(world.sidecars.get("10.0.0.2").serves() && world.sidecars.get("10.0.0.1").divisor == 3);
    world.ctx.exchange.retire(&pool, BTreeSet::new());
    sleep(Duration::from_millis(50)).await;
    assert_eq!(retiring(&world), [false; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_told_to_go_leaves_no_room_for_one_that_is_out_for_its_load() {
    let mut world = with_pods(3).await;
    for pod in 1..=3 {
        world.call_ready(&format!("chat-{pod}"), true);
    }
    world.settle().await;
    let pool = PoolRef { namespace: "llm".into(), name: "chat".into() };
    let victim = world.sidecars.get("10.0.0.2").uid;
    world.ctx.exchange.retire(&pool, BTreeSet::from([victim]));
    world.sidecars.change("10.0.0.1", |pod| pod.relief = Relief::Wanted);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.sidecars.get("10.0.0.1").relief, Relief::Wanted);
    world.ctx.exchange.retire(&pool, BTreeSet::new());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.sidecars.get("10.0.0.1").relief, Relief::Taken);
}
