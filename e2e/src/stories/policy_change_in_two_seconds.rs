//! A policy that is applied holds on every serving pod within two seconds, and says so only when it does.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::condition;
use super::pool::{PoolPod, policy};
use super::scene::Scene;
use super::traffic::{names_limit, one_token};
use crate::cluster::api::Api;
use crate::cluster::http::Request;
use crate::machine::clock::{Deadline, Stopwatch, seconds};

const POOL: &str = "chat";
const TRIES: usize = 20;
const PROMISE: Duration = Duration::from_secs(2);
/// Between two looks at the pods, which may ask each twice: the cap on metadata is 20 a second.
const PAUSE: Duration = Duration::from_millis(100);

/// 32 bytes that are no pool's key, in base64.
const OTHER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// What a policy does to the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Shut,
}

/// When a policy held, counted from the moment at which `kubectl apply` was started.
struct Held {
    applied: Duration,
    enforced: Duration,
    programmed: Duration,
}

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 2)?;
    let api = Api::open(&scene.cluster)?;
    scene.enforced_policy(&gate(Gate::Open))?;
    let mut held = Vec::new();
    for try_ in 0..TRIES {
        let to = if try_ % 2 == 0 { Gate::Shut } else { Gate::Open };
        held.push(change(scene, &api, &pods, to).with_context(|| format!("try {try_}, {to:?}"))?);
    }
    report(scene, &held)?;
    what_was_used_stays_used(scene, &pods)?;
    an_old_plan_in_a_new_pod_is_noticed(scene, &api)
}

/// A limit on metadata, which costs no slot: all but endless, or one request an hour.
fn gate(gate: Gate) -> Value {
    let (rate, burst) = match gate {
        Gate::Open => ("1000/s", 1000),
        Gate::Shut => ("1/h", 1),
    };
    let limit = json!({
        "name": "gate", "match": { "endpoints": ["Metadata"] }, "per": ["Global"],
        "requests": rate, "burst": { "requests": burst },
    });
    policy("gate", POOL, &json!([limit]))
}

fn change(scene: &Scene, api: &Api, pods: &[PoolPod], to: Gate) -> Result<Held> {
    let path = format!("/apis/corral.dev/v1alpha1/namespaces/{}/ratelimitpolicies/gate", scene.namespace);
    let before = generation(&api.get(&path)?);
    let (watch, deadline) = (Stopwatch::start(), Deadline::after(PROMISE * 8));
    let (mut enforced, mut programmed) = (None, None);
    let applied = thread::scope(|scope| -> Result<Duration> {
        let applying = scope.spawn(|| scene.apply(&gate(to).to_string()).map(|()| watch.elapsed()));
        while enforced.is_none() || programmed.is_none() {
            ensure!(!deadline.passed(), "not everywhere after {} s", watch.elapsed().as_secs());
            let policy = api.get(&path)?;
            let says_so = generation(&policy) > before && condition::holds(&policy, "Programmed", "True");
            let everywhere = all_are(scene, pods, to)?;
            // Asked after the status was read: whatever it said had to be true by then.
            ensure!(!says_so || everywhere, "Programmed=True before every pod enforces it");
            enforced = enforced.or_else(|| everywhere.then(|| watch.elapsed()));
            programmed = programmed.or_else(|| says_so.then(|| watch.elapsed()));
            thread::sleep(PAUSE);
        }
        applying.join().unwrap_or_else(|_| anyhow::bail!("kubectl panicked"))
    })?;
    let (enforced, programmed) = enforced.zip(programmed).context("it was never enforced")?;
    Ok(Held { applied, enforced, programmed })
}

fn generation(policy: &Value) -> u64 {
    policy.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0)
}

