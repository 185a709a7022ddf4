//! Only what a user changes, or asks for, changes pods: an operator that would make them otherwise waits.

use corral_operator::pool::revision::inputs::RevisionId;
use corral_operator::pool::validate::ValidPool;
use corral_tests::fake_api::store::Key;
use serde_json::{Value, json};

use super::world::{NS, World, pool_of, pool_spec};

async fn settled() -> World {
    let mut world = World::new().await;
    world.put_pool("chat", &pool_spec(2));
    world.settle().await;
    world
}

/// A world whose operator was replaced by one with another sidecar.
async fn upgraded() -> World {
    let mut world = settled().await;
    world.upgrade("corral/sidecar:2");
    world.settle().await;
    world
}

fn revisions(world: &World) -> Vec<Value> {
    let mut all: Vec<Value> = world.api.store(|store| {
        let found = store.all().filter(|(key, _)| key.plural == "controllerrevisions");
        found.map(|(_, object)| object.clone()).collect()
    });
    all.sort_by_key(|revision| revision["revision"].as_i64());
    all
}

fn forget_revisions(world: &World) {
    for revision in revisions(world) {
        let name = revision["metadata"]["name"].as_str().unwrap();
        world.api.store(|store| store.remove(&Key::new("apps", "controllerrevisions", Some(NS), name)));
    }
}

fn annotate(world: &World, update: &str) {
    let mut pool = world.api.find("corral.dev", "ollamapools", NS, "chat").unwrap();
    pool["metadata"]["annotations"]["corral.dev/update"] = json!(update);
    world.api.put(&pool, "ollamapools");
}

fn template(world: &World) -> Value {
    world.deployment("chat").unwrap()["spec"]["template"].clone()
}

fn sidecar_image(world: &World) -> String {
    template(world)["spec"]["initContainers"][0]["image"].as_str().unwrap().to_owned()
}

fn available(world: &World) -> (String, String, String) {
    world.condition("ollamapools", "chat", "UpdateAvailable")
}

fn available_is(world: &World, status: &str, reason: &str) {
    let (held, why, message) = available(world);
    assert_eq!((held.as_str(), why.as_str()), (status, reason), "{message}");
}

#[tokio::test(start_paused = true)]
async fn the_template_of_a_pool_is_kept_once_and_is_the_pools() {
    let mut world = settled().await;
    let all = revisions(&world);
    let pool = world.api.find("corral.dev", "ollamapools", NS, "chat").unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["metadata"]["ownerReferences"][0]["uid"], pool["metadata"]["uid"]);
    assert_eq!(all[0]["data"]["template"], template(&world));
    let label = &world.deployment("chat").unwrap()["metadata"]["labels"]["corral.dev/revision"];
    assert_eq!(all[0]["metadata"]["name"], format!("chat-{}", label.as_str().unwrap()));
    available_is(&world, "False", "UpToDate");
    let before = world.writes();
    assert!(world.pass().await.is_empty());
    assert_eq!(world.writes(), before);
}

