//! A pool that scales itself, with all that surrounds it: it grows, shrinks, changes its mind, and lets be what is another's.

use std::collections::BTreeSet;
use std::time::Duration;

use corral_operator::apply::Only;
use corral_operator::error::{Class, Error};
use corral_operator::names::DELETION_COST;
use corral_scaler::VICTIM_COST;
use corral_tests::fake_api::store::Key;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::scaling_cluster::{Cluster, POOL, SLOTS};
use super::world::{NS, World, pool_spec};

pub(crate) const WINDOW: u64 = 60;

pub(crate) fn scaling(autoscaling: &Value) -> Value {
    json!({"replicas": 1, "gpu": {"vendor": "nvidia", "count": 1}, "autoscaling": autoscaling, "ollama": {"numParallel": SLOTS}})
}

/// From one to four pods; it shrinks after a minute, all at once.
pub(crate) fn usual() -> Value {
    scaling(&json!({"minReplicas": 1, "maxReplicas": 4,
        "scaleDown": {"windowSeconds": WINDOW, "maxPercent": 100, "periodSeconds": 1}}))
}

/// A pool that has grown to four, all of them ready.
pub(crate) async fn grown() -> Cluster {
    let mut cluster = Cluster::with_pool(&usual()).await;
    cluster.load = (1.4, Duration::from_secs(8));
    cluster.until(120, |cluster| cluster.ready().len() == 4).await;
    cluster
}

