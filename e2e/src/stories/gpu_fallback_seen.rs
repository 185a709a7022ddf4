//! A model that does not lie wholly on its pod's GPU answers, but slowly: the pool says which one, and of which pod, and
//! that it has come back. No Ollama without a GPU can show it, so its answers are scripted.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::{ADMIN_PORT, PoolPod, live_on};
use super::scene::Scene;
use crate::artifacts::images::SCRIPTED_OLLAMA;

const POOL: &str = "chat";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    scene.models()?;
    scene.gpus(0, 1)?;
    let pool = scene.pool_with(POOL, 1, &json!({ "image": SCRIPTED_OLLAMA }))?;
    scene.apply(&pool.to_string())?;
    let pods = scene.pool_serves(POOL, 1)?;
    let pod = pods.first().context("the pool has a pod")?;
    it_is_told(scene, pod)?;
    the_model_moves(scene, pod, 5000)?;
    scene.until_condition(&object(), "GPUFallback", "False")?;
    ensure!(models_off_gpu(scene, pod)? == "0", "the pool knows more than its pod");
    // It was slow all the time, and served.
    live_on(&pods, &scene.pool_serves(POOL, 1)?)
}

fn object() -> String {
    format!("ollamapool/{POOL}")
}

fn it_is_told(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let told = scene.until_reason(&object(), "GPUFallback", "True", "ModelOffGPU")?;
    let words = format!("40 % of llama3:latest is on the GPU of {}", pod.name);
    ensure!(told.message.contains(&words), "it says: {}", told.message);
    ensure!(models_off_gpu(scene, pod)? == "1", "the pod's metrics know nothing of it");
    let events = scene.cluster.get(&["events", "--namespace", &scene.namespace])?;
    let events = events.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let warned = events.iter().any(|event| {
        event.get("reason") == Some(&json!("ModelOffGPU")) && event.get("type") == Some(&json!("Warning"))
    });
    ensure!(warned, "no event warns of it");
    scene.pool_serves(POOL, 1).map(drop).context("a slow pod is no dead one")
}

/// From now on so many of its 5000 bytes are on the GPU.
fn the_model_moves(scene: &Scene, pod: &PoolPod, size_vram: u32) -> Result<()> {
    let listed = json!({ "models": [{ "name": "llama3:latest", "model": "llama3:latest", "size": 5000,
        "size_vram": size_vram, "expires_at": "2318-01-01T00:00:00Z", "context_length": 4096 }] });
    let write = format!("echo '{listed}' > \"$HOME/api/ps\"");
    scene.cluster.exec(&scene.namespace, &pod.name, &["sh", "-c", &write]).map(drop)
}

fn models_off_gpu(scene: &Scene, pod: &PoolPod) -> Result<String> {
    let metrics = scene.metrics(pod.port(ADMIN_PORT)?)?;
    let line = metrics.lines().find_map(|line| line.strip_prefix("corral_models_off_gpu "));
    line.map(str::to_owned).with_context(|| format!("no corral_models_off_gpu in:\n{metrics}"))
}
