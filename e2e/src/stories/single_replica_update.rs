//! One pod on one GPU is updated: what its clients see.
//!
//! A pool of one has nobody to stand in while its pod is replaced:
//!
//! 1. Streams that run finish, for as long as `drain.timeoutSeconds` allows.
//! 2. For `drain.delaySeconds` new requests are served as ever.
//! 3. As long as the old pod finishes its streams, new requests get 503 with `Retry-After`: it is the last pod, and
//!    Kubernetes goes on sending them to it.
//! 4. From its end until the new pod is ready there is nobody: connections are refused, or get no answer.
//! 5. Then all is as before.
//!
//! Points 3 and 4 last as long as the longest stream, plus a container's start and Ollama's. Nothing is cut in the middle.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::scene::Scene;
use super::streams::{Load, Tally, Verdict};
use crate::machine::clock::seconds;

const POOL: &str = "chat";
/// Beyond the longest stream: containers end, containers start, probes are asked, endpoints reach the nodes.
const BOUND: Duration = Duration::from_secs(30);
/// Clients have settled before, and are looked at for as long after.
const STEADY: Duration = Duration::from_secs(4);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    scene.models()?;
    scene.gpus(0, 1)?;
    let fields = json!({ "drain": { "delaySeconds": 2, "timeoutSeconds": 30 } });
    scene.apply(&scene.pool_with(POOL, 1, &fields)?.to_string())?;
    let before = scene.pool_serves(POOL, 1)?;
    scene.warm_up(&before)?;
    let load = Load { clients: 4, model: "slow", tokens: 20..=120, limit: Duration::from_mins(1) };
    let streams = scene.streams(scene.service(POOL, 11434)?, &load);
    std::thread::sleep(STEADY);
    let asked = streams.elapsed();
    scene.patch(&format!("ollamapool/{POOL}"), &json!({ "spec": { "ollama": { "keepAlive": "1h" } } }))?;
    let rolled = scene.until_replaced(POOL, &before, 1)?;
    std::thread::sleep(STEADY);
    let tally = streams.stop()?;
    scene.tell(&format!("replaced in {}; {tally}", seconds(rolled.took)));
    it_is_as_stated(scene, asked, &tally)?;
    scene.at_rest(&rolled.pods, &[])
}

fn it_is_as_stated(scene: &Scene, asked: Duration, tally: &Tally) -> Result<()> {
    let cut = [Verdict::Truncated, Verdict::ErrorEvent, Verdict::Strange];
    ensure!(tally.of(&cut).next().is_none(), "streams were cut: {tally}");
    let (from, to) = tally.disturbance().context("nobody noticed that the only pod was replaced")?;
    ensure!(from >= asked, "clients were disturbed before the update: {tally}");
    let late = tally.told.iter().filter(|told| told.began >= to && told.verdict == Verdict::Complete);
    ensure!(late.count() >= load_after(tally, to), "few are served afterwards: {tally}");
    let (unavailable, nobody) = (tally.count(Verdict::Unavailable), tally.count(Verdict::NoConnection));
    scene.tell(&format!(
        "from {} to {} after the change new requests were not served: {unavailable} got 503 with Retry-After, \
         {nobody} no connection",
        seconds(from.saturating_sub(asked)),
        seconds(to.saturating_sub(asked)),
    ));
    let gap = to.saturating_sub(from);
    ensure!(gap <= tally.longest() + BOUND, "the gap lasted {}: {tally}", seconds(gap));
    Ok(())
}

/// After the gap everybody is served who asks.
fn load_after(tally: &Tally, to: Duration) -> usize {
    tally.told.iter().filter(|told| told.began >= to && told.verdict != Verdict::Refused).count().max(1)
}
