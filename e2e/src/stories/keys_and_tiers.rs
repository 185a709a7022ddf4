//! API keys from Secrets tell clients apart: two keys are one client, tiers have their own numbers, a key that is taken
//! out is worth nothing within two seconds, and no key is seen anywhere.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::{ADMIN_PORT, PoolPod, live_on, policy};
use super::scene::Scene;
use super::traffic::{one_token, sort};
use crate::cluster::corral::NAMESPACE;
use crate::cluster::http::Request;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
/// What every key of the story has in it, so that it can be looked for.
const MARK: &str = "seldom-seen";
const PROMISE: Duration = Duration::from_secs(2);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    secret(scene, "basic", &json!({ "alice": format!("{}\n{}", key("alice-1"), key("alice-2")) }))?;
    secret(scene, "premium", &json!({ "bob": key("bob") }))?;
    let mut pool = scene.pool(POOL, 2);
    let spec = pool.pointer_mut("/spec").and_then(Value::as_object_mut).context("a pool has a spec")?;
    let keys = json!([{ "secretName": "basic" }, { "secretName": "premium", "tier": "premium" }]);
    spec.insert("identity".into(), json!({ "apiKeys": keys, "unauthenticated": "Reject" }));
    let pods = scene.serving(&pool)?;
    scene.enforced_policy(&tiers())?;
    for pod in &pods {
        each_has_its_own(scene, pod.client_port()?)?;
    }
    whoever_is_unknown_is_told_so(scene, &pods)?;
    a_key_that_is_taken_out_is_worth_nothing(scene, &pods)?;
    no_key_is_seen_anywhere(scene, &pods)?;
    live_on(&pods, &scene.pods_of(POOL)?)
}

fn key(whose: &str) -> String {
    format!("{MARK}-{whose}")
}

fn secret(scene: &Scene, name: &str, data: &Value) -> Result<()> {
    let secret =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data });
    // Replaced, not applied: what apply keeps of it in an annotation would be the keys.
    let file = secret.to_string();
    scene
        .cluster
        .kubectl(["apply", "--server-side", "--force-conflicts", "--namespace", &scene.namespace, "-f", "-"])
        .input(file)
        .run()
        .map(drop)
}

/// 60 an hour and 4 at once for two pods: 2 each on a pod, and for the premium tier five times that.
fn tiers() -> Value {
    let limits =
        json!([{ "name": "each", "per": ["ApiKey"], "requests": "60/h", "burst": { "requests": 4 } }]);
    let mut policy = policy("tiers", POOL, &limits);
    if let Some(spec) = policy.pointer_mut("/spec").and_then(Value::as_object_mut) {
        spec.insert("tiers".into(), json!([{ "name": "premium", "scale": "5" }]));
    }
    policy
}

fn with(key: &str) -> Request {
    one_token().header("Authorization", &format!("Bearer {key}"))
}

fn each_has_its_own(scene: &Scene, to: SocketAddr) -> Result<()> {
    let (served, _) = sort(scene.volley(to, &with(&key("alice-1")), 3)?)?;
    ensure!(served.len() == 2, "of 3 requests of alice {} are served, not 2", served.len());
    let (served, _) = sort(scene.volley(to, &one_token().header("x-api-key", &key("alice-2")), 3)?)?;
    ensure!(served.is_empty(), "alice's second key is another client: {} are served", served.len());
    let (served, _) = sort(scene.volley(to, &with(&key("bob")), 15)?)?;
    ensure!(served.len() == 10, "of 15 requests of a premium client {} are served, not 10", served.len());
    Ok(())
}

fn whoever_is_unknown_is_told_so(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    let to = pods.first().context("the pool has a pod")?.client_port()?;
    for request in [one_token(), with("nobodys-key"), Request::get("/corral/v1/limits")] {
        let answer = scene.http(to, &request)?;
        ensure!(answer.status == 401, "{}: {}", answer.status, answer.text());
        ensure!(answer.header("www-authenticate").is_some(), "a 401 without WWW-Authenticate");
    }
    Ok(())
}

/// alice's first key is taken out while her second one stays.
fn a_key_that_is_taken_out_is_worth_nothing(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    let watch = Stopwatch::start();
    secret(scene, "basic", &json!({ "alice": key("alice-2") }))?;
    let applied = watch.elapsed();
    for pod in pods {
        let to = pod.client_port()?;
        scene.until(&format!("{} does not know the key any more", pod.name), || {
            let status = scene.http(to, &with(&key("alice-1")))?.status;
            Ok(if status == 401 { Ok(()) } else { Err(format!("{status}")) })
        })?;
    }
    let took = watch.elapsed();
    ensure!(took <= PROMISE + applied, "it took {}, of which kubectl {}", seconds(took), seconds(applied));
    for pod in pods {
        let answer = scene.http(pod.client_port()?, &with(&key("alice-2")))?;
        ensure!(answer.status == 429, "her other key was used up, and now gets {}", answer.status);
    }
    scene.tell(&format!(
        "a key was worth nothing on all pods {} after kubectl began ({} of it)",
        seconds(took),
        seconds(applied)
    ));
    Ok(())
}

fn no_key_is_seen_anywhere(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    let own = ["--namespace", &scene.namespace];
    let read = |words: &[&str], namespace: &[&str]| {
        scene.cluster.kubectl(words.iter().copied()).args(namespace).read()
    };
    let mut places = vec![
        (
            "the operator's log",
            read(
                &["logs", "--selector=app.kubernetes.io/component=operator", "--tail=-1"],
                &["--namespace", NAMESPACE],
            )?,
        ),
        ("events", read(&["get", "events", "--output=json"], &own)?),
        ("pools and policies", read(&["get", "ollamapools,ratelimitpolicies", "--output=json"], &own)?),
        ("pods", read(&["get", "pods,deployments", "--output=json"], &own)?),
        ("the plan", plan(scene)?),
    ];
    for pod in pods {
        places
            .push(("a sidecar's log", read(&["logs", &pod.name, "--container=limiter", "--tail=-1"], &own)?));
        places.push(("a sidecar's metrics", scene.metrics(pod.port(ADMIN_PORT)?)?));
    }
    for (place, text) in &places {
        ensure!(!text.contains(MARK), "a key stands in {place}");
    }
    scene.tell(&format!("no key stands in {} places that were looked into", places.len()));
    Ok(())
}

/// What the plan Secret holds, decoded.
fn plan(scene: &Scene) -> Result<String> {
    let template = "--output=go-template={{range .items}}{{range $key, $value := .data}}{{if eq $key \"plan.v1.json\"}}{{$value | base64decode}}{{end}}{{end}}{{end}}";
    let plan = scene.cluster.kubectl(["get", "secrets", template, "--namespace", &scene.namespace]).read()?;
    ensure!(plan.contains("\"alice\""), "the plan knows no client: {plan}");
    Ok(plan)
}
