//! A pool whose size somebody else decides: `kubectl scale` does, up and down under streams, and nothing of ours writes to
//! the pool's spec.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::scene::Scene;
use super::streams::Load;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
const PODS: u32 = 3;

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let fields = json!({
        "autoscaling": { "mode": "External" },
        "drain": { "delaySeconds": 2, "timeoutSeconds": 60 },
    });
    let pods = scene.serving(&scene.pool_with(POOL, 1, &fields)?)?;
    scene.warm_up_slow(&pods)?;
    scene.gpus(0, PODS)?;
    let said = scene.until_reason(&object(), "ScalingActive", "False", "External")?;
    scene.tell(&said.message);
    let load = Load { clients: 4, model: "slow", tokens: 10..=60, limit: Duration::from_mins(1) };
    let streams = scene.streams(scene.service(POOL, 11434)?, &load);
    let written = generation(scene)?;
    scaled(scene, PODS)?;
    scaled(scene, 1)?;
    let tally = streams.stop()?;
    scene.tell(&tally.to_string());
    tally.is_undisturbed(10)?;
    // Each change of the spec is a generation, and two were kubectl's.
    let now = generation(scene)?;
    ensure!(now == written + 2, "the spec was written {} times", now - written);
    its_status_tells_whose_sizes_they_were(scene)
}

fn object() -> String {
    format!("ollamapool/{POOL}")
}

fn generation(scene: &Scene) -> Result<u64> {
    Ok(scene.get(&object())?.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0))
}

fn scaled(scene: &Scene, replicas: u32) -> Result<()> {
    let watch = Stopwatch::start();
    scene.scale(POOL, replicas)?;
    scene.pool_serves(POOL, replicas as usize)?;
    scene.tell(&format!("{replicas} serve {} after kubectl scale", seconds(watch.elapsed())));
    Ok(())
}

fn its_status_tells_whose_sizes_they_were(scene: &Scene) -> Result<()> {
    let decisions = scene.explained_decisions(POOL)?;
    let sizes: Vec<_> = decisions.iter().map(|decision| (decision.from, decision.to)).collect();
    let theirs = decisions.iter().all(|decision| decision.reason == "External");
    ensure!(theirs && sizes == [(1, 3), (3, 1)], "the status tells of other sizes: {decisions:?}");
    Ok(())
}
