//! Ollama's runner stops behind a server that answers, and then the server stops: requests end with an error of their
//! API, the pod leaves its Service, and it comes back; a server is started again, alone.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::json;

use super::pool::{ADMIN_PORT, PoolPod};
use super::scene::Scene;
use super::traffic::{Attempt, one_token, retry_after};
use crate::cluster::http::Request;
use crate::cluster::processes::Process;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
/// Within this a stop is found, and its requests are ended.
const FOUND: Duration = Duration::from_secs(30);
/// Within this Ollama's container is started again.
const RESTARTED: Duration = Duration::from_secs(100);
/// Two run, and the third waits for a slot.
const APIS: [&str; 3] = ["/api/chat", "/v1/chat/completions", "/v1/messages"];

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 1)?;
    let pod = pods.first().context("the pool has a pod")?;
    a_stopped_runner(scene, pod)?;
    a_stopped_server(scene, pod)
}

fn a_stopped_runner(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let to = pod.client_port()?;
    let loaded = scene.http(to, &stream("/api/chat", 1))?;
    ensure!(loaded.status == 200, "{}: {}", loaded.status, loaded.text());
    let attempts = thread::scope(|scope| -> Result<Vec<Attempt>> {
        let watch = Stopwatch::start();
        let asking = APIS.map(|path| scope.spawn(move || scene.ask(watch, to, &stream(path, 2000))));
        scene.until("two streams run", || in_flight(scene, pod, 2))?;
        thread::sleep(Duration::from_secs(1));
        let stopped = Stopwatch::start();
        let before = watch.elapsed();
        runner(scene, pod)?.signal(Signal::STOP);
        out_of_service(scene, pod, stopped, "Stalled")?;
        let ended = asking.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a client panicked")));
        let ended: Vec<Attempt> = ended.collect::<Result<_>>()?;
        let last = ended.iter().map(|one| one.ended.saturating_sub(before)).max().unwrap_or_default();
        scene.tell(&format!("the last request ended {} after its runner stopped", seconds(last)));
        ensure!(last <= FOUND, "requests hung for {}", seconds(last));
        it_works_again(scene, pod, stopped)?;
        Ok(ended)
    })?;
    attempts.iter().try_for_each(told_of_it)?;
    ensure!(attempts.iter().filter(|one| one.served()).count() == 2, "two had begun: {attempts:?}");
    ensure!(restarts(scene, pod)? == (0, 0), "it healed, and was started again all the same");
    Ok(())
}

/// A stream that had begun ends in its API's error; who had no answer yet is told when to come back.
fn told_of_it(attempt: &Attempt) -> Result<()> {
    let text = attempt.answer.text();
    ensure!(text.contains("The model has stopped working"), "{}: {text}", attempt.answer.status);
    if attempt.served() {
        let end = text.trim_end().lines().last().unwrap_or_default();
        ensure!(end.contains("\"error\""), "the stream ends with {end}");
        return Ok(());
    }
    ensure!(attempt.answer.status == 503, "{}: {text}", attempt.answer.status);
    retry_after(&attempt.answer).map(drop)
}

fn a_stopped_server(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let to = pod.client_port()?;
    let watch = Stopwatch::start();
    thread::scope(|scope| {
        let asking = scope.spawn(move || scene.ask(watch, to, &stream("/api/chat", 2000)));
        scene.until("a stream runs", || in_flight(scene, pod, 1))?;
        let stopped = Stopwatch::start();
        process(scene.pid_of(pod, "ollama")?)?.signal(Signal::STOP);
        out_of_service(scene, pod, stopped, "OllamaDown")?;
        told_of_it(&asking.join().unwrap_or_else(|_| bail!("a client panicked"))?)?;
        let ended = stopped.elapsed();
        scene.tell(&format!("its stream ended {} after the server stopped", seconds(ended)));
        ensure!(ended <= FOUND, "the stream hung for {}", seconds(ended));
        scene.until("Ollama's container is started again", || {
            let (ollama, _) = restarts(scene, pod)?;
            Ok(if ollama > 0 { Ok(()) } else { Err(format!("after {}", seconds(stopped.elapsed()))) })
        })?;
        scene.tell(&format!("Ollama's container was started again after {}", seconds(stopped.elapsed())));
        ensure!(stopped.elapsed() <= RESTARTED, "too late: {}", seconds(stopped.elapsed()));
        it_works_again(scene, pod, stopped)?;
        ensure!(restarts(scene, pod)? == (1, 0), "Ollama alone is started again, once");
        Ok(())
    })
}

