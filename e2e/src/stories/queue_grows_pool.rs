//! More is asked than one pod can do: the pool grows to three. When the others have nothing left to do it shrinks again to
//! the one pod that still works, and nobody's answer is cut on the way.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::pool::PoolPod;
use super::scaling::Decision;
use super::scene::Scene;
use super::streams::{Load, Streams};
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
const MOST: u32 = 3;
/// So many at once that it is no chance.
const CLIENTS: usize = 60;

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pool = scene.growing_pool(POOL, 1, MOST, &json!({}))?;
    let first = scene.serving_growing(&pool)?;
    scene.warm_up_slow(&first)?;
    let load = Load { clients: CLIENTS, model: "slow", tokens: 10..=30, limit: Duration::from_mins(1) };
    let streams = scene.streams(scene.service(POOL, 11434)?, &load);
    let pods = it_grows(scene, &streams)?;
    let (busy, last) = only_one_has_work_left(scene, &first, &pods)?;
    let tally = streams.stop()?;
    scene.tell(&tally.to_string());
    tally.is_undisturbed(30)?;
    let left = it_shrinks(scene)?;
    ensure!(left.uid == last.uid, "{} was left, and not {}, the one with work", left.name, last.name);
    busy.stop()?.is_undisturbed(2)?;
    it_says_why(scene)?;
    scene.at_rest(&[left], &[])
}

fn it_grows(scene: &Scene, streams: &Streams) -> Result<Vec<PoolPod>> {
    let asked = scene.until("three pods are asked for", || {
        let size = scene.size(POOL)?;
        Ok(if size.asked == u64::from(MOST) { Ok(streams.elapsed()) } else { Err(size.to_string()) })
    })?;
    let pods = scene.pool_serves(POOL, MOST as usize)?;
    scene.tell(&format!(
        "{MOST} pods are asked for {} after the load began, and serve after {}",
        seconds(asked),
        seconds(streams.elapsed())
    ));
    Ok(pods)
}

/// Of pods that came later Kubernetes itself would rather delete this one than the first.
fn only_one_has_work_left(scene: &Scene, first: &[PoolPod], pods: &[PoolPod]) -> Result<(Streams, PoolPod)> {
    let mut later = pods.iter().filter(|pod| first.iter().all(|first| first.uid != pod.uid));
    let last = later.next_back().context("a pod has come")?.clone();
    scene.warm_up_slow(std::slice::from_ref(&last))?;
    let load = Load { clients: 2, model: "slow", tokens: 60..=120, limit: Duration::from_mins(1) };
    Ok((scene.streams(last.client_port()?, &load), last))
}

fn it_shrinks(scene: &Scene) -> Result<PoolPod> {
    let watch = Stopwatch::start();
    let pods = scene.pool_serves(POOL, 1)?;
    scene.tell(&format!("one pod is left {} after the load ended", seconds(watch.elapsed())));
    pods.into_iter().next().context("a pod is left")
}

fn it_says_why(scene: &Scene) -> Result<()> {
    let decisions = scene.explained_decisions(POOL)?;
    let told: Vec<String> = decisions.iter().map(Decision::to_string).collect();
    scene.tell(&told.join("; "));
    let (first, last) = decisions.first().zip(decisions.last()).context("no decision is in the status")?;
    let most = decisions.iter().map(|decision| decision.to).max();
    let whole = (first.from, most, last.to) == (1, Some(MOST.into()), 1);
    ensure!(whole, "that is not 1 to {MOST} and back: {told:?}");
    for reason in ["ScaledUp", "ScaledDown"] {
        let events = scene.events_of(POOL, reason)?;
        ensure!(!events.is_empty(), "there is no event {reason}");
    }
    Ok(())
}
