//! The commands `explain` and `top` as they are typed: against policy files, and beside a sidecar that runs.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use corral_limiter::queue::Slots;
use corral_limiter::{LimiterSettings, compile};
use corral_sidecar::core::{Core, CoreSettings};
use corral_sidecar::health::Health;
use corral_sidecar::metrics::Metrics;
use corral_sidecar::plan::files;
use corral_sidecar::{api_keys, control_socket};

const KEY: &str = "key-of-ann-CANARY";
const POLICY: &str = "\
apiVersion: corral.dev/v1alpha1
kind: OllamaPool
metadata: { name: chat }
spec: { identity: { apiKeys: [{ secretName: team }] } }
---
apiVersion: v1
kind: Secret
metadata: { name: team }
stringData: { ann: key-of-ann-CANARY }
---
apiVersion: corral.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: fair-use }
spec:
  targetRefs: [{ kind: OllamaPool, name: chat }]
  limits:
  - { name: each, per: [Client], requests: 60/m }
  - { name: big, per: [Client], match: { models: [llama3] }, requests: 6/m }
";

fn corral(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_corral-sidecar")).args(args).output().unwrap()
}

/// What it printed, if it ended well; it never prints the key.
fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!out.contains("CANARY") && !err.contains("CANARY"), "{out}{err}");
    assert!(output.status.success(), "{err}");
    out.into_owned()
}

/// What it complained of, in one line.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success());
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(!err.contains("CANARY"), "{err}");
    err
}

fn policy_file(dir: &Path) -> String {
    let path = dir.join("policy.yaml");
    std::fs::write(&path, POLICY).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_policy_file_says_what_would_become_of_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let file = policy_file(dir.path());
    let key = format!("--api-key={KEY}");
    let explain = |request: &str, more: &[&str]| {
        let request = format!("--request={request}");
        printed(&corral(&[&["explain", "--policy", &file, &request], more].concat()))
    };
    let told = explain("POST /api/chat model=llama3", &["--client-ip=10.0.0.9"]);
    for line in [
        "client   10.0.0.9, no known API key",
        "model    llama3:latest",
        "60 requests per 1m",
        "6 requests per 1m",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    let told = explain("POST /api/chat model=tiny", &[&key]);
    assert!(told.contains("client   ann, by its API key, from 127.0.0.1"), "{told}");
    let (apply, others) = told.split_once("limits that do not:").unwrap();
    assert!(apply.contains("fair-use/each") && others.contains("fair-use/big"), "{told}");
    let told = explain(&format!("POST /v1/messages [x-api-key: {KEY}] {{\"model\":\"tiny\"}}"), &["--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["client"]["name"], "ann", "{told}");
    assert_eq!(told["outcome"]["status"], serde_json::Value::Null, "{told}");
    for (request, status) in
        [("POST /api/pull model=tiny", "403"), ("GET /api/nope", "404"), ("POST /api/chat {}", "400")]
    {
        let told = explain(request, &[]);
        assert!(told.contains(&format!("outcome  {status}: ")), "{told}");
    }
}

#[test]
fn an_explanation_says_how_urgent_a_request_is_and_what_its_client_weighs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.yaml");
    let urgent = POLICY
        .replace("secretName: team }", "secretName: team, tier: gold }")
        .replace("identity: { ", "identity: { priorityHeader: x-priority, ")
        .replace("  limits:", "  tiers: [{ name: gold, weight: 5, priority: high }]\n  limits:");
    std::fs::write(&path, urgent).unwrap();
    let key = format!("--api-key={KEY}");
    let explain = |request: &str, more: &[&str]| {
        let file = path.to_str().unwrap();
        printed(&corral(&[&["explain", "--policy", file, "--request", request], more].concat()))
    };
    let chat = "POST /api/chat model=tiny";
    assert!(explain(chat, &[]).contains("queue    medium priority, weight 1"));
    assert!(explain(chat, &[&key]).contains("queue    high priority, weight 5"));
    let marked = "POST /api/chat [X-Priority: low] model=tiny";
    assert!(explain(marked, &[&key]).contains("queue    low priority, weight 5"));
    assert!(!explain("GET /api/tags", &[]).contains("priority"));
}

#[test]
fn what_is_typed_wrong_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = policy_file(dir.path());
    for (args, told) in [
        (vec!["explain", "--policy", &file], "--request"),
        (vec!["explain", "--policy", &file, "--request", "chat"], "POST /api/chat model=llama3.2"),
        (vec!["explain", "--policy", "/nowhere.yaml", "--request", "GET /"], "/nowhere.yaml"),
        (vec!["top", "--interval", "2"], "--interval"),
        (vec!["top", "--once", "--state-dir", "/nowhere"], "/nowhere/control.sock"),
        (vec!["explain", "--request", "GET /", "--state-dir", "/nowhere"], "/nowhere/control.sock"),
    ] {
        let line = complaint(&corral(&args));
        assert!(line.contains(told), "{args:?}: {line}");
    }
}

#[tokio::test]
async fn a_running_sidecar_answers_over_its_socket() {
    let digester = api_keys::random().unwrap();
    let settings = CoreSettings {
        limiter: LimiterSettings { hash_key: [0; 16], keys_per_limit: 10 },
        slots: Slots { per_model: 1, models: 1 },
    };
    let core = Arc::new(Core::new(settings, Arc::new(Health::new()), Arc::new(Metrics::new())));
    let standalone = files::from_text(POLICY, &digester).unwrap();
    core.take_plan(Arc::new(compile(&standalone.doc).unwrap()), NonZeroU32::MIN);
    core.digesters.replace([digester]);
    core.health.plan_accepted();
    core.health.told_to_serve();
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().to_str().unwrap().to_owned();
    let path = dir.path().to_owned();
    let serving = tokio::spawn(async move { control_socket::serve(&path, core).await });
    while !dir.path().join("control.sock").exists() {
        tokio::task::yield_now().await;
    }
    let (explained, top) = tokio::task::spawn_blocking(move || {
        let request = "--request=POST /api/chat model=tiny";
        let explained = corral(&["explain", request, "--api-key", KEY, "--state-dir", &state_dir]);
        (explained, corral(&["top", "--once", "--state-dir", &state_dir]))
    })
    .await
    .unwrap();
    serving.abort();
    let explained = printed(&explained);
    assert!(explained.contains("client   ann, by its API key"), "{explained}");
    assert!(explained.contains("outcome  503: Ollama is starting."), "{explained}");
    assert!(printed(&top).ends_with("(nobody)\n"));
}
