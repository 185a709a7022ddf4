//! Every token that a real Ollama reads and writes is charged once, whichever API asked for it, streamed or not, and
//! whether or not the client stayed to the end.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::policy;
use super::scene::Scene;
use super::traffic::{names_limit, remaining_in};
use crate::cluster::http::{Answer, Request};

const POOL: &str = "chat";
/// Of the output limit, so many are reserved and left over by everything that the story asks.
const TOKENS: u64 = 40;
const WORDS: &str = "Say the alphabet.";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 1)?;
    scene.warm_up(&pods)?;
    let to = pods.first().context("the pool has a pod")?.client_port()?;
    scene.enforced_policy(&policy("tokens", POOL, &counting("1M/31d")))?;
    let prompt = every_api_is_charged_what_ollama_counts(scene, to)?;
    who_leaves_pays_for_what_was_made(scene, to, prompt)?;
    a_debt_delays_the_next_request(scene, to)
}

/// Windows of a month: nothing comes back while the story lasts.
fn counting(rate: &str) -> Value {
    let of = |unit: &str| json!({ "name": unit.to_lowercase(), "per": ["ClientIP"], "algorithm": "SlidingWindow", unit: rate });
    json!([of("tokens"), of("inputTokens"), of("outputTokens")])
}

/// Tokens used so far, of prompts and of answers.
fn used(scene: &Scene, to: SocketAddr) -> Result<(u64, u64)> {
    // Looked at once: how often a client may look is limited, too.
    let shown = scene.http(to, &Request::get("/corral/v1/limits"))?.json()?;
    let of = |limit| Ok::<_, anyhow::Error>(1_000_000 - remaining_in(&shown, limit)?);
    let (input, output) = (of("inputtokens")?, of("outputtokens")?);
    let both = of("tokens")?;
    ensure!(both == input + output, "{input} and {output} are not {both}");
    Ok((input, output))
}

/// What one request used.
fn used_by(scene: &Scene, to: SocketAddr, request: &Request) -> Result<(Answer, (u64, u64))> {
    let before = used(scene, to)?;
    let answer = scene.http(to, request)?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let after = used(scene, to)?;
    Ok((answer, (after.0 - before.0, after.1 - before.1)))
}

fn chat(path: &str, stream: bool) -> Request {
    let messages = json!([{ "role": "user", "content": WORDS }]);
    let body = match path {
        "/api/chat" => {
            json!({ "model": "slow", "messages": messages, "stream": stream, "options": { "num_predict": TOKENS } })
        }
        "/api/generate" => {
            json!({ "model": "slow", "prompt": WORDS, "stream": stream, "options": { "num_predict": TOKENS } })
        }
        _ => json!({ "model": "slow", "messages": messages, "stream": stream, "max_tokens": TOKENS }),
    };
    Request::post(path, &body)
}

/// Gives the tokens of the prompt.
fn every_api_is_charged_what_ollama_counts(scene: &Scene, to: SocketAddr) -> Result<u64> {
    let (answer, charged) = used_by(scene, to, &chat("/api/chat", false))?;
    let told = answer.json()?;
    let count =
        |name: &str| told.get(name).and_then(Value::as_u64).with_context(|| format!("no {name} in {told}"));
    let prompt = count("prompt_eval_count")?;
    ensure!(charged == (prompt, count("eval_count")?), "charged {charged:?}, and Ollama says {told}");
    let mut lines = vec![format!("/api/chat {charged:?}")];
    for (path, stream) in [
        ("/api/chat", true),
        ("/v1/chat/completions", false),
        ("/v1/chat/completions", true),
        ("/v1/messages", false),
        ("/v1/messages", true),
    ] {
        let (answer, charged) = used_by(scene, to, &chat(path, stream))?;
        ensure!(
            charged == (prompt, TOKENS),
            "{path}, stream {stream}: charged {charged:?}, not ({prompt}, {TOKENS})"
        );
        if path == "/v1/chat/completions" && stream {
            unasked_for_counts_stay_unseen(&answer)?;
        }
        lines.push(format!("{path} stream={stream} {charged:?}"));
    }
    for stream in [false, true] {
        let (answer, charged) = used_by(scene, to, &chat("/api/generate", stream))?;
        let last = answer.json_lines()?.pop().context("an answer has a line")?;
        let told = |name: &str| last.get(name).and_then(Value::as_u64);
        ensure!(
            (told("prompt_eval_count"), told("eval_count")) == (Some(charged.0), Some(charged.1)),
            "{charged:?}: {last}"
        );
    }
    scene.tell(&format!("charged as Ollama counts: {}", lines.join(", ")));
    Ok(prompt)
}

