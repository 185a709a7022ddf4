//! What is said of pools and policies: each reason where it belongs.

use corral_crds::condition::MAX_MESSAGE_BYTES;
use corral_tests::fake_api::store::Key;
use corral_wire::OffGpu;
use serde_json::json;

use super::world::{NS, World, policy_spec, pool_spec};

async fn settled() -> World {
    let mut world = World::new().await;
    world.put_pool("chat", &pool_spec(2));
    world.put_policy("fair-use", &policy_spec("chat", "60/m"));
    world.settle().await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_gpu_makes_the_pool_say_so_and_holds_no_rollout_up() {
    let mut world = settled().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "chat-9", "namespace": NS, "labels": {"corral.dev/pool": "chat"}},
        "spec": {"containers": []},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."}]}});
    world.api.put(&pod, "pods");
    world.settle().await;
    let (status, reason, message) = world.condition("ollamapools", "chat", "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InsufficientGPU"));
    assert!(message.contains("2 Insufficient nvidia.com/gpu"), "{message}");
    assert_eq!(world.deployment("chat").unwrap()["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 2);
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_else_is_left_alone() {
    let mut world = World::new().await;
    let theirs = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat", "namespace": NS},
        "spec": {"selector": {"app": "theirs"}}});
    let before = world.api.put(&theirs, "services");
    world.put_pool("chat", &pool_spec(1));
    world.settle().await;
    let (status, reason, message) = world.condition("ollamapools", "chat", "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NameConflict"));
    let says = ["Service chat exists and belongs to nobody", "delete it if nothing needs it"];
    assert!(says.iter().all(|part| message.contains(part)), "{message}");
    assert_eq!(world.api.find("", "services", NS, "chat").unwrap(), before);
    assert!(world.deployment("chat").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_foreign_plan_secret_keeps_pods_from_starting() {
    let mut world = World::new().await;
    let theirs =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "chat-plan", "namespace": NS}});
    world.api.put(&theirs, "secrets");
    world.put_pool("chat", &pool_spec(1));
    world.settle().await;
    assert_eq!(world.ready("chat"), ("False".into(), "NameConflict".into()));
    assert!(world.deployment("chat").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_template_that_opens_a_way_is_refused_and_policies_go_on() {
    let mut world = settled().await;
    let mut spec = pool_spec(2);
    spec["podTemplate"] = json!({"spec": {"hostNetwork": true}});
    world.put_pool("chat", &spec);
    world.put_policy("fair-use", &policy_spec("chat", "120/m"));
    world.settle().await;
    let (status, reason, message) = world.condition("ollamapools", "chat", "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "TemplateInvalid"));
    assert!(message.contains("spec.hostNetwork is not allowed"), "{message}");
    assert_eq!(world.plan("chat").limits[0].requests.unwrap().count_milli, 120_000);
    assert!(world.deployment("chat").unwrap()["spec"]["template"]["spec"].get("hostNetwork").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_policy_without_its_pool_is_accepted_but_not_resolved() {
    let mut world = World::new().await;
    world.put_policy("fair-use", &policy_spec("nowhere", "60/m"));
    world.settle().await;
    let of = |kind: &str| world.condition("ratelimitpolicies", "fair-use", kind);
    assert_eq!(of("Accepted").0, "True");
    assert_eq!((of("ResolvedRefs").0, of("ResolvedRefs").1), ("False".into(), "TargetNotFound".into()));
    assert_eq!(of("Programmed").0, "False");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_goes_bad_keeps_its_last_limits_and_others_change_on() {
    let mut world = settled().await;
    world.put_policy("other", &policy_spec("chat", "10/s"));
    world.settle().await;
    let mut bad = policy_spec("chat", "60/m");
    bad["limits"][0]["match"] = json!({"models": ["no/such/a/model:x:y"]});
    world.put_policy("fair-use", &bad);
    world.put_policy("other", &policy_spec("chat", "20/s"));
    world.settle().await;
    let (status, reason, message) = world.condition("ratelimitpolicies", "fair-use", "Accepted");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Invalid"), "{message}");
    assert!(message.contains("spec.limits[0].match.models[0]"), "{message}");
    let limits = world.plan("chat").limits;
    let counts: Vec<u64> = limits.iter().map(|limit| limit.requests.unwrap().count_milli).collect();
    assert_eq!(counts, [60_000, 20_000]);
}

#[tokio::test(start_paused = true)]
async fn the_sequence_rises_only_with_the_content() {
    let mut world = settled().await;
    let first = world.plan("chat").sequence;
    world.put_pool("chat", &pool_spec(3));
    world.settle().await;
    assert_eq!((world.plan("chat").sequence, world.divisor("chat")), (first, 3));
    world.put_policy("fair-use", &policy_spec("chat", "61/m"));
    world.settle().await;
    assert_eq!(world.plan("chat").sequence, first + 1);
}

#[tokio::test(start_paused = true)]
async fn a_pool_says_which_pods_have_lost_their_ollama() {
    let mut world = settled().await;
    world.start_pod("chat", "chat-1", "10.0.0.1");
    world.settle().await;
    for word in ["OllamaDown", "Stalled", "BreakerOpen", "Overloaded", "ModelLoading"] {
        world.sidecars.change("10.0.0.1", |sidecar| sidecar.reason = word.to_owned());
        world.settle().await;
        let (status, reason, message) = world.condition("ollamapools", "chat", "Ready");
        assert_eq!((status.as_str(), reason.as_str()), ("False", word));
        assert!(message.contains("chat-1"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_says_what_a_pod_that_has_to_go_still_does() {
    let mut world = settled().await;
    world.start_pod("chat", "chat-1", "10.0.0.1");
    world.settle().await;
    world.sidecars.change("10.0.0.1", |sidecar| {
        sidecar.drain_left_ms = Some(142_000);
        sidecar.gauges.in_flight = 3;
    });
    world.settle().await;
    let (status, reason, message) = world.condition("ollamapools", "chat", "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "WaitingForDrain"));
    assert!(message.contains("chat-1: 3 requests, at most 1"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_gpus_says_which_model_runs_beside_them_and_when_it_does_no_more() {
    let mut world = settled().await;
    world.start_pod("chat", "chat-1", "10.0.0.1");
    world.settle().await;
    let fallback = |world: &World| world.condition("ollamapools", "chat", "GPUFallback");
    assert_eq!((fallback(&world).0.as_str(), fallback(&world).1.as_str()), ("False", "AllOnGPU"));
    world.sidecars.change("10.0.0.1", |sidecar| {
        sidecar.off_gpu = vec![OffGpu { model: "llama3:latest".to_owned(), gpu_percent: 40 }];
    });
    world.settle().await;
    let (status, reason, message) = fallback(&world);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "ModelOffGPU"));
    assert!(message.contains("40 % of llama3:latest is on the GPU of chat-1"), "{message}");
    let told = |world: &World| {
        let events =
            world.api.store(|store| store.all().map(|(_, object)| object.clone()).collect::<Vec<_>>());
        events.iter().filter(|event| event["kind"] == "Event" && event["reason"] == "ModelOffGPU").count()
    };
    assert_eq!(told(&world), 1);
    world.sidecars.change("10.0.0.1", |sidecar| sidecar.off_gpu.clear());
    world.settle().await;
    assert_eq!(fallback(&world).0, "False");
    let mut spec = pool_spec(2);
    spec["gpu"] = json!({"vendor": "none"});
    world.put_pool("chat", &spec);
    world.settle().await;
    let pool = world.api.find("corral.dev", "ollamapools", NS, "chat").unwrap();
    let conditions = pool["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|condition| condition["type"] != "GPUFallback"), "no GPU, no fallback");
}

#[tokio::test(start_paused = true)]
async fn the_status_states_the_bound_of_each_limit() {
    let mut world = settled().await;
    world.start_pod("chat", "chat-1", "10.0.0.1");
    world.start_pod("chat", "chat-2", "10.0.0.2");
    world.settle().await;
    let policy = world.api.find("corral.dev", "ratelimitpolicies", NS, "fair-use").unwrap();
    let bound = policy["status"]["limits"][0]["bound"].as_str().unwrap();
    assert!(bound.contains("70/min") && bound.contains("2 pods"), "{bound}");
    let pool = world.api.find("corral.dev", "ollamapools", NS, "chat").unwrap();
    let limit = &pool["status"]["effectiveLimits"][0];
    assert_eq!((limit["policy"].as_str(), limit["name"].as_str()), (Some("fair-use"), Some("per-client")));
    assert_eq!(pool["status"]["selector"], "corral.dev/pool=chat");
}

/// The most characters that the schema of a kind gives a text of the status.
fn most(kind: &str, pointer: &str) -> usize {
    let definitions = corral_crds::crd::all().unwrap();
    let of_kind = definitions.into_iter().find(|definition| definition.spec.names.kind == kind).unwrap();
    let schema = serde_json::to_value(&of_kind.spec.versions[0].schema).unwrap();
    let most = schema.pointer(&format!("/openAPIV3Schema/properties/status/properties/{pointer}/maxLength"));
    usize::try_from(most.unwrap().as_u64().unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_targets_of_a_policy_with_sixteen_long_names_fit_its_status() {
    let mut world = settled().await;
    let names: Vec<String> = (10..26).map(|place| format!("{place}{}", "n".repeat(251))).collect();
    let mut spec = policy_spec("chat", "60/m");
    spec["targetRefs"] = names.iter().map(|name| json!({"kind": "OllamaPool", "name": name})).collect();
    world.put_policy("wide", &spec);
    world.settle().await;
    let policy = world.api.find("corral.dev", "ratelimitpolicies", NS, "wide").unwrap();
    let targets = policy["status"]["targets"].as_str().unwrap();
    assert!(targets.chars().count() <= most("RateLimitPolicy", "targets"), "{targets}");
    assert!(targets.starts_with(&names[0]) && targets.ends_with(" +13"), "{targets}");
    assert_eq!(policy["status"]["ancestors"].as_array().unwrap().len(), 16);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_is_told_so_in_few_words_however_long_it_is() {
    let mut world = settled().await;
    world.put_pool("broken", &json!({"replicas": "many".repeat(20_000)}));
    world.settle().await;
    let (status, _, message) = world.condition("ollamapools", "broken", "Ready");
    assert_eq!(status, "False");
    assert!(message.contains("cannot be read") && message.len() <= MAX_MESSAGE_BYTES, "{}", message.len());
}

#[tokio::test(start_paused = true)]
async fn a_policy_made_anew_under_an_old_name_is_not_programmed_before_it_is_in_the_plan() {
    let mut world = settled().await;
    assert_eq!(world.programmed("fair-use").0, "True");
    world.api.store(|store| store.remove(&Key::new("corral.dev", "ratelimitpolicies", Some(NS), "fair-use")));
    world.put_policy("fair-use", &policy_spec("chat", "7/m"));
    assert!(world.pass_policies().await.is_empty());
    assert_eq!(world.programmed("fair-use"), ("False".into(), "Reconciling".into()));
    world.settle().await;
    assert_eq!(world.programmed("fair-use").0, "True");
    assert_eq!(world.plan("chat").limits[0].requests.unwrap().count_milli, 7_000);
}
