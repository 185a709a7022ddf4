//! A pool that has more to do than its GPUs allow: it says so within a minute, does not waver, and grows as soon as there
//! is a GPU more.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::condition;
use super::pool::describe;
use super::scaling::Size;
use super::scene::Scene;
use super::streams::{Load, Streams};
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
const QUOTA: &str = "gpus";
const SAYS_WITHIN: Duration = Duration::from_mins(1);
/// How long it is watched while it cannot grow.
const WATCHED: Duration = Duration::from_secs(12);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    scene.apply(&quota(scene, 1).to_string())?;
    let pool = scene.growing_pool(POOL, 1, 2, &json!({}))?;
    let pods = scene.serving_growing(&pool)?;
    // The namespace may have one GPU more than there is.
    scene.gpus(0, 1)?;
    scene.warm_up_slow(&pods)?;
    let load = Load { clients: 40, model: "slow", tokens: 10..=30, limit: Duration::from_mins(2) };
    let streams = scene.streams(scene.service(POOL, 11434)?, &load);
    it_says_so(scene, &streams, "a quota")?;
    it_does_not_waver(scene)?;
    scene.apply(&quota(scene, 2).to_string())?;
    a_pod_waits(scene)?;
    it_says_so(scene, &streams, "no GPU")?;
    it_does_not_waver(scene)?;
    scene.gpus(0, 2)?;
    it_grows(scene)?;
    let tally = streams.stop()?;
    scene.tell(&tally.to_string());
    tally.is_undisturbed(20)
}

fn quota(scene: &Scene, gpus: u32) -> Value {
    let resource = format!("requests.{}", scene.resource());
    json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": { "name": QUOTA },
        "spec": { "hard": { resource: gpus.to_string() } },
    })
}

fn it_says_so(scene: &Scene, streams: &Streams, what: &str) -> Result<()> {
    let watch = Stopwatch::start();
    let said = scene.until_reason(&object(), "ScalingLimited", "True", "InsufficientGPU")?;
    scene.tell(&format!(
        "{what}: InsufficientGPU after {}, {} after the load began: {}",
        seconds(watch.elapsed()),
        seconds(streams.elapsed()),
        said.message
    ));
    ensure!(watch.elapsed() <= SAYS_WITHIN, "that is more than {}", seconds(SAYS_WITHIN));
    Ok(())
}

fn object() -> String {
    format!("ollamapool/{POOL}")
}

/// Neither the size nor the pods nor what it says changes.
fn it_does_not_waver(scene: &Scene) -> Result<()> {
    let (size, changed) = (scene.size(POOL)?, last_change(scene)?);
    let decided = scene.explained_decisions(POOL)?;
    let same =
        |now: &Size| (now.desired, now.asked, now.staying()) == (size.desired, size.asked, size.staying());
    let looks = scene.size_holds(POOL, WATCHED, same).with_context(|| format!("it was {size}"))?;
    let now = last_change(scene)?;
    ensure!(now == changed, "the condition changed at {now}, not last at {changed}");
    let decisions = scene.explained_decisions(POOL)?;
    ensure!(!decisions.is_empty() && decisions == decided, "{decided:?} became {decisions:?}");
    scene.tell(&format!("the same in {looks} looks in {}", seconds(WATCHED)));
    Ok(())
}

fn last_change(scene: &Scene) -> Result<String> {
    let pool = scene.get(&object())?;
    let conditions = pool.pointer("/status/conditions").and_then(Value::as_array);
    let limited = conditions.into_iter().flatten().find(|c| c.get("type") == Some(&json!("ScalingLimited")));
    let time = limited.and_then(|condition| condition.get("lastTransitionTime")?.as_str());
    time.map(str::to_owned).with_context(|| condition::summary(&pool))
}

/// The `ReplicaSet` tries again by itself, after some seconds.
fn a_pod_waits(scene: &Scene) -> Result<()> {
    scene.until("a pod waits for a GPU", || {
        let pods = scene.pods_of(POOL)?;
        let waits = pods.iter().any(|pod| pod.node.is_empty());
        Ok(if waits { Ok(()) } else { Err(describe(&pods)) })
    })
}

fn it_grows(scene: &Scene) -> Result<()> {
    let watch = Stopwatch::start();
    scene.pool_serves(POOL, 2)?;
    scene.tell(&format!("both serve {} after there was a GPU more", seconds(watch.elapsed())));
    scene.until("it is no longer short of GPUs", || {
        let pool = scene.get(&object())?;
        let short = condition::of(&pool, "ScalingLimited").is_some_and(|c| c.reason == "InsufficientGPU");
        Ok(if short { Err(condition::summary(&pool)) } else { Ok(()) })
    })
}
