//! The sidecar alone, in front of a real Ollama in a pod: it streams, limits, says when to come back, keeps its word,
//! closes every other way in, and takes a changed policy.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::scene::Scene;
use crate::cluster::http::{Answer, Request};

const TOKENS: usize = 40;
/// Slow enough that a refused client has to wait for some seconds, fast enough that a story can.
const RATE: &str = "20/m";
const BURST: usize = 3;

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    scene.models()?;
    apply_policy(scene, RATE, BURST)?;
    scene.pod_is_ready("guarded")?;
    let service = scene.service("guarded", 11434)?;
    a_stream_arrives_token_by_token(scene, service)?;
    let refused = the_limit_refuses_and_says_when_to_come_back(scene, service)?;
    coming_back_then_succeeds(scene, service, &refused)?;
    there_is_no_other_way_in(scene, service)?;
    a_changed_policy_holds(scene, service)
}

fn apply_policy(scene: &Scene, rate: &str, burst: usize) -> Result<()> {
    let manifest = include_str!("../../manifests/guarded_ollama.yaml");
    scene.apply(&manifest.replace("${rate}", rate).replace("${burst}", &burst.to_string()))
}

fn a_stream_arrives_token_by_token(scene: &Scene, service: SocketAddr) -> Result<()> {
    let chat = json!({
        "model": "slow",
        "messages": [{ "role": "user", "content": "Say the alphabet." }],
        "options": { "num_predict": TOKENS },
    });
    let answer = scene.http(service, &Request::post("/api/chat", &chat))?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let lines = answer.json_lines()?;
    let text: String = lines.iter().filter_map(|line| line.pointer("/message/content")?.as_str()).collect();
    ensure!(text.starts_with("abcdefghijklmnopqrstuvwxyz abc"), "the model says {text:?}");
    let gaps = answer.gaps_of_at_least(Duration::from_millis(1));
    ensure!(gaps >= TOKENS / 2, "the stream arrived in lumps: {gaps} gaps in {} pieces", answer.pieces.len());
    Ok(())
}

fn ask_briefly(scene: &Scene, service: SocketAddr) -> Result<Answer> {
    let ask = json!({ "model": "tiny", "prompt": "x", "stream": false, "options": { "num_predict": 1 } });
    scene.http(service, &Request::post("/api/generate", &ask))
}

fn the_limit_refuses_and_says_when_to_come_back(scene: &Scene, service: SocketAddr) -> Result<Answer> {
    // More than the burst, in far less time than the limit gives one back.
    for _ in 0..=BURST {
        let answer = ask_briefly(scene, service)?;
        if answer.status == 429 {
            ensure!(answer.text().contains("per-address"), "the limit is not named: {}", answer.text());
            return Ok(answer);
        }
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    }
    anyhow::bail!("{} requests at once were let in at {RATE}", BURST + 1)
}

fn coming_back_then_succeeds(scene: &Scene, service: SocketAddr, refused: &Answer) -> Result<()> {
    let wait: u64 = refused.header("retry-after").context("a 429 without Retry-After")?.parse()?;
    ensure!((1..=4).contains(&wait), "Retry-After is {wait} s at {RATE}");
    thread::sleep(Duration::from_secs(wait));
    let answer = ask_briefly(scene, service)?;
    ensure!(
        answer.status == 200,
        "came back after {wait} s as told, and got {}: {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

fn there_is_no_other_way_in(scene: &Scene, service: SocketAddr) -> Result<()> {
    let pull = scene.http(service, &Request::post("/api/pull", &json!({ "model": "tiny" })))?;
    ensure!(pull.status == 403, "/api/pull is answered by {}: {}", pull.status, pull.text());
    let delete = Request::post("/api/delete", &json!({ "model": "tiny" })).method("DELETE");
    let delete = scene.http(service, &delete)?;
    ensure!(delete.status == 403, "/api/delete is answered by {}: {}", delete.status, delete.text());
    let ollama = scene.pod("guarded", 11435)?;
    ensure!(scene.cluster.connect(0, ollama, Duration::from_secs(2)).is_err(), "Ollama is open on {ollama}");
    Ok(())
}

fn a_changed_policy_holds(scene: &Scene, service: SocketAddr) -> Result<()> {
    apply_policy(scene, "6000/m", 100)?;
    // A kubelet refreshes a mounted ConfigMap at its next look at the pod; a change of the pod makes it look.
    let annotate = ["annotate", "pod", "guarded", "policy=changed", "--namespace", &scene.namespace];
    scene.cluster.kubectl(annotate).run()?;
    scene.until("the new limit is in force", || {
        let limits = scene.http(service, &Request::get("/corral/v1/limits"))?;
        Ok(if limits.text().contains("6000") { Ok(()) } else { Err(limits.text()) })
    })?;
    for _ in 0..20 {
        let answer = ask_briefly(scene, service)?;
        ensure!(
            answer.status == 200,
            "the new limit lets 100 in at once, and said {}: {}",
            answer.status,
            answer.text()
        );
    }
    let version = scene.http(service, &Request::get("/api/version"))?.json()?;
    ensure!(version.get("version").and_then(Value::as_str).is_some(), "/api/version says {version}");
    Ok(())
}
