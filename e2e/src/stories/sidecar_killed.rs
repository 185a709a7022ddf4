//! A sidecar is killed with requests in every phase: those break off, nobody else's do, and it is back with its plan
//! within seconds beside an Ollama that was not touched.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::apis::APIS;
use super::in_flight::{InFlight, Over, long_answer, long_prompt, long_stream};
use super::pool::{PoolPod, policy};
use super::scene::Scene;
use super::streams::Load;
use super::traffic::{one_token, sort};
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
const PARALLEL: u32 = 3;
/// A client whose request was on the killed sidecar learns of it within this.
const NOTICED: Duration = Duration::from_secs(2);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let ollama = json!({ "numParallel": PARALLEL, "contextLength": 2048, "keepAlive": "-1" });
    let pods = scene.serving(&scene.pool_with(POOL, 2, &json!({ "ollama": ollama }))?)?;
    let [killed, other] = pods.as_slice() else { bail!("two pods, not {}", pods.len()) };
    scene.warm_up(&pods)?;
    scene.warm_up_slow(&pods)?;
    scene.enforced_policy(&limits())?;
    three_are_admitted(scene, killed)?;
    let load = Load { clients: 1, model: "tiny", tokens: 20..=80, limit: Duration::from_secs(30) };
    let streams = scene.streams(other.client_port()?, &load);
    let served_again = it_is_killed(scene, killed)?;
    it_has_its_plan(scene, killed, other)?;
    let begun = Stopwatch::start();
    scene.runs_at_once(killed, PARALLEL as usize, &APIS[0].request("slow", 40))?;
    scene.tell(&format!(
        "the killed sidecar serves again after {}; {PARALLEL} streams at once took {}",
        seconds(served_again),
        seconds(begun.elapsed())
    ));
    it_alone_was_started_again(scene, killed, other)?;
    let others = streams.stop()?;
    others.is_undisturbed(10)?;
    scene.tell(&format!("the other pod meanwhile: {others}"));
    scene.at_rest(&pods, &["together"])
}

/// What is counted over time is so for the tiny model alone.
fn limits() -> Value {
    let few = json!({
        "name": "few", "match": { "models": ["tiny"], "endpoints": ["Generate"] }, "per": ["Global"],
        "requests": "6/h", "burst": { "requests": 6 },
    });
    let together = json!({ "name": "together", "per": ["Global"], "concurrency": 40 });
    policy("few", POOL, &json!([few, together]))
}

/// A pod's share of 6 among two.
fn three_are_admitted(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let (served, _) = sort(scene.volley(pod.client_port()?, &one_token(), 6)?)?;
    ensure!(served.len() == 3, "{} admits {} of 6, not its share of 3", pod.name, served.len());
    Ok(())
}

/// How long it was until it served again.
fn it_is_killed(scene: &Scene, pod: &PoolPod) -> Result<Duration> {
    let task = scene.container_id(pod, "limiter")?;
    let requests = in_every_phase(scene, pod)?;
    let (watch, broken) = (Stopwatch::start(), requests.elapsed());
    scene.kill_task(pod.node_number(), &task)?;
    let killed = requests.elapsed();
    scene.serves_again(pod)?;
    let served_again = watch.elapsed();
    let over = requests.over()?;
    let noticed = over.iter().map(|one| one.ended.saturating_sub(broken)).max().unwrap_or_default();
    each_broke_off(&over)?;
    ensure!(noticed <= NOTICED, "a client waited {} for the end of its request", seconds(noticed));
    scene.tell(&format!(
        "SIGKILL of a sidecar (took {} ms): {} requests in flight on it lost, noticed by their clients after {} ms at most",
        killed.saturating_sub(broken).as_millis(),
        over.len(),
        noticed.as_millis()
    ));
    Ok(served_again)
}

/// A stream in its middle, one before its first token, an answer that is not streamed, and two that wait.
fn in_every_phase(scene: &Scene, pod: &PoolPod) -> Result<InFlight> {
    let mut requests = InFlight::new(scene, pod)?;
    requests.ask("a stream in its middle", long_stream(&APIS[1]))?;
    requests.ask("an answer that comes at once", long_answer())?;
    requests.until(2, 0)?;
    requests.begun(1)?;
    requests.ask("a stream before its first token", long_prompt())?;
    requests.until(3, 0)?;
    requests.ask("a stream that waits", long_stream(&APIS[0]))?;
    requests.ask("an answer that waits", long_answer())?;
    requests.until(3, 2)?;
    Ok(requests)
}

fn each_broke_off(over: &[Over]) -> Result<()> {
    for one in over {
        let cut = one.exchange.fault.is_some();
        ensure!(cut, "it ended otherwise than by a broken connection: {}", one.describe());
        let begun = one.exchange.answer.as_ref().is_some_and(|answer| !answer.pieces.is_empty());
        ensure!(
            begun == (one.what == "a stream in its middle"),
            "it was in another phase: {}",
            one.describe()
        );
    }
    Ok(())
}

/// A sidecar that starts begins with a full bucket, and with its share of it: together the pods have admitted 9, and an
/// hour may hold 6 and a burst of 6.
fn it_has_its_plan(scene: &Scene, killed: &PoolPod, other: &PoolPod) -> Result<()> {
    three_are_admitted(scene, killed)?;
    three_are_admitted(scene, other)?;
    let stated = scene.stated_bound(&scene.get("ratelimitpolicy/few")?);
    ensure!(stated.contains("12/h"), "the status states another bound: {stated}");
    scene.tell(&format!(
        "its share of the limit was full again; 9 were admitted, and the status says {stated}"
    ));
    Ok(())
}

fn it_alone_was_started_again(scene: &Scene, killed: &PoolPod, other: &PoolPod) -> Result<()> {
    let now = scene.pool_serves(POOL, 2)?;
    let restarts = |before: &PoolPod| -> Result<(u64, u64)> {
        let same = now.iter().find(|pod| pod.uid == before.uid).context("a pod was replaced")?;
        Ok((same.restarts_of("limiter"), same.restarts_of("ollama")))
    };
    let counts = (restarts(killed)?, restarts(other)?);
    ensure!(counts == ((1, 0), (0, 0)), "sidecars and Ollamas were restarted {counts:?} times");
    Ok(())
}
