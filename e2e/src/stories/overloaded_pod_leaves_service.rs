//! A pod is kept busy by clients that ask it alone: it leaves its Service, the others take over, and it comes back. When
//! all pods are overloaded, at most one is out, and nobody is sent away without an answer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::endpoints::is;
use super::pool::{ADMIN_PORT, PoolPod, live_on, policy};
use super::scene::Scene;
use super::streams::{Load, Streams, Tally, Verdict};
use crate::cluster::http::Request;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
const PODS: usize = 4;
/// From the first request of the load until the pod is out of the EndpointSlice.
const LEAVES_WITHIN: Duration = Duration::from_secs(15);
/// Nodes learn of a changed EndpointSlice each in its own time.
const NODES_KNOW: Duration = Duration::from_secs(3);
/// How long the others are watched while they take over, and all four while all are overloaded.
const TAKE_OVER: Duration = Duration::from_secs(15);
const ALL_LOADED: Duration = Duration::from_secs(40);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = small_queues(scene)?;
    scene.warm_up(&pods)?;
    let pod = pods.first().context("the pool has pods")?;
    let busy = bound(scene, pod)?;
    it_leaves(scene, pod, &busy)?;
    others_take_over(scene, pod)?;
    let tally = busy.stop()?;
    scene.tell(&format!("clients of the busy pod: {tally}"));
    nobody_was_cut(&tally)?;
    it_comes_back(scene, pod)?;
    all_are_overloaded(scene, &pods)?;
    live_on(&pods, &scene.pool_serves(POOL, PODS)?)
}

/// One slot and two places a pod, so that a few clients are too many.
fn small_queues(scene: &Scene) -> Result<Vec<PoolPod>> {
    scene.models()?;
    scene.gpus(0, 2)?;
    scene.gpus(1, 2)?;
    let fields = json!({
        "ollama": { "numParallel": 1, "contextLength": 2048, "keepAlive": "-1" },
        "capacity": { "queue": { "maxDepth": 2, "maxWaitSeconds": 10 } },
    });
    scene.apply(&scene.pool_with(POOL, 4, &fields)?.to_string())?;
    let pods = scene.pool_serves(POOL, PODS)?;
    let limits = json!([{ "name": "many", "per": ["ClientIP"], "concurrency": 500 }]);
    scene.enforced_policy(&policy("many", POOL, &limits))?;
    Ok(pods)
}

/// Clients that know this pod only.
fn bound(scene: &Scene, pod: &PoolPod) -> Result<Streams> {
    let load = Load { clients: 8, model: "slow", tokens: 30..=60, limit: Duration::from_mins(1) };
    Ok(scene.streams(pod.client_port()?, &load))
}

fn it_leaves(scene: &Scene, pod: &PoolPod, busy: &Streams) -> Result<()> {
    let out = scene.until("the busy pod is out of the EndpointSlice", || {
        let unready = scene.out_of_service(POOL)?;
        ensure!(unready.iter().all(|ip| is(pod, ip)), "{unready:?} are out, and not the busy one");
        Ok(if unready.is_empty() { Err(said(scene, pod)?) } else { Ok(busy.elapsed()) })
    })?;
    scene.tell(&format!("out of the EndpointSlice {} after the load began", seconds(out)));
    ensure!(out <= LEAVES_WITHIN, "that is more than {}", seconds(LEAVES_WITHIN));
    let told = scene.http(pod.port(ADMIN_PORT)?, &Request::get("/readyz"))?;
    ensure!((told.status, told.text().as_str()) == (503, "Overloaded"), "{} {}", told.status, told.text());
    Ok(())
}

fn others_take_over(scene: &Scene, pod: &PoolPod) -> Result<()> {
    std::thread::sleep(NODES_KNOW);
    let load = Load { clients: 2, model: "tiny", tokens: 1..=3, limit: Duration::from_mins(1) };
    let streams = scene.streams(scene.service(POOL, 11434)?, &load);
    while streams.elapsed() < TAKE_OVER {
        let unready = scene.out_of_service(POOL)?;
        ensure!(unready.len() == 1 && unready.iter().all(|ip| is(pod, ip)), "out are {unready:?}");
    }
    let tally = streams.stop()?;
    scene.tell(&format!("the others took over: {tally}"));
    ensure!(tally.count(Verdict::Complete) == tally.told.len(), "not all were served: {tally}");
    ensure!(tally.told.len() >= 20, "that proves little: {tally}");
    Ok(())
}

fn it_comes_back(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let watch = Stopwatch::start();
    scene.until("the pod is back in the EndpointSlice", || {
        Ok(if scene.out_of_service(POOL)?.is_empty() { Ok(()) } else { Err(said(scene, pod)?) })
    })?;
    scene.tell(&format!("back {} after the load ended", seconds(watch.elapsed())));
    let metrics = scene.metrics(pod.port(ADMIN_PORT)?)?;
    let left = "corral_readiness_transitions_total{reason=\"Overloaded\"} 1";
    ensure!(metrics.lines().any(|line| line == left), "it left not once:\n{metrics}");
    Ok(())
}

fn all_are_overloaded(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    let service = Load { clients: 4, model: "slow", tokens: 30..=60, limit: Duration::from_mins(1) };
    let mut loads: Vec<Streams> = pods.iter().map(|pod| bound(scene, pod)).collect::<Result<_>>()?;
    loads.push(scene.streams(scene.service(POOL, 11434)?, &service));
    let (watch, mut most, mut looks) = (Stopwatch::start(), 0, 0);
    while watch.elapsed() < ALL_LOADED {
        let unready = scene.out_of_service(POOL)?;
        ensure!(unready.len() <= 1, "{unready:?} are out at one time");
        most = most.max(unready.len());
        looks += 1;
    }
    let tallies = loads.into_iter().map(Streams::stop).collect::<Result<Vec<Tally>>>()?;
    scene.tell(&format!("all overloaded: at most {most} of {PODS} out in {looks} looks"));
    tallies.iter().try_for_each(|tally| {
        scene.tell(&tally.to_string());
        nobody_was_cut(tally)
    })
}

/// Whoever asked was served or refused.
fn nobody_was_cut(tally: &Tally) -> Result<()> {
    ensure!(tally.count(Verdict::Refused) > 0, "nobody was refused, so there was no overload: {tally}");
    tally.is_undisturbed(1)
}

/// What a pod says of itself.
fn said(scene: &Scene, pod: &PoolPod) -> Result<String> {
    let metrics = scene.metrics(pod.port(ADMIN_PORT)?)?;
    let telling = ["corral_load_index", "corral_queue_depth", "corral_readiness{"];
    let lines = metrics.lines().filter(|line| telling.iter().any(|name| line.starts_with(name)));
    Ok(lines.filter(|line| !line.ends_with(" 0")).collect::<Vec<_>>().join(", "))
}
