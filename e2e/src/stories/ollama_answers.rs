//! A real Ollama runs in a pod and streams a known text, piece by piece.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::scene::Scene;
use crate::cluster::http::Request;

const TOKENS: usize = 40;

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    scene.models()?;
    scene.apply(include_str!("../../manifests/ollama.yaml"))?;
    scene.pod_is_ready("ollama")?;
    let service = scene.service("ollama", 11434)?;
    let chat = json!({
        "model": "slow",
        "messages": [{ "role": "user", "content": "Say the alphabet." }],
        "options": { "num_predict": TOKENS },
    });
    let answer = scene.http(service, &Request::post("/api/chat", &chat))?;
    ensure!(answer.status == 200, "Ollama says {}: {}", answer.status, answer.text());
    let lines = answer.json_lines()?;
    let text: String = lines.iter().filter_map(|line| line.pointer("/message/content")?.as_str()).collect();
    ensure!(text.starts_with("abcdefghijklmnopqrstuvwxyz abc"), "the model says {text:?}");
    let last = lines.last().cloned().unwrap_or_default();
    ensure!(last.get("eval_count").and_then(Value::as_u64) == Some(TOKENS as u64), "the last line is {last}");
    let gaps = answer.gaps_of_at_least(Duration::from_millis(1));
    ensure!(gaps >= TOKENS / 2, "the stream arrived in lumps: {gaps} gaps in {} pieces", answer.pieces.len());
    Ok(())
}
