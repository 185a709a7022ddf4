//! The fake API server is only worth as much as its likeness: each case here is a thing the real one does.
#![cfg(test)]

use std::collections::BTreeMap;
use std::time::Duration;

use corral_tests::fake_api::{FakeApi, faults::Cut};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchParams};
use kube::core::WatchEvent;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Error, ResourceExt};
use serde_json::{Value, json};

fn config_map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data: BTreeMap<&str, &str> = data.iter().copied().collect();
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "a"}, "data": data})).unwrap()
}

fn maps(api: &FakeApi) -> Api<ConfigMap> {
    Api::namespaced(api.client(), "a")
}

fn code(error: &Error) -> u16 {
    let Error::Api(status) = error else { panic!("not a refusal: {error}") };
    status.code
}

async fn apply(api: &FakeApi, manager: &str, force: bool, object: Value) -> Result<Deployment, Error> {
    let params = PatchParams { force, ..PatchParams::apply(manager) };
    Api::namespaced(api.client(), "a").patch("d", &params, &Patch::Apply(object)).await
}

fn deployment(spec: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn containers(list: &Value) -> Value {
    deployment(&json!({"template": {"spec": {"containers": list}}}))
}

#[tokio::test]
async fn a_write_on_an_old_version_is_a_conflict_and_changes_nothing() {
    let api = FakeApi::new();
    let first = maps(&api).create(&PostParams::default(), &config_map("x", &[("k", "1")])).await.unwrap();
    let mut newer = first.clone();
    newer.data = Some([("k".to_owned(), "2".to_owned())].into());
    let newer = maps(&api).replace("x", &PostParams::default(), &newer).await.unwrap();
    assert_ne!(first.resource_version(), newer.resource_version());
    assert_eq!(first.uid(), newer.uid());
    let error = maps(&api).replace("x", &PostParams::default(), &first).await.unwrap_err();
    assert_eq!(code(&error), 409);
    let patch = json!({"metadata": {"resourceVersion": first.resource_version()}, "data": {"k": "3"}});
    let error = maps(&api).patch("x", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap_err();
    assert_eq!(code(&error), 409);
    assert_eq!(maps(&api).get("x").await.unwrap().data, newer.data);
}

#[tokio::test]
async fn a_write_that_changes_nothing_keeps_the_version_and_wakes_nobody() {
    let api = FakeApi::new();
    let first = apply(&api, "m", true, deployment(&json!({"replicas": 2}))).await.unwrap();
    let again = apply(&api, "m", true, deployment(&json!({"replicas": 2}))).await.unwrap();
    assert_eq!(first, again);
    let changed: Vec<bool> = api.writes().iter().map(|write| write.changed).collect();
    assert_eq!(changed, [true, false]);
}

#[tokio::test]
async fn generation_follows_the_spec_and_status_is_written_apart() {
    let api = FakeApi::new();
    let first = apply(&api, "m", true, deployment(&json!({"replicas": 1}))).await.unwrap();
    assert_eq!(first.metadata.generation, Some(1));
    let deployments: Api<Deployment> = Api::namespaced(api.client(), "a");
    let patch = json!({"status": {"replicas": 1}, "spec": {"replicas": 9}});
    let told = deployments.patch_status("d", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(told.status.unwrap().replicas, Some(1));
    assert_eq!(told.spec.unwrap().replicas, Some(1));
    let scale = deployments
        .patch_scale("d", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}})))
        .await
        .unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(3));
    let scaled = deployments.get("d").await.unwrap();
    assert_eq!((scaled.metadata.generation, scaled.status.unwrap().replicas), (Some(2), Some(1)));
}

#[tokio::test]
async fn apply_refuses_what_another_owns_unless_forced() {
    let api = FakeApi::new();
    apply(&api, "one", false, deployment(&json!({"replicas": 1}))).await.unwrap();
    let error = apply(&api, "two", false, deployment(&json!({"replicas": 2}))).await.unwrap_err();
    assert_eq!(code(&error), 409);
    assert!(error.to_string().contains("one owns .spec.replicas"), "{error}");
    // The same value is shared, not contested.
    apply(&api, "two", false, deployment(&json!({"replicas": 1}))).await.unwrap();
    let forced = apply(&api, "two", true, deployment(&json!({"replicas": 2}))).await.unwrap();
    assert_eq!(forced.spec.unwrap().replicas, Some(2));
    // What was taken is no longer the first one's to remove.
    let after = apply(&api, "one", false, deployment(&json!({"paused": false}))).await.unwrap();
    assert_eq!(after.spec.unwrap().replicas, Some(2));
}