fn stream(path: &str, tokens: u32) -> Request {
    let body = json!({
        "model": "slow",
        "messages": [{ "role": "user", "content": "Say the alphabet." }],
        "stream": true,
        "max_tokens": tokens,
        "options": { "num_predict": tokens },
    });
    Request::post(path, &body)
}

/// The pod says why it is not ready, and Kubernetes has heard it.
fn out_of_service(scene: &Scene, pod: &PoolPod, stopped: Stopwatch, reason: &str) -> Result<()> {
    scene.until(&format!("/readyz says {reason}"), || {
        let answer = scene.http(pod.port(ADMIN_PORT)?, &Request::get("/readyz"))?;
        let said = answer.text();
        Ok(if answer.status == 503 && said == reason { Ok(()) } else { Err(said) })
    })?;
    scene.tell(&format!("{reason} {} after the stop", seconds(stopped.elapsed())));
    scene.until("the pod is not ready", || {
        let pods = scene.pods_of(POOL)?;
        let ready = pods.iter().any(|one| one.uid == pod.uid && one.ready);
        Ok(if ready { Err("it is ready".to_owned()) } else { Ok(()) })
    })?;
    let took = stopped.elapsed();
    scene.tell(&format!("out of its Service {} after the stop", seconds(took)));
    ensure!(took <= FOUND, "it took {}", seconds(took));
    Ok(())
}

fn it_works_again(scene: &Scene, pod: &PoolPod, stopped: Stopwatch) -> Result<()> {
    scene.until("the pod answers again", || {
        let answer = scene.http(pod.client_port()?, &one_token())?;
        Ok(if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) })
    })?;
    scene.tell(&format!("answers again {} after the stop", seconds(stopped.elapsed())));
    scene.pool_serves(POOL, 1).map(drop)
}

fn in_flight(scene: &Scene, pod: &PoolPod, wanted: u32) -> Result<Result<(), String>> {
    let metrics = scene.metrics(pod.port(ADMIN_PORT)?)?;
    let line = metrics.lines().find(|line| line.starts_with("corral_in_flight ")).unwrap_or_default();
    let there = line.ends_with(&format!(" {wanted}"));
    Ok(if there { Ok(()) } else { Err(line.to_owned()) })
}

/// How often Ollama and its sidecar were started again in this very pod.
fn restarts(scene: &Scene, pod: &PoolPod) -> Result<(u64, u64)> {
    let pods = scene.pods_of(POOL)?;
    let same = pods.iter().find(|one| one.uid == pod.uid).context("the pod was replaced")?;
    let of = |name: &str| same.restarts.iter().find(|(n, _)| n == name).map_or(0, |(_, count)| *count);
    Ok((of("ollama"), of("limiter")))
}

/// Ollama's child that has the model.
fn runner(scene: &Scene, pod: &PoolPod) -> Result<Process> {
    let server = scene.pid_of(pod, "ollama")?;
    for thread in fs::read_dir(format!("/proc/{server}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children"))?;
        for child in children.split_whitespace() {
            let command = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if command.contains("llama-server") {
                return process(child.parse()?);
            }
        }
    }
    bail!("Ollama ({server}) has no runner")
}

fn process(pid: u32) -> Result<Process> {
    Process::now(pid.try_into()?).with_context(|| format!("no process {pid}"))
}
