//! The disk is full on which a sidecar keeps its plan: new plans hold all the same, the pod says what is wrong, and a
//! sidecar that is killed then comes back with the last one, which it mounts and is told, but could not keep.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::{ADMIN_PORT, PoolPod, policy};
use super::scene::Scene;
use super::traffic::{one_token, reading, sort};
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
const FAILED_WRITES: &str = "corral_state_write_errors_total";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 1)?;
    scene.warm_up(&pods)?;
    let pod = pods.first().context("the pool has a pod")?;
    scene.enforced_policy(&few(2))?;
    admits(scene, pod, 2)?;
    // A container that starts mounts what lies there then.
    scene.cluster.full_disk(pod.node_number(), &state_dir(pod))?;
    it_comes_back_after_a_kill(scene, pod).context("with a disk that is full")?;
    admits(scene, pod, 2)?;
    let watch = Stopwatch::start();
    scene.enforced_policy(&few(5))?;
    scene.tell(&format!("with a full disk a new policy holds after {}", seconds(watch.elapsed())));
    // Two were used up, and stay so.
    admits(scene, pod, 3)?;
    it_says_what_is_wrong(scene, pod)?;
    it_comes_back_after_a_kill(scene, pod).context("with a plan that could not be kept")?;
    admits(scene, pod, 5)?;
    it_is_the_same_pod(scene, pod)
}

fn few(burst: u32) -> Value {
    let limit =
        json!({ "name": "few", "per": ["Global"], "requests": "1/h", "burst": { "requests": burst } });
    policy("few", POOL, &json!([limit]))
}

/// Where the kubelet has the folder in which a pod's sidecar keeps its plan.
fn state_dir(pod: &PoolPod) -> String {
    format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~empty-dir/corral-state", pod.uid)
}

fn admits(scene: &Scene, pod: &PoolPod, count: usize) -> Result<()> {
    let (served, _) = sort(scene.volley(pod.client_port()?, &one_token(), 6)?)?;
    ensure!(served.len() == count, "{} of 6 are admitted, not {count}", served.len());
    Ok(())
}

fn it_comes_back_after_a_kill(scene: &Scene, pod: &PoolPod) -> Result<()> {
    scene.kill_container(pod, "limiter")?;
    let watch = Stopwatch::start();
    scene.serves_again(pod)?;
    let answers = watch.elapsed();
    scene.pool_serves(POOL, 1)?;
    scene.tell(&format!(
        "a killed sidecar serves again after {}, and is Ready after {}",
        seconds(answers),
        seconds(watch.elapsed())
    ));
    Ok(())
}

fn it_says_what_is_wrong(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let failed = reading(&scene.metrics(pod.port(ADMIN_PORT)?)?, FAILED_WRITES)?;
    ensure!(failed > 0, "no write has failed: the disk was not full");
    let log =
        scene.cluster.kubectl(["logs", &pod.name, "--container=limiter", "--namespace", &scene.namespace]);
    let log = log.read()?;
    let line = log.lines().find(|line| line.contains("could not be written"));
    let line = line.with_context(|| format!("its log says nothing of it:\n{log}"))?;
    scene.tell(&format!("{failed} writes failed; its log says {line}"));
    ensure!(line.contains("No space left on device"), "the reason is missing: {line}");
    Ok(())
}

fn it_is_the_same_pod(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let now = scene.pool_serves(POOL, 1)?;
    let same = now.iter().find(|now| now.uid == pod.uid).context("the pod was replaced")?;
    let (limiter, ollama) = (same.restarts_of("limiter"), same.restarts_of("ollama"));
    ensure!((limiter, ollama) == (2, 0), "its sidecar was started again {limiter} times, Ollama {ollama}");
    Ok(())
}
