//! Kubernetes' own `HorizontalPodAutoscaler` sizes a pool through its scale subresource, by a metric that is not the
//! cluster's: up, and down under streams. With a pool that sizes itself it is found to be one writer too many.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::scene::Scene;
use super::streams::Load;
use crate::cluster::external_metrics::ExternalMetrics;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
const MOST: u32 = 3;
const METRIC: &str = "queued_requests";
/// What one pod is to have of it.
const TARGET: u64 = 2;

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let fields = json!({
        "autoscaling": { "mode": "External" },
        "drain": { "delaySeconds": 2, "timeoutSeconds": 60 },
    });
    let pods = scene.serving(&scene.pool_with(POOL, 1, &fields)?)?;
    scene.warm_up_slow(&pods)?;
    scene.gpus(0, MOST)?;
    let metrics = ExternalMetrics::serve(&scene.cluster, &scene.namespace)?;
    metrics.set(TARGET * u64::from(MOST));
    scene.apply(&autoscaler().to_string())?;
    sized(scene, MOST)?;
    let load = Load { clients: 4, model: "slow", tokens: 10..=60, limit: Duration::from_mins(1) };
    let streams = scene.streams(scene.service(POOL, 11434)?, &load);
    metrics.set(TARGET);
    sized(scene, 1)?;
    let tally = streams.stop()?;
    scene.tell(&tally.to_string());
    tally.is_undisturbed(10)?;
    ensure!(metrics.asked() > 0, "nobody asked for the metric");
    two_writers_are_found(scene)
}

fn autoscaler() -> Value {
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": "by-queue" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "corral.dev/v1alpha1", "kind": "OllamaPool", "name": POOL },
            "minReplicas": 1,
            "maxReplicas": MOST,
            "metrics": [{ "type": "External", "external": {
                "metric": { "name": METRIC },
                "target": { "type": "AverageValue", "averageValue": TARGET.to_string() },
            }}],
            "behavior": { "scaleDown": { "stabilizationWindowSeconds": 0 } },
        },
    })
}

fn sized(scene: &Scene, replicas: u32) -> Result<()> {
    let watch = Stopwatch::start();
    scene.pool_serves(POOL, replicas as usize)?;
    scene.tell(&format!("{replicas} serve after {}", seconds(watch.elapsed())));
    Ok(())
}

fn two_writers_are_found(scene: &Scene) -> Result<()> {
    let object = format!("ollamapool/{POOL}");
    let builtin = json!({ "spec": { "autoscaling": { "mode": "Builtin", "maxReplicas": MOST } } });
    scene.patch(&object, &builtin)?;
    let said = scene.until_reason(&object, "AutoscalingConflict", "True", "SecondWriter")?;
    scene.tell(&said.message);
    ensure!(said.message.contains("by-queue"), "it does not name the other one: {}", said.message);
    Ok(())
}
