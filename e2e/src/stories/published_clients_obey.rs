//! The clients that people use understand a refusal and are served when they come back as told, each under its own API
//! key.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::pool::{CLIENT_PORT, policy};
use super::scene::Scene;
use crate::cluster::namespaces::in_network_of;
use crate::machine::command::Cmd;

const POOL: &str = "chat";
/// Rounds of each client: 100 and more of all five.
const ROUNDS: u32 = 22;
/// The clients, as they call themselves, and their keys.
const CLIENTS: [&str; 5] =
    ["openai-python", "anthropic-python", "ollama-python", "openai-node", "ollama-node"];

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    scene.cluster.apply(&scene.namespace, &keys().to_string())?;
    let mut pool = scene.pool(POOL, 2);
    let identity = json!({ "apiKeys": [{ "secretName": "clients" }], "unauthenticated": "Reject" });
    pool.pointer_mut("/spec")
        .and_then(Value::as_object_mut)
        .context("a pool has a spec")?
        .insert("identity".into(), identity);
    scene.serving(&pool)?;
    // 5 a second and one at once on each of two pods.
    let limits =
        json!([{ "name": "paced", "per": ["ApiKey"], "requests": "10/s", "burst": { "requests": 2 } }]);
    scene.enforced_policy(&policy("paced", POOL, &limits))?;
    let told = meet_the_limit(scene)?;
    ensure!(told.len() == CLIENTS.len(), "{} of {} clients told: {told:?}", told.len(), CLIENTS.len());
    let mut served = 0;
    for client in &told {
        served += judge(scene, client)?;
    }
    let all = u64::from(ROUNDS) * CLIENTS.len() as u64;
    ensure!(served * 100 >= all * 99, "of {all} who came back when told {served} were served: {told:?}");
    scene.tell(&format!("{served} of {all} who came back when told were served"));
    Ok(())
}

fn keys() -> Value {
    let data: serde_json::Map<String, Value> =
        CLIENTS.iter().map(|client| ((*client).to_owned(), json!(format!("key-of-{client}")))).collect();
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "clients" }, "stringData": data })
}

/// All clients at once, from the first node.
fn meet_the_limit(scene: &Scene) -> Result<Vec<Value>> {
    let service = scene.service(POOL, CLIENT_PORT)?;
    let (base, clients) = (format!("http://{service}"), &scene.cluster.parts.api_clients);
    let run = |cmd: Cmd| {
        let limit = scene.deadline.left().min(Duration::from_mins(2));
        cmd.behind(in_network_of(&scene.cluster.instance, 0)).limit(limit).read()
    };
    let (python, node) = thread::scope(|scope| {
        let python = scope.spawn(|| run(clients.python(&base, ROUNDS)));
        let node = run(clients.node(&base, ROUNDS));
        (python.join().unwrap_or_else(|_| bail!("the runner of Python panicked")), node)
    });
    let said = format!("{}\n{}", python?, node?);
    said.lines().filter(|line| !line.is_empty()).map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// How many rounds of a client ended well.
fn judge(scene: &Scene, client: &Value) -> Result<u64> {
    let text = |key: &str| client.get(key).and_then(Value::as_str).unwrap_or_default();
    ensure!(text("failed").is_empty(), "{} does not get on: {}", text("client"), text("failed"));
    let served = client.get("served").and_then(Value::as_u64).context("a client tells what was served")?;
    let alone = if client.get("alone").is_some() { "; with its own retries 10 of 10" } else { "" };
    scene.tell(&format!("{} {}: {served} of {ROUNDS}{alone}", text("client"), text("version")));
    Ok(served)
}
