//! Two replicas with one GPU each land where GPUs are and serve; a third, without a GPU left, waits, and the pool says why.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::pool::describe;
use super::scene::Scene;
use super::traffic::one_token;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    scene.models()?;
    // Only the second node has GPUs of this kind.
    scene.gpus(1, 2)?;
    let watch = Stopwatch::start();
    scene.apply(&scene.pool(POOL, 2).to_string())?;
    let pods = scene.pool_serves(POOL, 2)?;
    scene.tell(&format!("2 pods Ready {} after kubectl apply", seconds(watch.elapsed())));
    ensure!(pods.iter().all(|pod| pod.node == "node1"), "not where the GPUs are: {}", describe(&pods));
    the_service_answers(scene)?;
    the_status_says_what_runs(scene)?;
    without_a_gpu_the_next_pod_waits_and_the_pool_says_so(scene)?;
    scene.gpus(1, 3)?;
    scene.pool_serves(POOL, 3).map(drop)
}

fn the_service_answers(scene: &Scene) -> Result<()> {
    let service = scene.service(POOL, 11434)?;
    let answer = scene.http(service, &one_token())?;
    ensure!(answer.status == 200, "the Service says {}: {}", answer.status, answer.text());
    Ok(())
}

fn the_status_says_what_runs(scene: &Scene) -> Result<()> {
    let pool = scene.get(&format!("ollamapool/{POOL}"))?;
    let number = |pointer: &str| pool.pointer(pointer).and_then(Value::as_u64);
    ensure!(number("/status/gpus") == Some(2), "2 GPUs, not {:?}", number("/status/gpus"));
    let endpoint = scene.field(&format!("ollamapool/{POOL}"), "/status/endpoint")?;
    let expected = format!("{POOL}.{}.svc:11434", scene.namespace);
    ensure!(endpoint == expected, "the endpoint is `{endpoint}`, not `{expected}`");
    Ok(())
}

fn without_a_gpu_the_next_pod_waits_and_the_pool_says_so(scene: &Scene) -> Result<()> {
    scene.scale(POOL, 3)?;
    let watch = Stopwatch::start();
    let said = scene.until_reason(&format!("ollamapool/{POOL}"), "Ready", "False", "InsufficientGPU")?;
    scene.tell(&format!("InsufficientGPU after {}: {}", seconds(watch.elapsed()), said.message));
    let pods = scene.pods_of(POOL)?;
    let waiting: Vec<_> = pods.iter().filter(|pod| pod.node.is_empty()).collect();
    ensure!(waiting.len() == 1 && pods.len() == 3, "one of three waits, not {}", describe(&pods));
    // The others go on meanwhile.
    the_service_answers(scene)
}