#[tokio::test]
async fn apply_removes_what_its_manager_no_longer_sends_and_nothing_else() {
    let api = FakeApi::new();
    let both = json!([{"name": "a", "image": "x", "env": [{"name": "K", "value": "1"}]}, {"name": "b", "image": "y"}]);
    apply(&api, "one", true, containers(&both)).await.unwrap();
    apply(&api, "two", true, containers(&json!([{"name": "injected", "image": "mesh"}]))).await.unwrap();
    let after = apply(&api, "one", true, containers(&json!([{"name": "a", "image": "x"}]))).await.unwrap();
    let pod = after.spec.unwrap().template.spec.unwrap();
    let names: Vec<&str> = pod.containers.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["a", "injected"]);
    assert!(pod.containers[0].env.is_none());
}

#[tokio::test]
async fn apply_keeps_an_item_while_another_manager_holds_a_part_of_it() {
    let api = FakeApi::new();
    apply(&api, "one", true, containers(&json!([{"name": "a", "image": "x"}]))).await.unwrap();
    apply(&api, "two", true, containers(&json!([{"name": "a", "workingDir": "/w"}]))).await.unwrap();
    let after = apply(&api, "one", true, deployment(&json!({"replicas": 1}))).await.unwrap();
    let pod = after.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.containers[0].name, "a");
    assert_eq!(
        (pod.containers[0].image.as_deref(), pod.containers[0].working_dir.as_deref()),
        (None, Some("/w"))
    );
}

#[tokio::test]
async fn an_update_takes_a_field_from_the_one_who_applied_it() {
    let api = FakeApi::new();
    apply(&api, "one", true, deployment(&json!({"replicas": 1}))).await.unwrap();
    let deployments: Api<Deployment> = Api::namespaced(api.client(), "a");
    let edit = Patch::Merge(json!({"spec": {"replicas": 7}}));
    deployments
        .patch("d", &PatchParams { field_manager: Some("kubectl".into()), ..PatchParams::default() }, &edit)
        .await
        .unwrap();
    let error = apply(&api, "one", false, deployment(&json!({"replicas": 1}))).await.unwrap_err();
    assert!(error.to_string().contains("kubectl owns .spec.replicas"), "{error}");
}

#[tokio::test]
async fn applying_with_an_old_version_is_a_conflict_and_to_nothing_a_not_found() {
    let api = FakeApi::new();
    let made = apply(&api, "m", true, deployment(&json!({"replicas": 1}))).await.unwrap();
    apply(&api, "m", true, deployment(&json!({"replicas": 2}))).await.unwrap();
    let mut stale = deployment(&json!({"replicas": 3}));
    stale["metadata"]["resourceVersion"] = json!(made.resource_version());
    assert_eq!(code(&apply(&api, "m", true, stale).await.unwrap_err()), 409);
}

#[tokio::test]
async fn deletion_keeps_preconditions_finalizers_and_takes_dependents_along() {
    let api = FakeApi::new();
    let owner = maps(&api).create(&PostParams::default(), &config_map("owner", &[])).await.unwrap();
    let mut child = config_map("child", &[]);
    child.metadata.owner_references = Some(vec![
        serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()}))
        .unwrap(),
    ]);
    maps(&api).create(&PostParams::default(), &child).await.unwrap();
    let other = Preconditions { uid: Some("another".into()), resource_version: None };
    let params = DeleteParams { preconditions: Some(other), ..DeleteParams::default() };
    assert_eq!(code(&maps(&api).delete("owner", &params).await.unwrap_err()), 409);
    maps(&api).delete("owner", &DeleteParams::default()).await.unwrap();
    assert!(maps(&api).get_opt("child").await.unwrap().is_none());

    let mut held = config_map("held", &[]);
    held.metadata.finalizers = Some(vec!["corral.dev/x".into()]);
    maps(&api).create(&PostParams::default(), &held).await.unwrap();
    maps(&api).delete("held", &DeleteParams::default()).await.unwrap();
    assert!(maps(&api).get("held").await.unwrap().metadata.deletion_timestamp.is_some());
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps(&api).patch("held", &PatchParams::default(), &free).await.unwrap();
    assert!(maps(&api).get_opt("held").await.unwrap().is_none());
}

