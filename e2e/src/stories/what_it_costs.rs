//! What Corral takes for itself: memory, image sizes, the time that the sidecar adds to a request, and how soon it answers
//! a probe while it has ten times as much to do as it can. Printed, for they are figures of this machine; that every
//! request is answered is what must hold.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::pool::{ADMIN_PORT, CLIENT_PORT, OLLAMA_PORT, PoolPod};
use super::scene::Scene;
use super::streams::Load;
use super::traffic::one_token;
use crate::cluster::corral::NAMESPACE;
use crate::cluster::http::{Request, http_from};
use crate::machine::clock::Stopwatch;

const ROUNDS: usize = 200;
/// Ten for each slot of the pod.
const OVERLOAD: usize = 20;
/// From one probe to the next.
const PAUSE: Duration = Duration::from_millis(5);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool("chat", 1)?;
    let pod = pods.first().context("the pool has a pod")?;
    let idle = memory_kib(scene, pod, "limiter")?;
    scene.warm_up(&pods)?;
    latency(scene, pod, "GET /api/version", &Request::get("/api/version"), ROUNDS / 10)?;
    latency(scene, pod, "one token of the tiny model", &one_token(), ROUNDS)?;
    probes(scene, pod, "idle")?;
    let load = Load { clients: OVERLOAD, model: "tiny", tokens: 20..=60, limit: Duration::from_mins(1) };
    let load = scene.streams(pod.client_port()?, &load);
    probes(scene, pod, "at ten times overload")?;
    scene.tell(&format!("meanwhile {}", load.stop()?));
    let used = memory_kib(scene, pod, "limiter")?;
    scene.tell(&format!("sidecar RSS: {idle} KiB idle, {used} KiB after {} requests", ROUNDS + ROUNDS / 10));
    let operators = scene.pods_with(NAMESPACE, "app.kubernetes.io/component=operator")?;
    let operator = operators.first().context("the operator has a pod")?;
    scene.tell(&format!("operator RSS: {} KiB", memory_kib(scene, operator, "operator")?));
    image_sizes(scene)
}

fn memory_kib(scene: &Scene, pod: &PoolPod, container: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", scene.pid_of(pod, container)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has a size")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// From inside the pod, on its loopback: one request through the sidecar, one past it, in turns.
fn latency(scene: &Scene, pod: &PoolPod, what: &str, request: &Request, rounds: usize) -> Result<()> {
    let network = scene.network_of(pod, "ollama")?;
    let ask = |port: u16| -> Result<Duration> {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let watch = Stopwatch::start();
        let answer = http_from(&network, to, request, Duration::from_secs(10))?;
        ensure!(answer.status == 200, "port {port}: {} {}", answer.status, answer.text());
        Ok(watch.elapsed())
    };
    let (mut direct, mut guarded) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        direct.push(ask(OLLAMA_PORT)?);
        guarded.push(ask(CLIENT_PORT)?);
    }
    let (direct, guarded) = (middle(direct), middle(guarded));
    scene.tell(&format!(
        "{what}, p50 of {rounds}: {} µs direct, {} µs through the sidecar, {} µs added",
        direct.as_micros(),
        guarded.as_micros(),
        guarded.saturating_sub(direct).as_micros()
    ));
    Ok(())
}

/// Probes as the kubelet sends them, each on a connection of its own. How late this thread itself is woken tells how much
/// of it is the machine's.
fn probes(scene: &Scene, pod: &PoolPod, when: &str) -> Result<()> {
    let (mut times, mut late) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let watch = Stopwatch::start();
        thread::sleep(PAUSE);
        late.push(watch.elapsed().saturating_sub(PAUSE));
        let watch = Stopwatch::start();
        let answer = scene.http(pod.port(ADMIN_PORT)?, &Request::get("/readyz"))?;
        ensure!(answer.status == 200, "/readyz: {} {}", answer.status, answer.text());
        times.push(watch.elapsed());
    }
    let told = |times: &mut Vec<Duration>| {
        times.sort();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        format!("p50 {} µs, p99 {} µs", at(50).as_micros(), at(99).as_micros())
    };
    scene.tell(&format!(
        "/readyz {when}: {}; this machine wakes up late by {}",
        told(&mut times),
        told(&mut late)
    ));
    Ok(())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn image_sizes(scene: &Scene) -> Result<()> {
    for package in ["corral-sidecar", "corral-operator"] {
        let name = scene.cluster.own_image(package)?;
        let image = scene.cluster.parts.images.iter().find(|image| image.name == name);
        let bytes = fs::metadata(&image.context("the image was built")?.archive)?.len();
        scene.tell(&format!("image {package}: {} KiB compressed", bytes / 1024));
    }
    Ok(())
}
