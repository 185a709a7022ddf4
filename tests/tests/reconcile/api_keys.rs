//! API keys: from the Secrets that a pool names to the plan of its pods, and away from it when they are revoked.

use std::collections::BTreeSet;
use std::time::Duration;

use corral_tests::fake_api::store::Store;
use corral_wire::{KeyDigester, PlanDoc};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::whole::start;
use super::world::{NS, World, policy_spec, pool_spec};

/// A change of a Secret reaches every pod within this.
const SOON: Duration = Duration::from_millis(1900);
const ALICE: &str = "alice-key-CANARY-1";
const BOB: &str = "bob-key-CANARY-1";

fn keyed(secrets: &[&str]) -> Value {
    let mut spec = pool_spec(1);
    let named: Vec<Value> = secrets.iter().map(|name| json!({"secretName": name})).collect();
    spec["identity"] = json!({"apiKeys": named});
    spec
}

async fn pass_with(secrets: &[&str]) -> World {
    let mut world = World::new().await;
    world.put_secret("team-keys", &[("alice", ALICE), ("bob", BOB)]);
    world.put_pool("chat", &keyed(secrets));
    world.put_policy("fair-use", &policy_spec("chat", "60/m"));
    world.settle().await;
    world
}

fn clients(plan: &PlanDoc) -> Vec<String> {
    plan.identity.api_keys.iter().map(|key| key.client.clone()).collect()
}

/// Whose a key is by a plan, as a pod looks it up.
fn owner(world: &World, doc: &PlanDoc, key: &str) -> Option<String> {
    let plan = corral_limiter::compile(doc).unwrap();
    let digesters: Vec<KeyDigester> = world.keys("chat").unwrap().digesters().collect();
    let digester = digesters.iter().find(|digester| Some(digester.id()) == plan.digest_key())?;
    plan.client_of(&digester.digest(key.as_bytes())).map(|client| client.name.clone())
}

fn resolved(world: &World) -> (String, String, String) {
    world.condition("ollamapools", "chat", "ResolvedRefs")
}

/// Everything that the operator has written down, but for the users' own Secrets.
fn written(world: &World) -> String {
    let writes = world.api.writes();
    writes.iter().map(|write| write.object.to_string()).collect::<Vec<_>>().concat()
}