/// The same, with nothing left to do.
pub(crate) async fn idle() -> Cluster {
    let mut cluster = grown().await;
    cluster.load.0 = 0.0;
    cluster.until(200, Cluster::is_idle).await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn a_queue_makes_the_pool_grow_and_everybody_is_told_why() {
    let mut cluster = Cluster::with_pool(&usual()).await;
    assert_eq!((cluster.asked(), cluster.desired()), (1, 1));
    cluster.load = (1.4, Duration::from_secs(8));
    let took = cluster.until(60, |cluster| cluster.asked() == 4).await;
    assert!(took <= 40, "{took} s");
    cluster.until(60, |cluster| cluster.ready().len() == 4).await;
    cluster.pass(5).await;
    assert_eq!(cluster.condition("Ready"), ("True".into(), "Ready".into()));
    assert_eq!(cluster.condition("ScalingActive"), ("True".into(), "ScalingActive".into()));
    assert_eq!(cluster.condition("MetricsAvailable"), ("True".into(), "ReportsHeard".into()));
    let status = cluster.status()["autoscaling"].clone();
    let last = &status["decisions"][0];
    assert_eq!((last["to"].as_u64(), status["mode"].as_str()), (Some(4), Some("Builtin")));
    assert_eq!(status["lastScaleTime"], last["time"]);
    let notes = cluster.notes(&["ScaledUp"]);
    let told = format!("to {}: {}", last["to"], last["message"].as_str().unwrap());
    assert!(notes.last().unwrap().ends_with(&told), "{notes:?} {told}");
    assert!(told.contains("requests/s of") && told.contains("s each"), "{told}");
    let spec = cluster.world.api.find("corral.dev", "ollamapools", NS, POOL).unwrap()["spec"].clone();
    assert_eq!(spec["replicas"], 1, "the pool's spec is its owner's");
    assert_eq!((cluster.refused, cluster.cut), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn limits_are_shared_by_the_pods_that_serve_and_not_by_those_on_their_way() {
    let mut cluster = Cluster::with_pool(&usual()).await;
    cluster.load = (1.4, Duration::from_secs(8));
    cluster.until(60, |cluster| cluster.pods.len() > 1).await;
    cluster
        .watch(60, |cluster| {
            let serving = cluster.world.sidecars.0.lock().values().filter(|pod| pod.serves()).count();
            let first = cluster.world.sidecars.get("10.0.0.1");
            // One that is about to serve is counted a moment before.
            assert!(first.divisor as usize <= serving + 1, "{} of {serving}", first.divisor);
        })
        .await;
    assert_eq!(cluster.world.sidecars.get("10.0.0.1").divisor, 4);
    assert_eq!(cluster.world.divisor(POOL), 4);
}

#[tokio::test(start_paused = true)]
async fn a_pool_shrinks_after_its_window_and_takes_those_who_have_nothing_to_do() {
    let mut cluster = idle().await;
    // Two write long answers, and go on to.
    let busy: BTreeSet<String> = cluster.ready().into_iter().skip(1).take(2).map(str::to_owned).collect();
    for name in &busy {
        cluster.give(name, 1, 150);
    }
    let idle: BTreeSet<String> =
        cluster.ready().into_iter().map(str::to_owned).filter(|name| !busy.contains(name)).collect();
    assert_eq!(cluster.asked(), 4);
    cluster.until(60, |cluster| !cluster.retiring().is_empty()).await;
    cluster.world.api.forget();
    let mut priced_for = 0;
    let shrunk = |cluster: &Cluster| cluster.asked() < 4;
    while !shrunk(&cluster) && priced_for < 60 {
        priced_for += u64::from(!cluster.priced().is_empty());
        cluster.pass(1).await;
    }
    assert!((5..30).contains(&priced_for), "the cost was there for {priced_for} s before the shrink");
    cluster.until(200, |cluster| cluster.asked() == 1).await;
    cluster.pass(5).await;
    assert_eq!(cluster.taken.len(), 3);
    let first: BTreeSet<String> = cluster.taken.iter().take(2).cloned().collect();
    assert_eq!(first, idle, "{:?}", cluster.taken);
    assert_eq!((cluster.cut, cluster.refused), (0, 0), "no answer was lost");
    assert_eq!(cluster.mistaken, [""; 0]);
    assert!(!cluster.notes(&["ScaledDown"]).is_empty());
    for write in cluster.writes("ollamapools/status") {
        let conditions = write.object["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
        assert_eq!(ready["status"], "True", "it serves as asked all the while: {ready}");
    }
    assert_eq!(cluster.condition("Ready"), ("True".into(), "Ready".into()));
    assert_eq!(cluster.condition("ScalingLimited"), ("False".into(), "DesiredWithinRange".into()));
}

#[tokio::test(start_paused = true)]
async fn while_pods_that_shall_go_still_work_the_pool_serves_as_asked() {
    let mut cluster = idle().await;
    for name in cluster.ready().into_iter().map(str::to_owned).collect::<Vec<_>>() {
        cluster.give(&name, 1, 200);
    }
    cluster.until(120, |cluster| cluster.retiring().len() >= 2).await;
    cluster.until(20, |cluster| cluster.desired() < cluster.asked()).await;
    cluster.pass(3).await;
    let (asked, desired) = (cluster.asked(), cluster.desired());
    assert_eq!(asked, 4, "none is taken that works");
    let serve = u64::try_from(cluster.ready().len()).unwrap();
    assert_eq!(serve, desired, "those that shall go are out of the Service");
    assert_eq!(cluster.condition("Ready"), ("True".into(), "Ready".into()));
}

#[tokio::test(start_paused = true)]
async fn when_load_returns_those_who_were_to_go_stay_and_no_pod_is_made() {
    let mut cluster = idle().await;
    // All work, so that none can go yet.
    for name in cluster.ready().into_iter().map(str::to_owned).collect::<Vec<_>>() {
        cluster.give(&name, 1, 240);
    }
    cluster.until(150, |cluster| cluster.retiring().len() >= 2).await;
    let made = cluster.pods.len();
    cluster.load = (4.0, Duration::from_secs(8));
    let retiring = cluster.retiring().len();
    let took = cluster.until(60, |cluster| cluster.retiring().len() < retiring).await;
    assert!(took <= 10, "{took} s");
    cluster.until(40, |cluster| cluster.retiring().is_empty()).await;
    cluster.until(5, |cluster| cluster.ready().len() == 4).await;
    assert_eq!((cluster.pods.len(), cluster.taken.len()), (made, 0));
    cluster.until(5, |cluster| cluster.priced().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_restarts_at_the_peak_takes_nothing_away() {
    let mut cluster = grown().await;
    cluster.replace_operator();
    cluster
        .watch(100, |cluster| {
            assert_eq!((cluster.asked(), cluster.desired()), (4, 4));
            assert!(cluster.retiring().is_empty());
        })
        .await;
    assert_eq!(cluster.condition("Ready"), ("True".into(), "Ready".into()));
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_left_half_done_the_next_one_clears() {
    let mut cluster = idle().await;
    for name in cluster.ready().into_iter().map(str::to_owned).collect::<Vec<_>>() {
        cluster.give(&name, 1, 60);
    }
    cluster.until(150, |cluster| !cluster.priced().is_empty()).await;
    cluster.controller = false;
    cluster.replace_operator();
    cluster.load = (2.0, Duration::from_secs(8));
    cluster.until(30, |cluster| cluster.priced().is_empty()).await;
    cluster.until(10, |cluster| cluster.retiring().is_empty()).await;
    let others: Value = json!("7");
    let name = cluster.ready()[0].to_owned();
    let mut pod = cluster.world.api.find("", "pods", NS, &name).unwrap();
    pod["metadata"]["annotations"][DELETION_COST] = others.clone();
    cluster.world.api.put(&pod, "pods");
    cluster.pass(10).await;
    let pod = cluster.world.api.find("", "pods", NS, &name).unwrap();
    assert_eq!(pod["metadata"]["annotations"][DELETION_COST], others);
}

fn hpa(target: &Value) -> Value {
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "theirs", "namespace": NS}, "spec": {"maxReplicas": 9, "scaleTargetRef": target}})
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_somebody_else_scales_too_is_left_alone_until_one_of_them_goes() {
    let mut cluster = Cluster::with_pool(&usual()).await;
    let target = json!({"apiVersion": "corral.dev/v1alpha1", "kind": "OllamaPool", "name": POOL});
    cluster.world.api.put(&hpa(&target), "horizontalpodautoscalers");
    cluster.pass(70).await;
    let conflict = || ("True".to_owned(), "SecondWriter".to_owned());
    assert_eq!(cluster.condition("AutoscalingConflict"), conflict());
    assert_eq!(cluster.condition("ScalingActive"), ("False".into(), "SecondWriter".into()));
    let (_, _, message) = cluster.world.condition("ollamapools", POOL, "AutoscalingConflict");
    assert!(message.starts_with("HorizontalPodAutoscaler theirs "), "{message}");
    cluster.load = (1.4, Duration::from_secs(8));
    cluster.watch(60, |cluster| assert_eq!((cluster.asked(), cluster.desired()), (1, 1))).await;
    cluster.world.api.store(|store| {
        store.remove(&Key::new("autoscaling", "horizontalpodautoscalers", Some(NS), "theirs"))
    });
    cluster.until(130, |cluster| cluster.asked() > 1).await;
    assert_eq!(cluster.condition("AutoscalingConflict"), (String::new(), String::new()));
}

#[tokio::test(start_paused = true)]
async fn where_gpus_are_short_it_says_so_and_asks_for_no_more() {
    let mut cluster = Cluster::new().await;
    cluster.room = 2;
    let spec = scaling(&json!({"minReplicas": 1, "maxReplicas": 6}));
    cluster.world.put_pool(POOL, &spec);
    cluster.pass(50).await;
    cluster.load = (1.4, Duration::from_secs(8));
    let short = ("True".to_owned(), "InsufficientGPU".to_owned());
    let homeless = |cluster: &Cluster| cluster.pods.len() > 2;
    cluster.until(60, homeless).await;
    let took = cluster.until(60, |cluster| cluster.condition("ScalingLimited") == short).await;
    assert!(took <= 60, "{took} s");
    let before = cluster.notes(&["ScaledUp", "ScaledDown"]).len();
    cluster.pass(300).await;
    let changes = cluster.notes(&["ScaledUp", "ScaledDown"]).len() - before;
    assert!(changes <= 4, "{changes} changes");
    cluster
        .until(900, |cluster| {
            cluster.condition("ScalingLimited") == ("True".to_owned(), "ProvisioningTimeout".to_owned())
        })
        .await;
    let asked = cluster.asked();
    cluster.watch(300, |cluster| assert_eq!(cluster.asked(), asked)).await;
}

#[tokio::test(start_paused = true)]
async fn no_pod_is_patched_and_no_status_written_while_nothing_changes() {
    let mut cluster = Cluster::with_pool(&usual()).await;
    cluster.pass(200).await;
    cluster.world.api.forget();
    cluster.pass(400).await;
    assert_eq!(cluster.writes("pods"), []);
    assert_eq!(cluster.writes("ollamapools/status"), []);
    assert_eq!(cluster.writes("deployments"), []);
}

#[tokio::test(start_paused = true)]
async fn under_steady_load_a_status_is_written_at_most_each_half_minute() {
    // Far from its bounds, and about the upper one.
    for rate in [0.15, 0.42] {
        let mut cluster = Cluster::with_pool(&usual()).await;
        cluster.load = (rate, Duration::from_secs(8));
        cluster.pass(700).await;
        cluster.world.api.forget();
        cluster.pass(600).await;
        assert_eq!(cluster.writes("pods"), []);
        let written = cluster.writes("ollamapools/status").len();
        assert!(written <= 20, "{written} in ten minutes at {rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_mode_external_the_spec_decides_and_who_goes_finishes_first() {
    let mut spec = scaling(&json!({"mode": "External"}));
    spec["replicas"] = json!(3);
    let mut cluster = Cluster::with_pool(&spec).await;
    assert_eq!(cluster.condition("ScalingActive"), ("False".into(), "External".into()));
    assert_eq!((cluster.asked(), cluster.desired(), cluster.ready().len()), (3, 3, 3));
    let busy = cluster.ready()[2].to_owned();
    cluster.give(&busy, 1, 100);
    cluster.load = (0.05, Duration::from_secs(2));
    // Its next report says so.
    cluster.pass(3).await;
    spec["replicas"] = json!(1);
    cluster.world.put_pool(POOL, &spec);
    cluster.until(30, |cluster| cluster.asked() == 1).await;
    cluster.pass(5).await;
    assert_eq!((cluster.ready(), cluster.cut), (vec![busy.as_str()], 0), "the idle ones went");
    spec["replicas"] = json!(2);
    cluster.world.put_pool(POOL, &spec);
    cluster.until(5, |cluster| cluster.asked() == 2).await;
    spec["replicas"] = json!(0);
    cluster.world.put_pool(POOL, &spec);
    cluster.until(5, |cluster| cluster.asked() == 0).await;
    cluster.pass(5).await;
    assert_eq!(cluster.condition("Ready"), ("True".into(), "Stopped".into()));
    assert!(cluster.priced().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cost_that_somebody_else_overwrites_is_written_again_before_anybody_goes() {
    let mut cluster = idle().await;
    cluster.until(150, |cluster| !cluster.priced().is_empty()).await;
    let name = cluster.priced()[0].clone();
    let mut pod = cluster.world.api.find("", "pods", NS, &name).unwrap();
    pod["metadata"]["annotations"][DELETION_COST] = json!("5");
    cluster.world.api.put(&pod, "pods");
    cluster.until(90, |cluster| cluster.asked() == 1).await;
    cluster.pass(5).await;
    assert_eq!((cluster.taken.len(), &cluster.mistaken[..]), (3, &[][..]));
}

#[tokio::test(start_paused = true)]
async fn a_cost_that_somebody_else_takes_off_is_written_again_soon() {
    let mut cluster = idle().await;
    cluster.until(150, |cluster| !cluster.priced().is_empty()).await;
    for _ in 0..2 {
        let name = cluster.priced()[0].clone();
        cluster.pass(1).await;
        let mut pod = cluster.world.api.find("", "pods", NS, &name).unwrap();
        pod["metadata"]["annotations"].as_object_mut().unwrap().remove(DELETION_COST);
        cluster.world.api.put(&pod, "pods");
        cluster.until(15, |cluster| cluster.priced().contains(&name)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_change_reaches_the_pods_none_is_taken_away() {
    let mut cluster = idle().await;
    cluster.rolling = true;
    cluster.watch(200, |cluster| assert_eq!(cluster.asked(), 4)).await;
    assert_eq!(cluster.condition("ScalingLimited"), ("True".into(), "RolloutInProgress".into()));
    assert_eq!((cluster.retiring(), cluster.priced()), (vec![], vec![]));
    cluster.rolling = false;
    cluster.until(60, |cluster| cluster.asked() == 1).await;
    cluster.pass(5).await;
    assert_eq!(cluster.mistaken, [""; 0]);
}

fn on<'a>(version: &'a str, still: &'a (dyn Fn() -> bool + Sync)) -> Only<'a> {
    Only { version, still }
}

#[tokio::test(start_paused = true)]
async fn fewer_pods_are_asked_of_no_deployment_but_the_one_that_was_looked_at() {
    let mut world = World::new().await;
    world.put_pool(POOL, &pool_spec(3));
    world.settle().await;
    let live = world.deployment(POOL).unwrap();
    let owner = live["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap();
    let wanted = json!({"metadata": {"name": POOL, "namespace": NS}, "spec": {"replicas": 1}});
    let version = live["metadata"]["resourceVersion"].as_str().unwrap();
    world.complete(POOL);
    let outcome =
        world.ctx.writer.apply_on::<Deployment>(owner, wanted.clone(), Some(on(version, &|| true))).await;
    let error = Error::from(outcome.unwrap_err());
    assert_eq!(error.class(), Class::Conflict, "{error}");
    let live = world.deployment(POOL).unwrap();
    let version = live["metadata"]["resourceVersion"].as_str().unwrap();
    let outcome =
        world.ctx.writer.apply_on::<Deployment>(owner, wanted.clone(), Some(on(version, &|| false))).await;
    let error = Error::from(outcome.unwrap_err());
    assert_eq!(error.class(), Class::Conflict, "{error}");
    assert_eq!(world.deployment(POOL).unwrap()["spec"]["replicas"], 3, "it was decided otherwise meanwhile");
    world.ctx.writer.apply_on::<Deployment>(owner, wanted, Some(on(version, &|| true))).await.unwrap();
    assert_eq!(world.deployment(POOL).unwrap()["spec"]["replicas"], 1);
}

#[tokio::test(start_paused = true)]
async fn silent_pods_keep_no_pool_at_a_size_that_its_owner_does_not_want() {
    let mut spec = json!({"replicas": 3, "gpu": {"vendor": "nvidia", "count": 1}});
    let mut cluster = Cluster::with_pool(&spec).await;
    assert_eq!(cluster.condition("ScalingActive"), ("False".into(), "Disabled".into()));
    for pod in cluster.world.sidecars.0.lock().values_mut() {
        pod.silent = true;
    }
    cluster.pass(20).await;
    spec["replicas"] = json!(1);
    cluster.world.put_pool(POOL, &spec);
    cluster.until(30, |cluster| cluster.asked() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_scales_itself_never_shrinks_by_what_it_does_not_hear() {
    let mut cluster = idle().await;
    for pod in cluster.world.sidecars.0.lock().values_mut() {
        pod.silent = true;
    }
    cluster.watch(300, |cluster| assert_eq!(cluster.asked(), 4)).await;
    assert_eq!(cluster.condition("MetricsAvailable"), ("False".into(), "ReportsMissing".into()));
}

#[tokio::test(start_paused = true)]
async fn a_time_zone_that_nobody_knows_is_told_with_its_field() {
    let schedule = json!({"name": "office", "timeZone": "Europe/Atlantis", "from": "08:00", "to": "18:00", "minReplicas": 2});
    let spec = scaling(&json!({"minReplicas": 1, "maxReplicas": 4, "schedules": [schedule]}));
    let mut cluster = Cluster::with_pool(&spec).await;
    let (status, reason, message) = cluster.world.condition("ollamapools", POOL, "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidSpec"));
    assert!(message.contains("spec.autoscaling.schedules[0].timeZone"), "{message}");
    // The rest of what the owner asked for is plain.
    cluster.load = (1.4, Duration::from_secs(8));
    cluster.until(60, |cluster| cluster.asked() == 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_victim_costs_what_kubernetes_takes_first() {
    let mut cluster = idle().await;
    cluster.until(150, |cluster| !cluster.priced().is_empty()).await;
    let patched = cluster.writes("pods");
    let cost = &patched[0].object["metadata"]["annotations"][DELETION_COST];
    assert_eq!(*cost, VICTIM_COST.to_string());
    cluster.until(60, |cluster| cluster.asked() == 1).await;
    cluster.pass(10).await;
    let changed: Vec<_> = cluster.writes("pods").into_iter().filter(|write| write.changed).collect();
    let told: Vec<_> =
        changed.iter().map(|write| (&write.name, &write.object["metadata"]["annotations"])).collect();
    assert_eq!(changed.len(), 3, "each once: {told:#?}");
}
