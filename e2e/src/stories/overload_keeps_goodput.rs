//! Ten times as much comes as can be served, from clients that give up: what is served stays what it was. The same load on
//! Ollama alone is shown beside it.
//!
//! Times are a tenth of what people have: answers of 0.8 s for 8 s, and clients that give up after 3 s, not 30.
//!
//! The load is made on the machine that Ollama works on, and slows it down. So the capacity is what its slots can do as fast
//! as it is meanwhile: goodput is the part of all slots' time in which answers were made that came in time, by Ollama's own
//! clock. What was served beside what it served without the load is told too.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::crowd::{Call, Outcome, a_second, steady, words};
use super::in_flight::answer_of;
use super::pool::PoolPod;
use super::scene::Scene;

const POOL: &str = "chat";
const SLOTS: usize = 4;
const JOB: Duration = Duration::from_millis(800);
/// A client gives up after this, and says so beforehand.
const PATIENCE: Duration = Duration::from_secs(3);
const OVER: f64 = 10.0;
const MEASURED: Duration = Duration::from_secs(6);
const TIME: Duration = Duration::from_secs(15);
/// Of the load, what Ollama alone is given.
const BARE_TIME: Duration = Duration::from_secs(10);
/// Of all slots' time.
const GOAL: f64 = 0.9;

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pod = pool(scene)?;
    let way = scene.way(pod.client_port()?);
    let request = answer_of(scene.tokens_lasting(&way, SLOTS, JOB)?);
    let capacity = scene.capacity(&way, SLOTS, &request, MEASURED)?;
    let patience = PATIENCE.as_millis().to_string();
    let request = request.header("x-request-timeout-ms", &patience);
    let calls = steady(0, &request, capacity * OVER, Duration::ZERO, TIME);
    let ours = scene.fire(&way, &calls, PATIENCE)?;
    scene.tell(&format!("{} of {SLOTS} slots in use", scene.slots_in_use(&pod)?));
    scene.at_rest(std::slice::from_ref(&pod), &[])?;
    let bare = scene.fire(&scene.bare_way(&pod)?, begin_of(&calls), PATIENCE)?;
    tell(scene, "with the sidecar", capacity, a_second(&ours, TIME), &ours);
    tell(scene, "Ollama alone", capacity, a_second(&bare, BARE_TIME), &bare);
    honest(&ours)?;
    let goodput = goodput(&ours)?;
    scene.tell(&format!(
        "with the sidecar, {goodput:.2} of all slots' time went into answers that came in time"
    ));
    ensure!(goodput >= GOAL, "the goodput is {goodput:.2} of the capacity, not {GOAL}: {}", words(&ours));
    Ok(())
}

/// The part of all slots' time, until the last of them was over, in which answers were made that came in time.
fn goodput(outcomes: &[Outcome]) -> Result<f64> {
    let served = || outcomes.iter().filter(|outcome| outcome.served());
    let worked: Duration = served().map(Outcome::worked).sum::<Result<_>>()?;
    let end = served().map(|outcome| outcome.ended).max().context("nobody was served")?;
    let slots = u32::try_from(SLOTS)?;
    Ok(worked.as_secs_f64() / (end * slots).as_secs_f64())
}

fn pool(scene: &Scene) -> Result<PoolPod> {
    let ollama = json!({ "numParallel": SLOTS, "contextLength": 2048, "keepAlive": "-1" });
    let pods = scene.serving(&scene.pool_with(POOL, 1, &json!({ "ollama": ollama }))?)?;
    scene.warm_up_slow(&pods)?;
    pods.into_iter().next().context("the pool has a pod")
}

fn begin_of(calls: &[Call]) -> &[Call] {
    let count = calls.iter().take_while(|call| call.at < BARE_TIME).count();
    calls.get(..count).unwrap_or_default()
}

fn tell(scene: &Scene, who: &str, capacity: f64, rate: f64, outcomes: &[Outcome]) {
    scene.tell(&format!(
        "{who}, {OVER} times the capacity of {capacity:.1}/s: {rate:.1}/s within their {} s, {:.2} of it: {}",
        PATIENCE.as_secs(),
        rate / capacity,
        words(outcomes)
    ));
}

/// Whoever was not served was refused with a time to come back, or gave up waiting.
fn honest(outcomes: &[Outcome]) -> Result<()> {
    let honest = |outcome: &Outcome| match outcome.status() {
        Some(429) => {
            outcome.header("retry-after").is_some() && outcome.header("x-corral-shed-reason").is_some()
        }
        Some(_) => outcome.served(),
        None => true,
    };
    let strange = outcomes.iter().find(|outcome| !honest(outcome));
    ensure!(strange.is_none(), "neither served, nor refused as it should be: {strange:?}");
    let refused = outcomes.iter().filter(|outcome| outcome.status() == Some(429)).count();
    ensure!(refused > 0, "nobody was refused, so there was no overload");
    Ok(())
}
