//! Ollama's runner stops while its server answers: found, told, and healed; and busy is never mistaken for stopped.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Client, Reply};
use corral_tests::ollama::{Outcome, Pace, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const SUSPICION: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_millis(400);

async fn world(token_ms: u64, load_ms: u64) -> (ScriptedOllama, Sidecar) {
    let pace = Pace {
        token: Duration::from_millis(token_ms),
        load: Duration::from_millis(load_ms),
        ..Pace::default()
    };
    let settings = Settings { num_parallel: 2, pace, ..Settings::default() };
    let ollama = ScriptedOllama::start(settings).await.unwrap();
    let policy = PolicyFile::open().slots(2);
    let tuned = Sidecar::tuned(&ollama, &policy, |settings| {
        settings.proxy.stall.suspicion = SUSPICION;
        settings.proxy.stall.patience = PATIENCE;
        settings.proxy.hold_loaded = Duration::from_millis(100);
    });
    let sidecar = tuned.await.unwrap();
    (ollama, sidecar)
}

fn ask(tokens: u32, stream: bool) -> Value {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    json!({
        "model": "tiny", "messages": messages, "stream": stream, "max_tokens": tokens,
        "options": { "num_predict": tokens },
    })
}

async fn begun(client: &Client, path: &str) -> Reply {
    let mut reply = client.stream(path, &ask(10_000, true)).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    reply.chunk().await.unwrap().unwrap();
    reply
}

async fn rest(mut reply: Reply) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = reply.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap()
}

async fn counted(sidecar: &Sidecar, line: &str) -> bool {
    sidecar.metrics().await.unwrap().lines().any(|one| one == line)
}

#[tokio::test]
async fn a_stopped_runner_is_found_whatever_runs_on_it_and_all_slots_come_back() {
    let (ollama, sidecar) = world(5, 0).await;
    let client = sidecar.client();
    client.post("/api/chat", &ask(1, false)).await.unwrap();
    let (one, other) = (begun(&client, "/api/chat").await, begun(&client, "/v1/messages").await);
    let waiting = async { client.post("/v1/chat/completions", &ask(1, false)).await.unwrap() };
    ollama.wedge(true);
    let stopped = Instant::now();
    let (one, other, waiting) = tokio::join!(rest(one), rest(other), waiting);
    assert!(Instant::now() - stopped < 4 * (SUSPICION + PATIENCE), "{:?}", Instant::now() - stopped);
    assert!(
        one.ends_with("{\"error\":\"The model has stopped working: the answer is not complete.\"}\n"),
        "{one}"
    );
    assert!(other.contains("event: error\ndata: "), "{other}");
    assert_eq!(waiting.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(waiting.headers.contains_key("retry-after"), "{waiting:?}");
    let readyz = sidecar.admin().get("/readyz").await.unwrap();
    assert_eq!((readyz.status, readyz.text().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "Stalled"));
    let livez = sidecar.admin().get("/ollama/livez").await.unwrap();
    assert_eq!(livez.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(counted(&sidecar, "corral_in_flight 0").await && counted(&sidecar, "corral_queue_depth 0").await);
    ollama.wedge(false);
    sidecar.ready().await.unwrap();
    assert_eq!(client.post("/api/chat", &ask(3, false)).await.unwrap().status, StatusCode::OK);
    assert_eq!(
        (ollama.record().leaked(), ollama.record().loads()),
        (0, 1),
        "nothing leaked, nothing loaded anew"
    );
}

#[tokio::test]
async fn a_runner_slower_than_the_suspicion_is_asked_about_and_never_stopped() {
    let (ollama, sidecar) = world(1200, 0).await;
    let client = sidecar.client();
    client.post("/api/chat", &ask(1, false)).await.unwrap();
    let (streamed, whole) = (ask(4, true), ask(4, false));
    let (streamed, whole, waited) = tokio::join!(
        client.post("/api/chat", &streamed),
        client.post("/v1/chat/completions", &whole),
        client.post("/api/chat", &whole),
    );
    for answer in [streamed, whole, waited] {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    let seen = ollama.record().arrivals();
    assert!(seen.iter().any(|arrival| arrival.target == "/api/embed"), "it was asked about");
    assert!(!sidecar.metrics().await.unwrap().contains("corral_engine_stalls_total{"));
    assert_eq!((ollama.record().loads(), ollama.record().count(Outcome::Cancelled)), (1, 0));
}

#[tokio::test]
async fn a_load_however_long_is_no_stall_and_nobody_is_asked() {
    let (ollama, sidecar) = world(1, 4000).await;
    let answer = sidecar.client().post("/api/chat", &ask(3, false)).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(!ollama.record().arrivals().iter().any(|arrival| arrival.target == "/api/embed"));
    assert!(!sidecar.metrics().await.unwrap().contains("corral_engine_stalls_total{"));
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_no_stall() {
    let (ollama, sidecar) = world(0, 0).await;
    let client = sidecar.client();
    ollama.fault(corral_tests::ollama::Fault::BigToken { bytes: 16 << 20 });
    let mut reply = client.stream("/api/chat", &ask(2, true)).await.unwrap();
    reply.chunk().await.unwrap().unwrap();
    sleep(3 * (SUSPICION + PATIENCE)).await;
    assert!(!ollama.record().arrivals().iter().any(|arrival| arrival.target == "/api/embed"));
    let text = rest(reply).await;
    assert!(text.ends_with('\n') && text.contains("\"done\":true"), "{}", text.len());
}
