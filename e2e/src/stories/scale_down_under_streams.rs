//! A pool shrinks from three pods to one while clients stream from all of them: those that have to go finish what they
//! have before they are deleted, and no client notices.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::pool::{ADMIN_PORT, PoolPod};
use super::scaling::Size;
use super::scene::Scene;
use super::streams::{Load, Streams, Verdict};
use super::traffic::reading;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
const PODS: u32 = 3;
/// A third of what one pod does at once, so that one pod is enough for them.
const CLIENTS: usize = 4;

/// What was seen while the pool shrank.
#[derive(Default)]
struct Seen {
    /// Looks at which a pod that had to go was still there, working.
    waited: u32,
    /// UIDs of the pods that were seen on their way out.
    deleted: Vec<String>,
}

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let ollama = json!({ "ollama": { "numParallel": 12, "contextLength": 512, "keepAlive": "-1" } });
    let pods = scene.serving_growing(&scene.growing_pool(POOL, PODS, PODS, &ollama)?)?;
    scene.warm_up_slow(&pods)?;
    let load = Load { clients: CLIENTS, model: "slow", tokens: 60..=120, limit: Duration::from_mins(1) };
    let streams = scene.streams(scene.service(POOL, 11434)?, &load);
    all_have_work(scene, &streams)?;
    let watch = Stopwatch::start();
    scene.set_bounds(POOL, 1, 1)?;
    let seen = it_shrinks(scene)?;
    let took = watch.elapsed();
    scene.tell(&format!(
        "from {PODS} pods to 1 in {}; looks at which pods that had to go still worked: {}",
        seconds(took),
        seen.waited
    ));
    let left = scene.pool_serves(POOL, 1)?;
    let tally = streams.stop()?;
    scene.tell(&tally.to_string());
    tally.is_undisturbed(10)?;
    ensure!(tally.count(Verdict::Refused) == 0, "there was room for everybody: {tally}");
    ensure!(seen.waited > 0, "the Deployment shrank at once, and nobody was waited for");
    ensure!(seen.deleted.len() + 1 == PODS as usize, "{:?} were seen to go", seen.deleted);
    scene.at_rest(&left, &[])
}

fn all_have_work(scene: &Scene, streams: &Streams) -> Result<()> {
    scene.until("some answers are whole", || {
        let whole = streams.so_far().count(Verdict::Complete);
        Ok(if whole >= CLIENTS { Ok(()) } else { Err(format!("only {whole}")) })
    })
}

fn it_shrinks(scene: &Scene) -> Result<Seen> {
    let mut seen = Seen::default();
    scene.until("one pod is left", || {
        let size = scene.size(POOL)?;
        look(scene, &size, &mut seen)?;
        Ok(if size.pods.len() == 1 { Ok(()) } else { Err(size.to_string()) })
    })?;
    Ok(seen)
}

fn look(scene: &Scene, size: &Size, seen: &mut Seen) -> Result<()> {
    seen.waited += u32::from(size.desired.is_some_and(|desired| desired < size.asked));
    for pod in size.pods.iter().filter(|pod| pod.leaving) {
        if !seen.deleted.contains(&pod.uid) {
            seen.deleted.push(pod.uid.clone());
            it_had_finished(scene, pod)?;
        }
    }
    Ok(())
}

/// Nothing runs in a pod that is being deleted, as far as it still answers.
fn it_had_finished(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let Ok(metrics) = scene.metrics(pod.port(ADMIN_PORT)?) else { return Ok(()) };
    let running = reading(&metrics, "corral_in_flight")? + reading(&metrics, "corral_queue_depth")?;
    ensure!(running == 0, "{} is deleted with {running} requests", pod.name);
    Ok(())
}
