//! The operator is killed while a pool is at its largest: its successor, which remembers nothing, takes no pod away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::pool::live_on;
use super::scaling::Size;
use super::scene::Scene;
use super::streams::Load;
use crate::machine::clock::{Deadline, Stopwatch, seconds};

const POOL: &str = "chat";
const MOST: u32 = 3;
/// How long the successor is watched: longer than all the waits of the pool together.
const WATCHED: Duration = Duration::from_secs(20);
/// The Lease, and what a busy machine adds.
const TAKEOVER: Duration = Duration::from_secs(40);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_growing(&scene.growing_pool(POOL, 1, MOST, &json!({}))?)?;
    scene.warm_up_slow(&pods)?;
    let load = Load { clients: 60, model: "slow", tokens: 10..=30, limit: Duration::from_mins(1) };
    let streams = scene.streams(scene.service(POOL, 11434)?, &load);
    let peak = scene.pool_serves(POOL, MOST as usize)?;
    scene.tell(&format!("{MOST} pods serve {} after the load began", seconds(streams.elapsed())));
    let size = scene.size(POOL)?;
    let same = |now: &Size| now.asked == size.asked && now.staying() == size.staying();
    let first = scene.leader()?;
    scene.kill_the_operator()?;
    let watch = Stopwatch::start();
    let looks = until_another_leads(scene, &first, same).with_context(|| format!("at its peak: {size}"))?;
    let took = watch.elapsed();
    let later = scene.size_holds(POOL, WATCHED, same).with_context(|| format!("at its peak: {size}"))?;
    scene.tell(&format!(
        "another operator leads after {}; {MOST} pods in {} looks, {} s long after that",
        seconds(took),
        looks + later,
        WATCHED.as_secs()
    ));
    live_on(&peak, &scene.pool_serves(POOL, MOST as usize)?)?;
    let tally = streams.stop()?;
    scene.tell(&tally.to_string());
    tally.is_undisturbed(100)
}

fn until_another_leads(scene: &Scene, first: &str, same: impl Fn(&Size) -> bool) -> Result<u32> {
    let mut looks = 0;
    Deadline::after(TAKEOVER).wait("another operator leads", Duration::from_millis(200), || {
        let size = scene.size(POOL)?;
        ensure!(same(&size), "after {looks} looks without an operator: {size}");
        looks += 1;
        let leader = scene.leader().unwrap_or_default();
        let other = !leader.is_empty() && leader != first;
        Ok(if other { Ok(looks) } else { Err(format!("`{leader}` leads")) })
    })
}