#[tokio::test(start_paused = true)]
async fn the_plan_knows_whose_each_key_is_and_holds_none() {
    let world = pass_with(&["team-keys"]).await;
    let plan = world.plan("chat");
    assert_eq!(owner(&world, &plan, ALICE).as_deref(), Some("alice"));
    assert_eq!(owner(&world, &plan, BOB).as_deref(), Some("bob"));
    assert_eq!(owner(&world, &plan, "carol-key-1"), None);
    assert_eq!(resolved(&world), ("True".into(), "ResolvedRefs".into(), String::new()));
    let all = written(&world);
    assert!(!all.is_empty() && !all.contains("CANARY"));
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_keys_reads_and_says_nothing_of_them() {
    let world = pass_with(&[]).await;
    assert_eq!(resolved(&world).0, "");
    assert_eq!(world.plan("chat").identity.digest_key, None);
    assert!(!world.api.permissions().iter().any(|made| made.resource == "secrets" && made.verb == "watch"));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_missing_is_told_and_the_keys_of_the_others_count() {
    let world = pass_with(&["gone-keys", "team-keys"]).await;
    let (status, reason, message) = resolved(&world);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "SecretNotFound"));
    assert_eq!(message, "spec.identity.apiKeys[0]: there is no Secret gone-keys");
    assert_eq!(clients(&world.plan("chat")), ["alice", "bob"]);
    assert!(world.deployment("chat").is_some(), "the pool serves on");
    assert_eq!(world.condition("ratelimitpolicies", "fair-use", "Accepted").0, "True");
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_secret_that_goes_are_revoked_and_a_new_one_counts() {
    let mut world = pass_with(&["team-keys"]).await;
    world.remove("", "secrets", "team-keys");
    world.settle().await;
    assert!(clients(&world.plan("chat")).is_empty());
    assert_eq!(resolved(&world).1, "SecretNotFound");
    world.put_secret("team-keys", &[("carol", "carol-key-1")]);
    world.settle().await;
    assert_eq!(clients(&world.plan("chat")), ["carol"]);
    assert_eq!(resolved(&world).0, "True");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_key_is_told_by_the_names_of_secret_and_entry_alone() {
    let mut world = pass_with(&["team-keys"]).await;
    world.put_secret("team-keys", &[("alice", ALICE), ("bob", "bad CANARY key"), ("carol", ALICE)]);
    world.settle().await;
    let (status, reason, message) = resolved(&world);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidApiKeys"));
    assert!(message.contains("Secret team-keys, entry bob: an API key has 8 to 512"), "{message}");
    assert!(message.contains("entry carol: entry alice has the same API key"), "{message}");
    assert!(clients(&world.plan("chat")).is_empty(), "neither alice nor carol, for it may be either");
    assert!(!written(&world).contains("CANARY"));
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_tier_that_no_policy_has_are_told_and_have_none() {
    let mut world = pass_with(&["team-keys"]).await;
    let mut spec = keyed(&["team-keys"]);
    spec["identity"]["apiKeys"][0]["tier"] = json!("gold");
    world.put_pool("chat", &spec);
    world.settle().await;
    let (status, reason, message) = resolved(&world);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidApiKeys"));
    assert!(message.contains("no policy of the pool has a tier gold"), "{message}");
    let mut policy = policy_spec("chat", "60/m");
    policy["tiers"] = json!([{"name": "gold", "scale": "5"}]);
    world.put_policy("fair-use", &policy);
    world.settle().await;
    assert_eq!(world.plan("chat").identity.api_keys[0].tier.as_deref(), Some("gold"));
    assert_eq!(resolved(&world).0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_mistake_in_a_policy_keeps_its_limits_and_no_key_that_is_revoked() {
    let mut world = pass_with(&["team-keys"]).await;
    let before = world.plan("chat").limits;
    let mut faulty = policy_spec("chat", "60/m");
    faulty["limits"][0]["per"] = json!(["Header:x-team"]);
    world.put_policy("fair-use", &faulty);
    world.put_secret("team-keys", &[("bob", BOB)]);
    world.settle().await;
    let (accepted, _, message) = world.condition("ratelimitpolicies", "fair-use", "Accepted");
    assert_eq!(accepted, "False");
    assert!(message.contains("spec.limits[0].per[0]: the pool does not trust header x-team"), "{message}");
    assert_eq!(clients(&world.plan("chat")), ["bob"]);
    assert_eq!(world.plan("chat").limits, before);
}

/// Writes the pool's own keys, as one who rotates them does.
fn rotate(world: &World, keys: &[(&str, [u8; 32])]) {
    let mut secret: Secret = serde_json::from_value(world.secret("chat", "key").unwrap()).unwrap();
    let data = secret.data.get_or_insert_default();
    data.retain(|name, _| keys.iter().any(|(kept, _)| kept == name));
    for (name, key) in keys {
        data.entry((*name).to_owned()).or_insert_with(|| ByteString(key.to_vec()));
    }
    world.api.put(&serde_json::to_value(secret).unwrap(), "secrets");
}

#[tokio::test(start_paused = true)]
async fn while_the_pools_own_key_is_rotated_digests_are_made_with_the_one_that_every_pod_has() {
    let mut world = pass_with(&["team-keys"]).await;
    let before = world.plan("chat").identity;
    rotate(&world, &[("key-0001", [1; 32]), ("key-0002", [2; 32])]);
    world.settle().await;
    assert_eq!(world.plan("chat").identity, before, "a pod may not have the new one yet");
    rotate(&world, &[("key-0002", [2; 32])]);
    world.settle().await;
    let plan = world.plan("chat");
    assert_ne!(plan.identity.digest_key, before.digest_key);
    assert_eq!(owner(&world, &plan, ALICE).as_deref(), Some("alice"));
}

/// The operator as it runs, with a pod that enforces.
async fn running() -> World {
    let world = World::new().await;
    world.put_secret("team-keys", &[("alice", ALICE), ("bob", BOB)]);
    world.put_secret("other-keys", &[("eve", "eve-key-1")]);
    drop(start(&world.api, &world.sidecars, "whole"));
    world.put_pool("chat", &keyed(&["team-keys"]));
    world.put_policy("fair-use", &policy_spec("chat", "60/m"));
    sleep(Duration::from_secs(5)).await;
    world.start_pod("chat", "chat-1", "10.0.0.1");
    sleep(Duration::from_secs(20)).await;
    world
}

fn at_the_pod(world: &World) -> Vec<String> {
    clients(&world.sidecars.get("10.0.0.1").plan.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_secret_is_at_the_pods_within_two_seconds() {
    let world = running().await;
    assert_eq!(at_the_pod(&world), ["alice", "bob"]);
    world.put_secret("team-keys", &[("bob", BOB)]);
    sleep(SOON).await;
    assert_eq!(at_the_pod(&world), ["bob"]);
    world.put_secret("team-keys", &[("bob", BOB), ("carol", "carol-key-1")]);
    sleep(SOON).await;
    assert_eq!(at_the_pod(&world), ["bob", "carol"]);
    world.remove("", "secrets", "team-keys");
    sleep(SOON).await;
    assert!(at_the_pod(&world).is_empty());
    world.put_secret("team-keys", &[("dave", "dave-key-1")]);
    sleep(SOON).await;
    assert_eq!(at_the_pod(&world), ["dave"]);
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_watched_from_the_moment_that_a_pool_names_it() {
    let world = running().await;
    world.put_pool("chat", &keyed(&["team-keys", "late-keys"]));
    sleep(SOON).await;
    world.put_secret("late-keys", &[("zoe", "zoe-key-1")]);
    sleep(SOON).await;
    assert_eq!(at_the_pod(&world), ["alice", "bob", "zoe"]);
}

#[tokio::test(start_paused = true)]
async fn secrets_are_read_and_watched_by_name_and_never_listed() {
    let world = running().await;
    let made: Vec<_> =
        world.api.permissions().into_iter().filter(|made| made.resource == "secrets").collect();
    assert!(made.iter().any(|made| made.verb == "watch"));
    assert!(!made.iter().any(|made| made.verb == "list"));
    let calls = world
        .api
        .calls()
        .into_iter()
        .filter(|call| call.permission.resource == "secrets" && call.permission.verb != "create");
    let named: BTreeSet<Option<String>> = calls.map(|call| call.name).collect();
    let expected = ["chat-key", "chat-plan", "team-keys"].map(|name| Some(name.to_owned()));
    assert_eq!(named, expected.into(), "and no Secret that no pool names");
}

#[tokio::test(start_paused = true)]
async fn what_changed_while_the_watch_was_broken_is_seen_when_it_is_back() {
    let world = running().await;
    world.api.faults(|faults| faults.break_watches("secrets", 3));
    world.api.store(Store::close_watches);
    world.put_secret("team-keys", &[("bob", BOB)]);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(at_the_pod(&world), ["bob"]);
}

#[tokio::test(start_paused = true)]
async fn two_pools_that_share_a_secret_both_hear_of_it() {
    let world = running().await;
    world.put_pool("code", &keyed(&["team-keys"]));
    sleep(Duration::from_secs(5)).await;
    world.put_secret("team-keys", &[("bob", BOB)]);
    sleep(SOON).await;
    assert_eq!(
        (clients(&world.plan("chat")), clients(&world.plan("code"))),
        (vec!["bob".into()], vec!["bob".into()])
    );
    assert!(world.api.find("", "secrets", NS, "team-keys").is_some(), "it is only read");
}
