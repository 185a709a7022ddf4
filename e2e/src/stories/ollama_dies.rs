//! Ollama dies in a pod: the pod leaves its Service, whoever still asks it gets 503 and when to come back, the others go
//! on, and it comes back by itself.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::pool::PoolPod;
use super::scene::Scene;
use super::traffic::{one_token, retry_after};
use crate::cluster::http::Answer;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 2)?;
    scene.warm_up(&pods)?;
    let pod = pods.first().context("the pool has pods")?;
    let service = scene.service(POOL, 11434)?;
    let watch = Stopwatch::start();
    let unavailable = it_leaves_the_service(scene, pod)?;
    scene.tell(&format!("out of the EndpointSlice {} after the first kill", seconds(watch.elapsed())));
    it_says_when_to_come_back(&unavailable)?;
    the_others_go_on(scene, pod, service)?;
    let watch = Stopwatch::start();
    let back = it_comes_back(scene, pod)?;
    scene.tell(&format!("back {} after the last kill", seconds(watch.elapsed())));
    it_is_the_same_pod(pod, &back)?;
    scene.warm_up(&back)
}

/// A dead Ollama is started again within a second, so it is killed again until Kubernetes has noticed.
fn it_leaves_the_service(scene: &Scene, pod: &PoolPod) -> Result<Answer> {
    let mut unavailable = None;
    scene.until("the pod is out of the EndpointSlice", || {
        // Between two lives there is nothing to kill.
        let _ = scene.kill_container(pod, "ollama");
        let answer = scene.http(pod.client_port()?, &one_token())?;
        match answer.status {
            503 => unavailable = Some(answer),
            200 => {}
            other => return Ok(Err(format!("the pod says {other}: {}", answer.text()))),
        }
        let ready = ready_endpoints(scene)?;
        let out = !ready.contains(&pod.ip.map(|ip| ip.to_string()).unwrap_or_default());
        Ok(if out && unavailable.is_some() { Ok(()) } else { Err(format!("ready are {ready:?}")) })
    })?;
    unavailable.context("nobody was told 503")
}

/// Each node learns a moment later that the Service has a pod less; until then it is kept dead.
fn the_others_go_on(scene: &Scene, pod: &PoolPod, service: SocketAddr) -> Result<()> {
    scene.until("the Service leads to the other pod alone", || {
        let _ = scene.kill_container(pod, "ollama");
        for _ in 0..10 {
            let answer = scene.http(service, &one_token())?;
            if answer.status != 200 {
                return Ok(Err(format!("{} {}", answer.status, answer.text())));
            }
        }
        Ok(Ok(()))
    })
}

/// Right after a kill Kubernetes may still call the pod Ready: only an answer of its own proves that it is back.
fn it_comes_back(scene: &Scene, pod: &PoolPod) -> Result<Vec<PoolPod>> {
    scene.until("the pod answers again", || {
        let answer = scene.http(pod.client_port()?, &one_token())?;
        Ok(if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) })
    })?;
    scene.pool_serves(POOL, 2)
}

fn ready_endpoints(scene: &Scene) -> Result<Vec<String>> {
    let label = format!("kubernetes.io/service-name={POOL}");
    let slices =
        scene.cluster.get(&["endpointslices", "--namespace", &scene.namespace, "--selector", &label])?;
    let slices = slices.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let endpoints = slices.iter().filter_map(|slice| slice.get("endpoints")?.as_array()).flatten();
    let ready = endpoints.filter(|e| e.pointer("/conditions/ready").and_then(Value::as_bool) == Some(true));
    let addresses = ready.filter_map(|e| e.pointer("/addresses/0")?.as_str());
    Ok(addresses.map(str::to_owned).collect())
}

fn it_says_when_to_come_back(answer: &Answer) -> Result<()> {
    let wait = retry_after(answer)?;
    ensure!((1..=30).contains(&wait.as_secs()), "Retry-After is {} s", wait.as_secs());
    ensure!(answer.header("x-corral-retry") == Some("estimate"), "it is a guess and does not say so");
    let error = answer.json()?.get("error").and_then(Value::as_str).unwrap_or_default().to_owned();
    ensure!(error.contains("Ollama"), "it does not say what is wrong: {error}");
    Ok(())
}

fn it_is_the_same_pod(before: &PoolPod, now: &[PoolPod]) -> Result<()> {
    let same = now.iter().find(|pod| pod.uid == before.uid).context("the pod was replaced")?;
    ensure!(same.restarts_of("ollama") >= 1, "Ollama was not started again: {same:?}");
    ensure!(same.restarts_of("limiter") == 0, "the sidecar was restarted with it: {same:?}");
    Ok(())
}
