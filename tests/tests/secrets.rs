//! What clients and the pool keep secret is in no log, no metric and no answer.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use corral_tests::client::Client;
use corral_tests::ollama::{Fault, ScriptedOllama};
use corral_tests::pod::{Pod, key_text, plan};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use corral_wire::{Position, ServePermission};
use http::Method;
use parking_lot::Mutex;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

const PROMPT: &str = "PROMPTCANARY-7f3a";
const API_KEY: &str = "sk-APIKEYCANARY-91bd";
const ANSWER: &str = "abcdefghij";

/// Collects all that is logged.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Collected {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Collected {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

fn assert_clean(what: &str, text: &str) {
    for secret in [PROMPT, API_KEY, ANSWER, &key_text(), "KEYCANARY"] {
        assert!(!text.contains(secret), "{what} shows {secret}");
    }
}

async fn exercise(client: &Client, ollama: &ScriptedOllama) -> String {
    let client =
        client.clone().with("authorization", &format!("Bearer {API_KEY}")).with("x-api-key", API_KEY);
    let good = json!({ "model": "tiny", "prompt": PROMPT, "options": { "num_predict": 10 } });
    let mut refusals = String::new();
    for target in ["/api/generate", "/v1/completions", "/api/nope", "/api/pull"] {
        let answer = client.post(target, &good).await.unwrap();
        if !answer.status.is_success() {
            refusals.push_str(&answer.text());
        }
    }
    for bad in [
        format!("{{\"model\":\"tiny\",\"prompt\":\"{PROMPT}"),
        format!("{{\"model\":\"tiny\",\"prompt\":\"{PROMPT}\"}} {API_KEY}"),
        format!("{{\"{PROMPT}\":1,\"{PROMPT}\":2,\"model\":\"tiny\"}}"),
        format!("{{\"model\":[\"{PROMPT}\"]}}"),
        format!("{{\"model\":\"tiny\",\"stream\":\"{PROMPT}\"}}"),
        PROMPT.to_owned(),
    ] {
        refusals.push_str(&client.send(Method::POST, "/api/generate", bad).await.unwrap().text());
    }
    for fault in
        [Fault::Crash { after: 3 }, Fault::Cut { after: 3 }, Fault::Close, Fault::WrongJson, Fault::Busy]
    {
        ollama.fault(fault);
        drop(client.stream("/api/generate", &good).await.unwrap().rest().await);
    }
    refusals
}

#[test]
fn secrets_and_prompts_are_in_no_log_no_metric_and_no_refusal() {
    let collected = Collected::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(collected.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let ollama = ScriptedOllama::plain().await.unwrap();
        let known = PolicyFile::open()
            .identity("apiKeys: [{ secretName: team }]")
            .keys("team", &[("ann-the-client", API_KEY)]);
        let sidecar = Sidecar::start(&ollama, &known).await.unwrap();
        let refusals = exercise(&sidecar.client(), &ollama).await;
        assert_clean("a refusal", &refusals);
        assert_clean("the metrics", &sidecar.metrics().await.unwrap());
        assert_clean("/corral/v1/limits", &sidecar.client().get("/corral/v1/limits").await.unwrap().text());
        let pod = Pod::start(&ollama, Path::new("")).await.unwrap();
        let position = |sequence| Position { term: 1, sequence };
        pod.tell(position(1), Some(plan(1, 100)), 1, ServePermission::Granted).await.unwrap();
        let mut forged = pod.sign(position(2), None, 1);
        forged.mac.clear();
        assert_clean("a refused directive", &pod.send(&forged).await.unwrap().text());
        exercise(&pod.client(), &ollama).await;
        assert_clean("the metrics of a pod", &pod.admin().get("/metrics").await.unwrap().text());
    });
    let log = collected.text();
    assert!(log.lines().count() > 10, "something is logged: {log}");
    assert_clean("the log", &log);
    assert!(log.contains("ann-the-client"), "a known client is logged by its name");
}