/// The client did not ask for `usage`, so it does not get the chunk that has it.
fn unasked_for_counts_stay_unseen(answer: &Answer) -> Result<()> {
    let text = answer.text();
    ensure!(text.trim_end().ends_with("data: [DONE]"), "the stream does not end as it should: {text}");
    ensure!(!text.contains("\"usage\":{"), "the client sees counts that it did not ask for: {text}");
    ensure!(!text.contains("\"choices\":[]"), "the client sees a chunk without a choice: {text}");
    Ok(())
}

/// A client that has read some tokens of a long answer closes its connection.
fn who_leaves_pays_for_what_was_made(scene: &Scene, to: SocketAddr, prompt: u64) -> Result<()> {
    const READ: u64 = 20;
    let before = used(scene, to)?;
    let body = json!({ "model": "slow", "messages": [{ "role": "user", "content": WORDS }], "options": { "num_predict": 2000 } }).to_string();
    let mut stream = scene.cluster.connect(0, to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "POST /api/chat HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let lines = BufReader::new(&stream).lines().map_while(Result::ok).filter(|line| line.starts_with('{'));
    let seen = lines.take(usize::try_from(READ)?).count() as u64;
    ensure!(seen == READ, "the stream ended after {seen} tokens");
    drop(stream);
    let charged = scene.until("what it used has settled", || {
        let now = used(scene, to)?;
        let charged = (now.0 - before.0, now.1 - before.1);
        // Some more were on their way when it left.
        let settled = charged.0 == prompt && (READ..READ + 60).contains(&charged.1);
        Ok(if settled { Ok(charged) } else { Err(format!("charged {charged:?}")) })
    })?;
    scene.tell(&format!("left after {READ} tokens of 2000: charged {charged:?}"));
    Ok(())
}

/// 60 tokens a minute, 10 of them at once: an answer of 40 leaves a debt of 30 and more, which takes as many seconds.
fn a_debt_delays_the_next_request(scene: &Scene, to: SocketAddr) -> Result<()> {
    let limit = json!([{ "name": "few", "per": ["ClientIP"], "outputTokens": "600/m", "burst": { "outputTokens": 10 } }]);
    scene.enforced_policy(&policy("tokens", POOL, &limit))?;
    let first = scene.http(to, &chat("/api/chat", false))?;
    ensure!(first.status == 200, "{}: {}", first.status, first.text());
    let refused = scene.http(to, &chat("/api/chat", false))?;
    names_limit(&refused, &format!("{}/tokens/few", scene.namespace))?;
    let wait = super::traffic::wait_of(&refused)?;
    // 40 tokens at 10 a second are 4 s, less what came back while they were made; the next one asks for 40 again and
    // waits until nothing is owed.
    ensure!(wait <= Duration::from_secs(4) && wait > Duration::from_millis(500), "told to wait {wait:?}");
    std::thread::sleep(wait);
    let second = scene.http(to, &chat("/api/chat", false))?;
    ensure!(
        second.status == 200,
        "came back after {wait:?} as told, and got {}: {}",
        second.status,
        second.text()
    );
    scene.tell(&format!("40 tokens of a burst of 10: the next request waits {wait:?} and is served"));
    Ok(())
}