/// Whether every pod does this to requests now.
fn all_are(scene: &Scene, pods: &[PoolPod], to: Gate) -> Result<bool> {
    for (node, pod) in pods.iter().enumerate() {
        // A gate that has just been shut lets the first request of the hour in: only the second one shows it.
        let shut = is_refused(scene, node, pod)? || (to == Gate::Shut && is_refused(scene, node, pod)?);
        if shut != (to == Gate::Shut) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// From another node for each pod: a pod answers only so many requests for metadata of one address.
fn is_refused(scene: &Scene, node: usize, pod: &PoolPod) -> Result<bool> {
    let limit = Duration::from_secs(5);
    let answer = scene.cluster.http(node % 2, pod.client_port()?, &Request::get("/api/version"), limit)?;
    let refused = answer.status == 429;
    ensure!(refused || answer.status == 200, "{} says {}: {}", pod.name, answer.status, answer.text());
    if refused {
        names_limit(&answer, &format!("{}/gate/gate", scene.namespace))?;
    }
    Ok(refused)
}

fn report(scene: &Scene, held: &[Held]) -> Result<()> {
    let of = |pick: fn(&Held) -> Duration| {
        let mut times: Vec<Duration> = held.iter().map(pick).collect();
        times.sort();
        let (middle, longest) = (times.get(times.len() / 2), times.last());
        (middle.copied().unwrap_or_default(), longest.copied().unwrap_or_default())
    };
    let text = |(middle, longest): (Duration, Duration)| {
        format!("p50 {} ms, max {} ms", middle.as_millis(), longest.as_millis())
    };
    let promised = of(|held| held.enforced);
    let by_corral = of(|held| held.enforced.saturating_sub(held.applied));
    scene.tell(&format!(
        "{TRIES} changes, from the start of kubectl apply to the last of 2 pods: {}",
        text(promised)
    ));
    scene.tell(&format!("  of which kubectl itself: {}", text(of(|held| held.applied))));
    scene.tell(&format!("  from when it returned to the last of 2 pods: {}", text(by_corral)));
    scene.tell(&format!(
        "  from its start until Programmed=True was read: {}",
        text(of(|held| held.programmed))
    ));
    ensure!(promised.1 <= PROMISE, "the slowest change took {} ms", promised.1.as_millis());
    Ok(())
}

/// Three requests are used up; the limit is raised; three are still used up.
fn what_was_used_stays_used(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    let limit = |burst: u32| json!([{ "name": "used", "per": ["Global"], "requests": "10/h", "burst": { "requests": burst } }]);
    scene.enforced_policy(&policy("gate", POOL, &limit(10)))?;
    scene.warm_up(pods)?;
    let to = pods.first().context("the pool has pods")?.client_port()?;
    for _ in 0..2 {
        ensure!(scene.http(to, &one_token())?.status == 200, "5 at once are this pod's share");
    }
    scene.enforced_policy(&policy("gate", POOL, &limit(20)))?;
    let left = scene.remaining(to, "used")?;
    ensure!(left == 10 - 3, "of a share of 10 with 3 used, {left} are left");
    Ok(())
}

/// A pod that enforces yesterday's plan and hears nobody makes the policy Programmed=False by its name; without it the
/// policy is Programmed again.
fn an_old_plan_in_a_new_pod_is_noticed(scene: &Scene, api: &Api) -> Result<()> {
    let path = format!("/apis/corral.dev/v1alpha1/namespaces/{}/ratelimitpolicies/gate", scene.namespace);
    let newcomer = newcomer(scene)?;
    scene.enforced_policy(&gate(Gate::Shut))?;
    scene.gpus(0, 3)?;
    scene.apply(&newcomer)?;
    let watch = Stopwatch::start();
    let unsaid = Deadline::after(scene.deadline.left());
    let said = unsaid.wait("Programmed is False", Duration::from_millis(20), || {
        let now = api.get(&path)?;
        let found = condition::of(&now, "Programmed").filter(|c| c.current && c.status == "False");
        Ok(found.ok_or_else(|| condition::summary(&now)))
    })?;
    let (after, why) = (seconds(watch.elapsed()), said.message);
    scene.tell(&format!("Programmed=False {after} after a pod with an old plan was made: {why}"));
    let said = scene.until_reason("ratelimitpolicy/gate", "Programmed", "False", "PartiallyProgrammed")?;
    ensure!(said.message.contains("newcomer"), "the pod is not named: {}", said.message);
    scene
        .cluster
        .kubectl(["delete", "pod", "newcomer", "--namespace", &scene.namespace, "--wait=false"])
        .run()?;
    scene.until_condition("ratelimitpolicy/gate", "Programmed", "True").map(drop)
}

/// A copy of a pod of the pool, as JSON for `kubectl apply`. It mounts a copy of the plan as it is now, and a key that
/// is not the pool's, so that nobody can tell it a newer one.
fn newcomer(scene: &Scene) -> Result<String> {
    copied_secret(scene, "plan", |data| data)?;
    copied_secret(scene, "key", |_| json!({ "key-0001": OTHER_KEY }))?;
    let pods = scene.pods_of(POOL)?;
    let model = scene.get(&format!("pod/{}", pods.first().context("the pool has pods")?.name))?;
    let mut spec = model.get("spec").cloned().context("a pod has a spec")?;
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("nodeName");
    }
    let spec = spec.to_string();
    let spec = spec.replace(&format!("\"{POOL}-plan\""), "\"old-plan\"");
    let spec: Value = serde_json::from_str(&spec.replace(&format!("\"{POOL}-key\""), "\"old-key\""))?;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "newcomer", "labels": { "corral.dev/pool": POOL } },
        "spec": spec,
    });
    Ok(pod.to_string())
}

fn copied_secret(scene: &Scene, what: &str, change: fn(Value) -> Value) -> Result<()> {
    let mut secret = scene.get(&format!("secret/{POOL}-{what}"))?;
    let data = secret.get_mut("data").map(Value::take).context("a Secret has data")?;
    let name = format!("old-{what}");
    let old =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "data": change(data) });
    scene.apply(&old.to_string())
}
