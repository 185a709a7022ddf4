//! An answer arrives through the pool's Service token by token, in the words of each of the three APIs.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::apis::{APIS, Api};
use super::scene::Scene;
use crate::cluster::http::{Answer, Request};

const TOKENS: usize = 60;
const START: &str = "abcdefghijklmnopqrstuvwxyz abc";

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
    let answer = scene.http(service, &api.request("slow", TOKENS))?;
    ensure!(answer.status == 200, "{}: {} {}", api.path, answer.status, answer.text());
    let kind = answer.header("content-type").unwrap_or_default();
    ensure!(kind.starts_with(api.content_type), "{} answers {kind}", api.path);
    let text = api.text(&answer.text())?;
    ensure!(text.starts_with(START), "{}: the model says {text:?}", api.path);
    gaps(scene, api, &answer)
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