#[tokio::test]
async fn a_list_and_a_watch_select_by_label_and_a_lost_label_is_a_deletion() {
    let api = FakeApi::new();
    let pod = |name: &str, app: &str| {
        json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "labels": {"app": app}}, "spec": {"containers": []}})
    };
    api.put(&pod("one", "x"), "pods");
    api.put(&pod("two", "y"), "pods");
    let pods: Api<Pod> = Api::all(api.client());
    let list = pods.list(&ListParams::default().labels("app=x")).await.unwrap();
    assert_eq!(list.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["one"]);
    let version = list.metadata.resource_version.unwrap();
    let watched = pods.watch(&WatchParams::default().labels("app=x"), &version).await.unwrap();
    let mut watched = Box::pin(watched);
    api.put(&pod("one", "y"), "pods");
    let event = watched.try_next().await.unwrap().unwrap();
    assert!(matches!(&event, WatchEvent::Deleted(pod) if pod.name_any() == "one"), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_changes_bookmarks_and_recovers_from_an_expired_version() {
    let api = FakeApi::new();
    api.put(&config_map("x", &[("k", "1")]), "configmaps");
    let mut seen = Box::pin(
        watcher(Api::<ConfigMap>::all(api.client()), watcher::Config::default())
            .default_backoff()
            .applied_objects(),
    );
    assert_eq!(seen.try_next().await.unwrap().unwrap().name_any(), "x");
    api.put(&config_map("y", &[]), "configmaps");
    assert_eq!(seen.try_next().await.unwrap().unwrap().name_any(), "y");
    api.store(|store| {
        store.bookmark();
        store.close_watches();
    });
    api.put(&config_map("z", &[]), "configmaps");
    api.store(corral_tests::fake_api::store::Store::compact);
    api.put(&config_map("w", &[]), "configmaps");
    // The expired version is told once, then everything is listed again.
    let told = seen.try_next().await.unwrap_err();
    assert!(told.to_string().contains("too old resource version"), "{told}");
    let rest: Vec<String> = seen.by_ref().take(4).map(|object| object.unwrap().name_any()).collect().await;
    assert_eq!(rest, ["w", "x", "y", "z"]);
}

#[tokio::test]
async fn the_kth_write_is_cut_before_or_after_it_is_stored() {
    let api = FakeApi::new();
    api.faults(|faults| {
        faults.cut_write(1, Cut::Before);
        faults.cut_write(2, Cut::After);
    });
    let create = |name: &'static str| {
        let maps = maps(&api);
        async move { maps.create(&PostParams::default(), &config_map(name, &[])).await }
    };
    assert!(create("lost").await.is_err());
    assert!(create("stored").await.is_err());
    assert!(create("fine").await.is_ok());
    let names: Vec<String> =
        maps(&api).list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["fine", "stored"]);
}

#[tokio::test(start_paused = true)]
async fn events_are_lost_and_repeated_on_demand() {
    let api = FakeApi::new();
    let watched = maps(&api).watch(&WatchParams::default().timeout(5), "0").await.unwrap();
    api.faults(|faults| faults.drop_events(1));
    api.put(&config_map("x", &[]), "configmaps");
    let seen: Vec<_> = watched.collect().await;
    assert!(seen.is_empty(), "{seen:?}");
    let watched = maps(&api).watch(&WatchParams::default().timeout(5), "1").await.unwrap();
    api.faults(|faults| faults.repeat_events(1));
    api.put(&config_map("y", &[]), "configmaps");
    assert_eq!(watched.collect::<Vec<_>>().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_or_refuses_comes_back() {
    let api = FakeApi::new();
    api.faults(|faults| faults.down(true));
    assert!(maps(&api).get_opt("x").await.is_err());
    api.faults(|faults| {
        faults.down(false);
        faults.refuse(503, 1);
    });
    assert_eq!(code(&maps(&api).get_opt("x").await.unwrap_err()), 503);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), maps(&api).get_opt("x"))
            .await
            .unwrap()
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn every_call_is_recorded_as_the_permission_it_needs() {
    let api = FakeApi::new();
    let secrets: Api<Secret> = Api::namespaced(api.client(), "a");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    secrets.patch("s", &PatchParams::apply("m"), &Patch::Apply(&secret)).await.unwrap();
    secrets.get("s").await.unwrap();
    secrets.list(&ListParams::default()).await.unwrap();
    let mut verbs: Vec<String> =
        api.permissions().into_iter().map(|p| format!("{} {}", p.verb, p.resource)).collect();
    verbs.sort();
    assert_eq!(verbs, ["create secrets", "get secrets", "list secrets", "patch secrets"]);
}
