//! An answer arrives through the pool's Service token by token, in the words of each of the three APIs.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::scene::Scene;
use crate::cluster::http::{Answer, Request};

const TOKENS: usize = 60;
const START: &str = "abcdefghijklmnopqrstuvwxyz abc";

/// One API that streams.
struct Api {
    path: &'static str,
    content_type: &'static str,
    /// Where the text of an event is.
    text: &'static str,
}

const APIS: [Api; 3] = [
    Api { path: "/api/chat", content_type: "application/x-ndjson", text: "/message/content" },
    Api { path: "/v1/chat/completions", content_type: "text/event-stream", text: "/choices/0/delta/content" },
    Api { path: "/v1/messages", content_type: "text/event-stream", text: "/delta/text" },
];

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool("chat", 2)?;
    for pod in &pods {
        load(scene, pod.client_port()?)?;
    }
    let service = scene.service("chat", 11434)?;
    APIS.iter().try_for_each(|api| it_streams(scene, service, api))
}

/// The time that a model takes to load is no gap of a stream.
fn load(scene: &Scene, to: SocketAddr) -> Result<()> {
    let body = json!({ "model": "slow", "prompt": "a", "stream": false, "options": { "num_predict": 1 } });
    let answer = scene.http(to, &Request::post("/api/generate", &body))?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok(())
}

fn it_streams(scene: &Scene, service: SocketAddr, api: &Api) -> Result<()> {
    let body = json!({
        "model": "slow",
        "messages": [{ "role": "user", "content": "Say the alphabet." }],
        "stream": true,
        "max_tokens": TOKENS,
        "options": { "num_predict": TOKENS },
    });
    let answer = scene.http(service, &Request::post(api.path, &body))?;
    ensure!(answer.status == 200, "{}: {} {}", api.path, answer.status, answer.text());
    let kind = answer.header("content-type").unwrap_or_default();
    ensure!(kind.starts_with(api.content_type), "{} answers {kind}", api.path);
    let text: String =
        events(&answer)?.iter().filter_map(|event| event.pointer(api.text)?.as_str()).collect();
    ensure!(text.starts_with(START), "{}: the model says {text:?}", api.path);
    gaps(scene, api, &answer)
}

/// One JSON value a line, or a line that begins with `data:`; `[DONE]` is none.
fn events(answer: &Answer) -> Result<Vec<Value>> {
    let text = answer.text();
    let lines = text.lines().map(|line| line.strip_prefix("data:").unwrap_or(line).trim());
    lines.filter(|line| line.starts_with('{')).map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn gaps(scene: &Scene, api: &Api, answer: &Answer) -> Result<()> {
    let times: Vec<Duration> = answer.pieces.iter().map(|piece| piece.at).collect();
    let mut gaps: Vec<Duration> =
        times.iter().zip(times.iter().skip(1)).map(|(a, b)| b.saturating_sub(*a)).collect();
    gaps.sort();
    let first = times.first().context("an answer without a body")?;
    let (middle, longest) = (gaps.get(gaps.len() / 2).copied(), gaps.last().copied());
    scene.tell(&format!(
        "{}: {TOKENS} tokens in {} pieces, the first after {} ms, gaps p50 {} ms, max {} ms",
        api.path,
        times.len(),
        first.as_millis(),
        middle.unwrap_or_default().as_millis(),
        longest.unwrap_or_default().as_millis(),
    ));
    let apart = answer.gaps_of_at_least(Duration::from_millis(1));
    ensure!(apart >= TOKENS * 3 / 4, "{}: {TOKENS} tokens arrived in {} lumps", api.path, apart + 1);
    Ok(())
}
