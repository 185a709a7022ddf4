//! One replica more than there are GPUs: it waits, says why, and holds up neither an update nor a node drain.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::pool::PoolPod;
use super::scene::Scene;
use super::streams::Load;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
const GPUS: u32 = 2;

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let before = crowded_pool(scene)?;
    let load = Load { clients: 4, model: "tiny", tokens: 20..=400, limit: Duration::from_mins(1) };
    let streams = scene.streams(scene.service(POOL, 11434)?, &load);
    let after = every_running_pod_is_updated(scene, &before)?;
    a_running_pod_can_be_evicted(scene, &after)?;
    let tally = streams.stop()?;
    scene.tell(&tally.to_string());
    tally.is_undisturbed(20)?;
    scene.at_rest(&running(scene)?, &[])
}

fn crowded_pool(scene: &Scene) -> Result<Vec<PoolPod>> {
    scene.models()?;
    scene.gpus(0, GPUS)?;
    let fields = json!({ "drain": { "delaySeconds": 2, "timeoutSeconds": 20 } });
    scene.apply(&scene.pool_with(POOL, GPUS + 1, &fields)?.to_string())?;
    let pods = scene.until(&format!("{GPUS} pods serve"), || {
        let pods = running(scene)?;
        Ok(if pods.len() == GPUS as usize { Ok(pods) } else { Err(format!("{pods:?}")) })
    })?;
    let said = scene.until_reason(&format!("ollamapool/{POOL}"), "Ready", "False", "InsufficientGPU")?;
    scene.tell(&format!("status: {}", said.message));
    Ok(pods)
}

/// The pods that have a GPU and serve.
fn running(scene: &Scene) -> Result<Vec<PoolPod>> {
    Ok(scene.pods_of(POOL)?.into_iter().filter(|pod| pod.ready).collect())
}

fn every_running_pod_is_updated(scene: &Scene, before: &[PoolPod]) -> Result<Vec<PoolPod>> {
    scene.patch(&format!("ollamapool/{POOL}"), &json!({ "spec": { "ollama": { "keepAlive": "1h" } } }))?;
    let watch = Stopwatch::start();
    let after = at_least_one_serves(scene, before).context("an update")?;
    scene.tell(&format!("both running pods are new ones after {}", seconds(watch.elapsed())));
    Ok(after)
}

/// Waits until none of `gone` is left and both GPUs serve again, and holds that one always does.
fn at_least_one_serves(scene: &Scene, gone: &[PoolPod]) -> Result<Vec<PoolPod>> {
    let mut fewest = usize::MAX;
    let now = scene.until("both GPUs serve with other pods", || {
        let now = running(scene)?;
        fewest = fewest.min(now.len());
        let old = now.iter().filter(|pod| gone.iter().any(|one| one.uid == pod.uid)).count();
        let all = old == 0 && now.len() == GPUS as usize;
        Ok(if all { Ok(now) } else { Err(format!("{old} old ones among {now:?}")) })
    })?;
    ensure!(fewest >= 1, "no pod was left that serves");
    Ok(now)
}

/// The budget counts the pod that waits as missing already, and allows one more.
fn a_running_pod_can_be_evicted(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    let Some(victim) = pods.first() else { bail!("no pod runs") };
    let watch = Stopwatch::start();
    scene.until("the budget allows an eviction", || {
        Ok(scene.evict(victim).map_err(|error| error.to_string()))
    })?;
    scene.tell(&format!("a running pod is evicted {} after the update", seconds(watch.elapsed())));
    at_least_one_serves(scene, std::slice::from_ref(victim)).context("an eviction").map(drop)
}
