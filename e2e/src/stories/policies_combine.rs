//! Policies for some pools, for all, and above all: each limit's state says what became of it and by whose doing, and
//! `explain` in a pod says the same of a request, and uses nothing up.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::{PoolPod, policy};
use super::scene::Scene;
use super::traffic::{names_limit, one_token, sort};

const POOL: &str = "chat";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let mut pool = scene.pool(POOL, 1);
    let metadata =
        pool.pointer_mut("/metadata").and_then(Value::as_object_mut).context("a pool has metadata")?;
    metadata.insert("labels".into(), json!({ "environment": "production" }));
    let pods = scene.serving(&pool)?;
    scene.warm_up(&pods)?;
    let pod = pods.first().context("the pool has a pod")?;
    a_default_gives_way(scene, pod)?;
    an_override_takes_the_place(scene, pod)?;
    a_shadow_only_counts(scene, pod)?;
    explain_uses_nothing_up(scene, pod)
}

fn few(burst: u32) -> Value {
    json!([{ "name": "each", "per": ["ClientIP"], "requests": "1/h", "burst": { "requests": burst } }])
}

/// A policy by labels, with more in its spec.
fn selecting(name: &str, limits: &Value, more: &Value) -> Value {
    let mut policy = policy(name, POOL, limits);
    if let Some(spec) = policy.pointer_mut("/spec").and_then(Value::as_object_mut) {
        spec.remove("targetRefs");
        spec.insert("targetSelector".into(), json!({ "matchLabels": { "environment": "production" } }));
        spec.extend(more.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
    }
    policy
}

/// What the status of a policy says of its only limit.
fn state(scene: &Scene, policy: &str) -> Result<String> {
    let object = scene.get(&format!("ratelimitpolicy/{policy}"))?;
    let limit =
        object.pointer("/status/limits/0").with_context(|| format!("no limit in the status of {policy}"))?;
    Ok(limit.get("state").and_then(Value::as_str).unwrap_or_default().to_owned())
}

fn until_state(scene: &Scene, policy: &str, wanted: &str) -> Result<()> {
    scene.until(&format!("the limit of {policy} is {wanted}"), || {
        let now = state(scene, policy)?;
        Ok(if now == wanted { Ok(()) } else { Err(now) })
    })
}

fn served_of(scene: &Scene, pod: &PoolPod, count: usize, limit: &str) -> Result<usize> {
    let (served, refused) = sort(scene.volley(pod.client_port()?, &one_token(), count)?)?;
    refused
        .iter()
        .try_for_each(|attempt| names_limit(&attempt.answer, &format!("{}/{limit}", scene.namespace)))?;
    Ok(served.len())
}

fn a_default_gives_way(scene: &Scene, pod: &PoolPod) -> Result<()> {
    scene.enforced_policy(&selecting("everywhere", &few(2), &json!({ "precedence": "Default" })))?;
    let served = served_of(scene, pod, 4, "everywhere/each")?;
    ensure!(served == 2, "the default alone lets 2 of 4 through, not {served}");
    scene.enforced_policy(&policy("own", POOL, &few(5)))?;
    until_state(scene, "everywhere", "Replaced")?;
    let served = served_of(scene, pod, 7, "own/each")?;
    ensure!(served == 5, "beside it the pool's own lets 5 of 7 through, not {served}");
    Ok(())
}

fn an_override_takes_the_place(scene: &Scene, pod: &PoolPod) -> Result<()> {
    scene.enforced_policy(&selecting("ceiling", &few(3), &json!({ "precedence": "Override" })))?;
    until_state(scene, "own", "Overridden")?;
    let own = scene.get("ratelimitpolicy/own")?;
    let by = own.pointer("/status/limits/0/by").and_then(Value::as_str).unwrap_or_default();
    ensure!(by.contains("ceiling"), "overridden by `{by}`");
    let served = served_of(scene, pod, 5, "ceiling/each")?;
    ensure!(served == 3, "what overrides lets 3 of 5 through, not {served}");
    Ok(())
}

fn a_shadow_only_counts(scene: &Scene, pod: &PoolPod) -> Result<()> {
    scene
        .cluster
        .kubectl([
            "delete",
            "ratelimitpolicy",
            "own",
            "ceiling",
            "everywhere",
            "--namespace",
            &scene.namespace,
        ])
        .run()?;
    let limits = json!([
        { "name": "tried", "mode": "Shadow", "per": ["ClientIP"], "requests": "1/h", "burst": { "requests": 1 } },
        { "name": "wide", "per": ["ClientIP"], "requests": "100/h", "burst": { "requests": 20 } },
    ]);
    scene.enforced_policy(&policy("trial", POOL, &limits))?;
    let served = served_of(scene, pod, 4, "trial/wide")?;
    ensure!(served == 4, "a shadow refuses {} of 4", 4 - served);
    let would = scene.decisions(pod, "tried", "would_refuse")?;
    ensure!(would == 3, "of 4 it would have refused 3, and says {would}");
    Ok(())
}

fn explain_uses_nothing_up(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let exec = |words: &[&str]| {
        let exec = [
            "exec",
            &pod.name,
            "--container=limiter",
            "--namespace",
            &scene.namespace,
            "--",
            "/corral-sidecar",
        ];
        scene.cluster.kubectl(exec).args(words).read()
    };
    let before = scene.remaining(pod.client_port()?, "wide")?;
    let told = exec(&["explain", "--request", "POST /api/chat model=tiny"])?;
    ensure!(
        told.contains("trial/wide") && told.contains("trial/tried"),
        "explain leaves a limit out: {told}"
    );
    let after = scene.remaining(pod.client_port()?, "wide")?;
    ensure!(before == after, "explain used up {}", before - after);
    let top = exec(&["top", "--once"])?;
    ensure!(top.lines().count() >= 2, "top knows no client: {top}");
    scene.tell(&format!("explain says: {}", told.lines().next().unwrap_or_default()));
    Ok(())
}
