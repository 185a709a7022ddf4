//! The operator is killed again and again while policies change and a pool is rolled: no answer is cut, no pod is
//! replaced once too often, and soon after the last kill everything is as it was asked for.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::pool::{PoolPod, describe, policy};
use super::scene::Scene;
use super::streams::Load;
use super::traffic::{one_token, sort};
use crate::machine::clock::{Deadline, Stopwatch, seconds};

const POOL: &str = "chat";
const REPLICAS: u32 = 2;
const KILLS: u32 = 8;
/// What the last policy allows at once.
const LAST: u32 = 12;
const EVERY: Duration = Duration::from_secs(4);
/// The Lease, 10 s without grants, and a round of D; a new pod must be granted too.
const CONVERGED: Duration = Duration::from_secs(45);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let before = scene.serving(&pool(scene)?)?;
    scene.warm_up(&before)?;
    scene.enforced_policy(&few(10))?;
    let service = scene.service(POOL, 11434)?;
    let load = Load { clients: 3, model: "tiny", tokens: 50..=400, limit: Duration::from_mins(1) };
    let streams = scene.streams(service, &load);
    scene.patch(&format!("ollamapool/{POOL}"), &json!({ "spec": { "ollama": { "keepAlive": "1h" } } }))?;
    let mut seen = killed_again_and_again(scene)?;
    let watch = Stopwatch::start();
    let after = it_converges(scene, &before, &mut seen)?;
    let converged = watch.elapsed();
    let tally = streams.stop()?;
    scene.tell(&format!(
        "{KILLS} kills, one each {} s; converged {} after the last. Clients: {tally}",
        EVERY.as_secs(),
        seconds(converged)
    ));
    tally.is_undisturbed(20)?;
    ensure!(converged <= CONVERGED, "it took {} to converge", seconds(converged));
    let wanted = 2 * REPLICAS as usize;
    ensure!(seen.len() == wanted, "a rollout takes {wanted} pods, and there were {}: {seen:?}", seen.len());
    the_last_policy_holds(scene, &after)?;
    scene.at_rest(&after, &[])
}

/// Its pods are told to go a while before they close: every node has heard of it by then.
fn pool(scene: &Scene) -> Result<Value> {
    scene.pool_with(POOL, REPLICAS, &json!({ "drain": { "delaySeconds": 3, "timeoutSeconds": 30 } }))
}

/// For plain generation, which the clients of the load do not ask for.
fn few(burst: u32) -> Value {
    let limit = json!({
        "name": "few", "match": { "endpoints": ["Generate"] }, "per": ["Global"],
        "requests": "1/h", "burst": { "requests": burst },
    });
    policy("few", POOL, &json!([limit]))
}

/// Gives the UIDs of all pods of the pool that were seen meanwhile.
fn killed_again_and_again(scene: &Scene) -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    for kill in 1..=KILLS {
        let next = Deadline::after(EVERY);
        let burst = if kill == KILLS { LAST } else { 20 + kill };
        scene.apply(&few(burst).to_string())?;
        look(scene, &mut seen)?;
        thread::sleep(next.left());
        look(scene, &mut seen)?;
        scene.kill_the_operator()?;
    }
    Ok(seen)
}

fn look(scene: &Scene, seen: &mut BTreeSet<String>) -> Result<Vec<PoolPod>> {
    // Those on their way out as well.
    let pods = scene.every_pod_with(&scene.namespace, &format!("corral.dev/pool={POOL}"))?;
    seen.extend(pods.iter().map(|pod| pod.uid.clone()));
    Ok(pods)
}

fn it_converges(scene: &Scene, before: &[PoolPod], seen: &mut BTreeSet<String>) -> Result<Vec<PoolPod>> {
    scene.until("every pod is a new one and Ready", || {
        let pods = look(scene, seen)?;
        let old = pods.iter().any(|pod| before.iter().any(|before| before.uid == pod.uid));
        let ready = pods.len() == REPLICAS as usize && pods.iter().all(|pod| pod.ready);
        Ok(if ready && !old { Ok(()) } else { Err(describe(&pods)) })
    })?;
    scene.until_condition("ratelimitpolicy/few", "Programmed", "True")?;
    scene.pool_serves(POOL, REPLICAS as usize)
}

/// Half of the burst on each of two pods, and nothing was asked of them before.
fn the_last_policy_holds(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    for pod in pods {
        let (served, _) = sort(scene.volley(pod.client_port()?, &one_token(), 10)?)?;
        ensure!(served.len() == 6, "{} admits {} of 10, not its share of 6", pod.name, served.len());
    }
    Ok(())
}