#[tokio::test(start_paused = true)]
async fn an_operator_with_another_builder_writes_nothing_to_the_pods_and_says_what_it_would_change() {
    let mut world = settled().await;
    let before = world.deployment("chat").unwrap();
    world.api.forget();
    world.upgrade("corral/sidecar:2");
    world.settle().await;
    assert_eq!(world.deployment("chat").unwrap(), before);
    let writes = world.api.writes();
    let told = writes.iter().filter(|write| !matches!(write.resource.as_str(), "leases" | "events"));
    assert_eq!(told.map(|write| write.resource.as_str()).collect::<Vec<_>>(), ["ollamapools/status"]);
    available_is(&world, "True", "UpdateAvailable");
    let message = available(&world).2;
    assert!(message.contains("image of limiter (corral/sidecar:1 → corral/sidecar:2)"), "{message}");
    assert!(message.contains("ollamapool chat corral.dev/update="), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_template_that_an_older_builder_made_is_applied_as_it_is() {
    let mut world = settled().await;
    let mut revision = revisions(&world).remove(0);
    revision["data"]["template"]["spec"]["initContainers"][0]["args"] = json!(["--of-old"]);
    revision["data"]["template"]["spec"]["priorityClassName"] = json!("of-old");
    world.api.put(&revision, "controllerrevisions");
    world.settle().await;
    assert_eq!(template(&world), revision["data"]["template"]);
    available_is(&world, "True", "UpdateAvailable");
    let message = available(&world).2;
    let places = "spec.initContainers.limiter.args, spec.priorityClassName";
    assert!(message.contains(places), "{message}");
    let before = world.writes();
    assert!(world.pass().await.is_empty());
    assert_eq!(world.writes(), before);
}

#[tokio::test(start_paused = true)]
async fn the_annotation_brings_the_update_and_taking_it_away_takes_nothing_back() {
    let mut world = upgraded().await;
    annotate(&world, "now");
    world.settle().await;
    assert_eq!(sidecar_image(&world), "corral/sidecar:2");
    available_is(&world, "False", "UpToDate");
    let updated = world.deployment("chat").unwrap();
    world.put_pool("chat", &pool_spec(2));
    world.settle().await;
    assert_eq!(world.deployment("chat").unwrap(), updated);
    assert_eq!(revisions(&world).len(), 2);
    forget_revisions(&world);
    world.upgrade("corral/sidecar:3");
    world.settle().await;
    assert_eq!(world.deployment("chat").unwrap(), updated);
    annotate(&world, "and again");
    world.settle().await;
    assert_eq!(sidecar_image(&world), "corral/sidecar:3");
}

#[tokio::test(start_paused = true)]
async fn an_update_where_nothing_would_change_restarts_nothing() {
    let mut world = settled().await;
    let before = template(&world);
    annotate(&world, "now");
    world.settle().await;
    assert_eq!(template(&world), before);
    available_is(&world, "False", "UpToDate");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_part_of_the_template_goes_on_being_applied() {
    let mut world = upgraded().await;
    let before = template(&world);
    let mut spec = pool_spec(5);
    spec["rollout"] = json!({"maxUnavailable": 3});
    world.put_pool("chat", &spec);
    world.settle().await;
    let deployment = world.deployment("chat").unwrap();
    assert_eq!(deployment["spec"]["replicas"], 5);
    assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 3);
    assert_eq!(template(&world), before);
    assert_eq!(revisions(&world).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_spec_brings_the_update_and_its_undoing_brings_back_what_was() {
    let mut world = upgraded().await;
    let before = template(&world);
    let mut spec = pool_spec(2);
    spec["ollama"] = json!({"numParallel": 4});
    world.put_pool("chat", &spec);
    world.settle().await;
    assert_eq!(sidecar_image(&world), "corral/sidecar:2");
    available_is(&world, "False", "UpToDate");
    world.put_pool("chat", &pool_spec(2));
    world.settle().await;
    assert_eq!(template(&world), before);
    available_is(&world, "True", "UpdateAvailable");
}

#[tokio::test(start_paused = true)]
async fn drift_is_healed_from_the_revision_and_not_from_a_newer_builder() {
    let mut world = upgraded().await;
    let before = template(&world);
    let mut deployment = world.deployment("chat").unwrap();
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("evil");
    deployment["spec"]["template"]["spec"]["initContainers"][0]["image"] = json!("corral/sidecar:2");
    world.api.put(&deployment, "deployments");
    world.settle().await;
    assert_eq!(template(&world), before);
    world.api.store(|store| store.remove(&Key::new("apps", "deployments", Some(NS), "chat")));
    world.settle().await;
    assert_eq!(template(&world), before);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_deleted_by_hand_is_kept_anew_from_what_runs() {
    for image in ["corral/sidecar:1", "corral/sidecar:2"] {
        let mut world = settled().await;
        let (before, name) = (template(&world), revisions(&world)[0]["metadata"]["name"].clone());
        forget_revisions(&world);
        world.upgrade(image);
        world.settle().await;
        assert_eq!(template(&world), before, "{image}");
        let kept = revisions(&world);
        assert_eq!((kept.len(), &kept[0]["metadata"]["name"]), (1, &name), "{image}");
        assert_eq!(available(&world).0 == "True", image == "corral/sidecar:2");
        let writes = world.writes();
        assert!(world.pass().await.is_empty());
        assert_eq!(world.writes(), writes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_lost_its_label_is_found_by_its_name() {
    let mut world = settled().await;
    annotate(&world, "now");
    world.settle().await;
    world.put_pool("chat", &pool_spec(2));
    let mut last = revisions(&world).pop().unwrap();
    forget_revisions(&world);
    last["metadata"].as_object_mut().unwrap().remove("labels");
    world.api.put(&last, "controllerrevisions");
    let before = world.deployment("chat").unwrap();
    world.settle().await;
    assert_eq!((revisions(&world).len(), world.deployment("chat").unwrap()), (1, before));
}

#[tokio::test(start_paused = true)]
async fn old_revisions_go_and_those_of_others_stay() {
    let mut world = settled().await;
    let theirs = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 0,
        "metadata": {"name": "theirs", "namespace": NS, "labels": {"corral.dev/pool": "chat"}}});
    world.api.put(&theirs, "controllerrevisions");
    for slots in 2..12 {
        let mut spec = pool_spec(2);
        spec["ollama"] = json!({"numParallel": slots});
        world.put_pool("chat", &spec);
        world.settle().await;
    }
    let all = revisions(&world);
    let numbers: Vec<i64> = all.iter().map(|revision| revision["revision"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [0, 6, 7, 8, 9, 10, 11]);
    assert_eq!(all[6]["data"]["template"], template(&world));
}

#[tokio::test(start_paused = true)]
async fn the_revision_in_use_stays_however_old_it_is() {
    let mut world = settled().await;
    let (before, first) = (template(&world), revisions(&world).remove(0));
    for slots in 2..8 {
        let mut later = first.clone();
        later["metadata"]["name"] = json!(format!("chat-{slots:012}"));
        later["metadata"].as_object_mut().unwrap().remove("uid");
        later["revision"] = json!(slots);
        world.api.put(&later, "controllerrevisions");
    }
    world.settle().await;
    let all = revisions(&world);
    assert_eq!((all.len(), &all[0], template(&world)), (6, &first, before));
}

#[tokio::test(start_paused = true)]
async fn a_revision_of_a_newer_format_leaves_the_pods_alone_until_asked() {
    let mut world = settled().await;
    let mut revision = revisions(&world).remove(0);
    revision["data"] = json!({"format": 2, "pod": "otherwise"});
    let revision = world.api.put(&revision, "controllerrevisions");
    let before = world.deployment("chat").unwrap();
    world.put_pool("chat", &pool_spec(3));
    world.settle().await;
    assert_eq!(world.deployment("chat").unwrap(), before);
    assert_eq!(revisions(&world), [revision]);
    let (status, reason, message) = world.condition("ollamapools", "chat", "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "RevisionUnreadable"));
    assert!(message.contains("format 2") && message.contains("corral.dev/update"), "{message}");
    annotate(&world, "now");
    world.settle().await;
    assert_eq!(world.deployment("chat").unwrap()["spec"]["replicas"], 3);
    assert_ne!(world.ready("chat").1, "RevisionUnreadable");
}

#[tokio::test(start_paused = true)]
async fn a_revision_of_somebody_else_is_not_taken() {
    let mut world = World::new().await;
    let id = RevisionId::of(&ValidPool::of(&pool_of(&pool_spec(2))).unwrap()).unwrap();
    let theirs = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1,
        "metadata": {"name": id.name("chat"), "namespace": NS}});
    let before = world.api.put(&theirs, "controllerrevisions");
    world.put_pool("chat", &pool_spec(2));
    world.settle().await;
    assert_eq!(world.ready("chat"), ("False".into(), "NameConflict".into()));
    assert_eq!(revisions(&world), [before]);
    assert!(world.deployment("chat").is_none());
}

#[tokio::test(start_paused = true)]
async fn pods_whose_template_a_stricter_builder_refuses_go_on_and_say_so() {
    let mut world = settled().await;
    let mut spec = pool_spec(2);
    spec["podTemplate"] = json!({"spec": {"hostNetwork": true}});
    let id = RevisionId::of(&ValidPool::of(&pool_of(&spec)).unwrap()).unwrap();
    let mut revision = revisions(&world).remove(0);
    revision["metadata"]["name"] = json!(id.name("chat"));
    revision["metadata"].as_object_mut().unwrap().remove("uid");
    world.api.put(&revision, "controllerrevisions");
    world.put_pool("chat", &spec);
    world.settle().await;
    available_is(&world, "False", "TemplateInvalid");
    let message = available(&world).2;
    assert!(message.contains("spec.hostNetwork is not allowed"), "{message}");
    world.put_pool("chat", &{
        spec["replicas"] = json!(4);
        spec
    });
    world.settle().await;
    assert_eq!(world.deployment("chat").unwrap()["spec"]["replicas"], 4);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_from_before_there_were_revisions_gets_one() {
    let mut world = settled().await;
    let before = template(&world);
    forget_revisions(&world);
    let mut deployment = world.deployment("chat").unwrap();
    deployment["metadata"]["labels"].as_object_mut().unwrap().remove("corral.dev/revision");
    world.api.put(&deployment, "deployments");
    world.settle().await;
    assert_eq!((template(&world), revisions(&world).len()), (before, 1));
    assert!(world.deployment("chat").unwrap()["metadata"]["labels"]["corral.dev/revision"].is_string());
}
