//! The scripted Ollama fails, frees and cancels as the real one does.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Client, Reply};
use corral_tests::ollama::{Endpoint, Fault, Outcome, Pace, ScriptedOllama, Settings};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

fn ask(tokens: u32) -> Value {
    json!({ "model": "tiny", "messages": [{ "role": "user", "content": "hi" }], "options": { "num_predict": tokens } })
}

async fn paced(token_ms: u64) -> (ScriptedOllama, Client) {
    let pace = Pace { token: Duration::from_millis(token_ms), ..Pace::default() };
    let ollama = ScriptedOllama::start(Settings { pace, ..Settings::default() }).await.unwrap();
    let client = Client::new(ollama.address());
    (ollama, client)
}

async fn first_token(client: &Client, tokens: u32) -> Reply {
    let mut reply = client.stream("/api/chat", &ask(tokens)).await.unwrap();
    reply.chunk().await.unwrap().unwrap();
    reply
}

/// Polls, because a closed socket takes the other side a moment to see.
async fn soon(what: impl Fn() -> bool) -> bool {
    for _ in 0..200 {
        if what() {
            return true;
        }
        sleep(Duration::from_millis(5)).await;
    }
    false
}

#[tokio::test]
async fn tokens_come_one_by_one_at_the_pace_asked_for() {
    let (_ollama, client) = paced(20).await;
    let mut reply = client.stream("/api/chat", &ask(10)).await.unwrap();
    let chunks = reply.timed_chunks().await.unwrap();
    assert_eq!(chunks.len(), 11);
    let took = chunks[10].0 - chunks[0].0;
    assert!(took >= Duration::from_millis(150), "{took:?}");
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_frees_its_slot() {
    let (ollama, client) = paced(5).await;
    drop(first_token(&client, 4000).await);
    let started = Instant::now();
    assert_eq!(client.post("/api/chat", &ask(1)).await.unwrap().status, StatusCode::OK);
    assert!(Instant::now() - started < Duration::from_millis(500));
    assert_eq!(ollama.record().count(Outcome::Cancelled), 1);
    assert_eq!(ollama.record().leaked(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_scheduled_leaks() {
    let (ollama, client) = paced(0).await;
    ollama.set_pace(Pace { schedule: Duration::from_millis(300), ..Pace::default() });
    let asking = tokio::spawn(async move { client.post("/api/chat", &ask(1)).await });
    assert!(soon(|| !ollama.record().arrivals().is_empty()).await);
    asking.abort();
    assert!(soon(|| ollama.record().leaked() == 1).await);
}

#[tokio::test]
async fn a_cut_stream_breaks_and_a_silent_one_ends() {
    let (ollama, client) = paced(0).await;
    ollama.fault(Fault::Cut { after: 3 });
    let (_, whole) = client.stream("/api/chat", &ask(9)).await.unwrap().rest().await;
    assert!(!whole);
    ollama.fault(Fault::NoEnd { after: 3 });
    let (text, whole) = client.stream("/api/chat", &ask(9)).await.unwrap().rest().await;
    assert!(whole);
    assert!(!String::from_utf8(text).unwrap().contains("\"done\":true"));
    assert_eq!(ollama.record().count(Outcome::Faulted), 2);
}

#[tokio::test]
async fn stalls_hold_the_first_byte_or_a_later_one() {
    let (ollama, client) = paced(0).await;
    let lasts = Duration::from_millis(200);
    ollama.fault(Fault::Stall { after: 0, lasts });
    let started = Instant::now();
    let mut reply = client.stream("/api/chat", &ask(2)).await.unwrap();
    assert!(Instant::now() - started >= lasts);
    assert_eq!(reply.chunks().await.unwrap().len(), 3);
    ollama.fault(Fault::Stall { after: 1, lasts });
    let mut reply = client.stream("/api/chat", &ask(2)).await.unwrap();
    let chunks = reply.timed_chunks().await.unwrap();
    assert!(chunks[1].0 - chunks[0].0 >= lasts);
}

#[tokio::test]
async fn other_faults_answer_or_close_at_once() {
    let (ollama, client) = paced(0).await;
    ollama.fault_at(Endpoint::Chat, Fault::Busy);
    assert_eq!(client.get("/api/tags").await.unwrap().status, StatusCode::OK);
    let busy = client.post("/api/chat", &ask(1)).await.unwrap();
    assert_eq!(busy.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(busy.headers.get("retry-after").is_none());
    ollama.fault(Fault::WrongJson);
    let wrong = client.post("/api/chat", &ask(1)).await.unwrap();
    assert!(serde_json::from_slice::<Value>(&wrong.body).is_err());
    ollama.fault(Fault::Close);
    assert!(client.post("/api/chat", &ask(1)).await.is_err());
    ollama.fault(Fault::BigToken { bytes: 1_000_000 });
    assert!(client.post("/api/chat", &ask(1)).await.unwrap().body.len() > 1_000_000);
}

#[tokio::test]
async fn a_killed_server_refuses_until_it_is_revived() {
    let (mut ollama, client) = paced(5).await;
    let mut reply = first_token(&client, 4000).await;
    ollama.kill().await;
    let (_, whole) = reply.rest().await;
    assert!(!whole);
    assert!(client.get("/api/tags").await.is_err());
    ollama.revive().await.unwrap();
    assert_eq!(client.post("/api/chat", &ask(1)).await.unwrap().status, StatusCode::OK);
    assert_eq!(ollama.record().loads(), 2);
}

#[tokio::test]
async fn the_record_shows_a_queue_inside_ollama() {
    let (ollama, client) = paced(5).await;
    let body = ask(10);
    let three = futures::future::join_all((0..3).map(|_| client.post("/api/chat", &body))).await;
    assert!(three.into_iter().all(|answer| answer.unwrap().status == StatusCode::OK));
    let load = ollama.record().model("tiny:latest");
    assert_eq!((load.max_running, load.max_waiting, load.running, load.waiting), (1, 2, 0, 0));
    assert_eq!(ollama.record().inferences().len(), 3);
}
