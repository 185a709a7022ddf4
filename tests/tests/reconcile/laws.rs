//! What must hold of reconciling as such: it comes to rest, whatever is lost on the way, and nobody holds another up.

use corral_operator::rbac;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::shape::shape;
use super::world::{NS, World, policy_spec, pool_spec};

async fn furnished() -> World {
    let world = World::new().await;
    world.put_pool("chat", &pool_spec(2));
    world.put_policy("fair-use", &policy_spec("chat", "60/m"));
    world
}

#[tokio::test(start_paused = true)]
async fn a_second_pass_writes_nothing() {
    let mut world = furnished().await;
    world.settle().await;
    world.start_pod("chat", "chat-1", "10.0.0.1");
    world.start_pod("chat", "chat-2", "10.0.0.2");
    world.complete("chat");
    world.settle().await;
    assert_eq!(world.ready("chat"), ("True".into(), "Ready".into()));
    assert_eq!(world.programmed("fair-use"), ("True".into(), "Programmed".into()));
    let before = world.writes();
    assert!(world.pass().await.is_empty());
    assert_eq!(world.writes(), before);
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_follows_another_restarts_nothing_and_takes_a_higher_term() {
    let mut world = furnished().await;
    world.settle().await;
    world.start_pod("chat", "chat-1", "10.0.0.1");
    world.settle().await;
    let before = world.sidecars.get("10.0.0.1");
    let deployment = world.deployment("chat").unwrap();
    world.lease.release().await;
    let mut second = World::on(world.api.clone(), world.sidecars.clone(), "two").await;
    second.settle().await;
    let after = second.sidecars.get("10.0.0.1");
    assert!(after.obeyed.term > before.obeyed.term, "{:?} {:?}", before.obeyed, after.obeyed);
    assert_eq!(second.deployment("chat").unwrap(), deployment);
    assert_eq!(after.plan, before.plan);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_changed_or_deleted_is_healed() {
    let mut world = furnished().await;
    world.settle().await;
    let wanted = shape(&world.api);
    let mut deployment = world.deployment("chat").unwrap();
    deployment["spec"]["replicas"] = json!(7);
    deployment["spec"]["template"]["spec"]["containers"][0]["env"][1]["value"] = json!("0.0.0.0:11434");
    world.api.put(&deployment, "deployments");
    world.api.store(|store| {
        store.remove(&corral_tests::fake_api::store::Key::new("", "services", Some(NS), "chat"))
    });
    world.api.store(|store| {
        store.remove(&corral_tests::fake_api::store::Key::new("", "secrets", Some(NS), "chat-plan"))
    });
    world.settle().await;
    let mut healed = shape(&world.api);
    let mut wanted = wanted;
    for list in [&mut healed, &mut wanted] {
        for (_, object) in list.iter_mut() {
            object["metadata"]["generation"] = Value::Null;
        }
    }
    assert_eq!(healed, wanted);
}

/// Edits an object as a person does with `kubectl edit`.
async fn edit<K>(world: &World, name: &str, patch: Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(world.api.client(), NS);
    let params = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };
    api.patch(name, &params, &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_somebody_added_where_nobody_may_is_taken_away_and_a_restart_is_not() {
    let mut world = furnished().await;
    world.settle().await;
    let template = world.deployment("chat").unwrap()["spec"]["template"].clone();
    let mut containers = template["spec"]["containers"].clone();
    containers.as_array_mut().unwrap().push(json!({"name": "spy", "image": "x"}));
    let added = json!({"hostNetwork": true, "containers": containers});
    edit::<Deployment>(&world, "chat", json!({"spec": {"template": {"spec": added}}})).await;
    let ports = json!([{"name": "http", "port": 11434, "protocol": "TCP", "targetPort": "client"}, {"name": "admin", "port": 11436}]);
    let opened = json!({"selector": {"app": "theirs"}, "ports": ports, "publishNotReadyAddresses": true});
    edit::<Service>(&world, "chat", json!({"spec": opened})).await;
    let blocked = json!({"maxUnavailable": 0, "selector": {"matchLabels": {"app": "theirs"}}});
    edit::<PodDisruptionBudget>(&world, "chat", json!({"spec": blocked})).await;
    edit::<Deployment>(&world, "chat", json!({"spec": {"paused": true, "minReadySeconds": 600}})).await;
    let restarted = json!({"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}});
    edit::<Deployment>(&world, "chat", json!({"spec": {"template": {"metadata": restarted}}})).await;
    world.settle().await;
    let healed = world.deployment("chat").unwrap()["spec"]["template"].clone();
    assert_eq!(healed["spec"], template["spec"]);
    assert_eq!(healed["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"], "now");
    let service = world.api.find("", "services", NS, "chat").unwrap()["spec"].clone();
    assert_eq!(service["selector"], json!({"corral.dev/pool": "chat"}));
    assert_eq!(service["ports"].as_array().unwrap().len(), 1);
    assert_eq!(service["publishNotReadyAddresses"], false);
    let budget = world.api.find("policy", "poddisruptionbudgets", NS, "chat").unwrap()["spec"].clone();
    assert_eq!(budget["selector"], json!({"matchLabels": {"corral.dev/pool": "chat"}}));
    assert_eq!(budget["maxUnavailable"], 1);
    let deployment = world.deployment("chat").unwrap()["spec"].clone();
    assert_eq!((&deployment["paused"], &deployment["minReadySeconds"]), (&json!(false), &json!(0)));
    let before = world.writes();
    assert!(world.pass().await.is_empty());
    assert_eq!(world.writes(), before, "what is healed is not healed again");
}

#[tokio::test(start_paused = true)]
async fn one_broken_object_stalls_no_other() {
    let mut world = furnished().await;
    world.put_pool("broken", &json!({"replicas": "many"}));
    world.put_policy("broken", &json!({"targetRefs": "all"}));
    world.settle().await;
    assert!(world.deployment("chat").is_some());
    assert_eq!(world.ready("broken"), ("False".into(), "InvalidSpec".into()));
    let (status, reason, message) = world.condition("ratelimitpolicies", "broken", "Accepted");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Invalid"));
    assert!(message.contains("cannot be read"), "{message}");
    assert_eq!(world.condition("ratelimitpolicies", "fair-use", "Accepted").0, "True");
}

#[tokio::test(start_paused = true)]
async fn the_calls_made_are_exactly_the_calls_allowed() {
    // The watches belong to the controllers: see `whole`.
    let mut world = furnished().await;
    world.settle().await;
    let allowed: Vec<(String, String, String)> = rbac::POOLS
        .iter()
        .chain(&rbac::OWN)
        .flat_map(|grant| {
            grant.verbs.iter().map(|verb| (grant.group.into(), grant.resource.into(), (*verb).into()))
        })
        .collect();
    for made in world.api.permissions() {
        let made = (made.group, made.resource, made.verb);
        assert!(allowed.contains(&made), "{made:?} is not allowed");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_does_not_lead_writes_nothing() {
    let mut world = furnished().await;
    world.lease.release().await;
    world.api.forget();
    assert!(!world.pass().await.is_empty());
    assert_eq!(world.writes(), 0);
}
