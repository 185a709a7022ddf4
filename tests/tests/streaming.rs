//! Streams pass through as they come: token by token, whole to the last byte, and honest when Ollama breaks off.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Client, Reply};
use corral_tests::ollama::{Endpoint, Fault, Outcome, Pace, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

const TOKENS: u32 = 20;

/// Every streaming endpoint, with a body that asks it for so many tokens.
fn endpoints(tokens: u32) -> Vec<(&'static str, Endpoint, Value)> {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let options = json!({ "num_predict": tokens });
    vec![
        ("/api/generate", Endpoint::Generate, json!({ "model": "tiny", "prompt": "hi", "options": options })),
        ("/api/chat", Endpoint::Chat, json!({ "model": "tiny", "messages": messages, "options": options })),
        (
            "/v1/chat/completions",
            Endpoint::ChatCompletions,
            json!({ "model": "tiny", "messages": messages, "stream": true, "max_tokens": tokens }),
        ),
        (
            "/v1/completions",
            Endpoint::Completions,
            json!({ "model": "tiny", "prompt": "hi", "stream": true, "max_tokens": tokens }),
        ),
        (
            "/v1/messages",
            Endpoint::Messages,
            json!({ "model": "tiny", "messages": messages, "stream": true, "max_tokens": tokens }),
        ),
        (
            "/v1/responses",
            Endpoint::Responses,
            json!({ "model": "tiny", "input": "hi", "stream": true, "max_output_tokens": tokens }),
        ),
    ]
}

async fn world(token: Duration) -> (ScriptedOllama, Sidecar) {
    let pace = Pace { token, ..Pace::default() };
    let settings = Settings { num_parallel: 8, max_queue: 512, pace, ..Settings::default() };
    let ollama = ScriptedOllama::start(settings).await.unwrap();
    // One slot and one request at a time: whatever is not given back stops the test.
    let policy = PolicyFile::limits(&["{ name: one, per: [Client], concurrency: 1 }"]);
    let sidecar = Sidecar::start(&ollama, &policy).await.unwrap();
    (ollama, sidecar)
}

/// Without what differs from one answer to the next: digits, of times and counts and most of each id.
fn shape(chunk: &[u8]) -> String {
    let text = String::from_utf8_lossy(chunk);
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Ollama says the next token only after the test has seen the one before: none is held back, merged or split.
#[tokio::test]
async fn every_token_arrives_by_itself_before_the_next_is_said() {
    let (ollama, sidecar) = world(Duration::ZERO).await;
    for (target, _, body) in endpoints(TOKENS) {
        let gate = ollama.gate();
        gate.step();
        let mut reply = sidecar.client().stream(target, &body).await.unwrap();
        let mut heard = vec![reply.chunk().await.unwrap().unwrap()];
        for _ in 1..=TOKENS {
            gate.step();
            heard.push(reply.chunk().await.unwrap().unwrap());
        }
        assert_eq!(reply.chunk().await.unwrap(), None, "{target}: more chunks than were said");
        (0..=TOKENS).for_each(|_| gate.step());
        let mut direct = Client::new(ollama.address()).stream(target, &body).await.unwrap();
        assert_eq!(direct.headers["content-type"], reply.headers["content-type"], "{target}");
        let said = direct.chunks().await.unwrap().concat();
        assert!(shape(&said).len().abs_diff(shape(&heard.concat()).len()) <= 64, "{target}");
    }
}

#[tokio::test]
async fn a_whole_answer_is_the_same_bytes() {
    let (ollama, sidecar) = world(Duration::ZERO).await;
    for (target, _, mut body) in endpoints(3) {
        body["stream"] = false.into();
        let direct = Client::new(ollama.address()).post(target, &body).await.unwrap();
        let through = sidecar.client().post(target, &body).await.unwrap();
        assert_eq!((direct.status, through.status), (StatusCode::OK, StatusCode::OK), "{target}");
        assert_eq!(direct.header("content-type"), through.header("content-type"), "{target}");
        assert!(shape(&direct.body).len().abs_diff(shape(&through.body).len()) <= 16, "{target}");
        assert_eq!(through.header("content-length"), through.body.len().to_string(), "{target}");
    }
}

#[tokio::test]
async fn a_line_of_megabytes_passes_whole() {
    let (ollama, sidecar) = world(Duration::ZERO).await;
    for (target, endpoint, body) in endpoints(2) {
        ollama.fault_at(endpoint, Fault::BigToken { bytes: 1_500_000 });
        let (text, whole) = sidecar.client().stream(target, &body).await.unwrap().rest().await;
        assert!(whole && text.len() > 1_500_000, "{target}: {}", text.len());
        let letters = text.split(|byte| *byte != b'x').map(<[u8]>::len).max().unwrap();
        assert_eq!(letters, 1_500_000, "{target}");
    }
}

/// The last event or line of a stream, as JSON, with its event name if it has one.
fn last_said(text: &[u8]) -> (String, Value) {
    let text = String::from_utf8_lossy(text);
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
    let name = last.lines().find_map(|line| line.strip_prefix("event: ")).unwrap_or_default();
    let line = last.lines().last().unwrap_or_default();
    let json = line.strip_prefix("data: ").unwrap_or(line);
    (name.to_owned(), serde_json::from_str(json).unwrap_or_else(|_| json.into()))
}

fn assert_error_in_family(target: &str, text: &[u8]) {
    let (name, said) = last_said(text);
    match target {
        "/api/generate" | "/api/chat" => assert!(said["error"].is_string(), "{target}: {said}"),
        "/v1/messages" => {
            assert_eq!((name.as_str(), &said["type"]), ("error", &json!("error")), "{target}: {said}");
            assert!(said["error"]["message"].is_string(), "{target}: {said}");
        }
        "/v1/responses" => {
            assert!(["error", "response.failed"].contains(&name.as_str()), "{target}: {name} {said}");
            assert_eq!(said["type"], name.as_str());
        }
        _ => {
            assert!(said["error"]["message"].is_string(), "{target}: {said}");
            assert!(said["error"].get("code").is_some(), "{target}: {said}");
        }
    }
}

/// The real server ends a native stream without its last line when a model repeats itself: that end is in order.
fn may_just_end(target: &str, fault: &Fault) -> bool {
    target.starts_with("/api/") && matches!(fault, Fault::NoEnd { .. })
}

async fn broken(fault: impl Fn() -> Fault) {
    let (ollama, sidecar) = world(Duration::from_millis(2)).await;
    for (target, endpoint, body) in endpoints(30) {
        ollama.fault_at(endpoint, fault());
        let mut reply = sidecar.client().stream(target, &body).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{target}");
        let (text, whole) = reply.rest().await;
        assert!(whole, "{target}: the body ends as HTTP wants it, so that the last event is read");
        if may_just_end(target, &fault()) {
            assert!(!String::from_utf8_lossy(&text).contains("error"), "{target}");
            continue;
        }
        assert_error_in_family(target, &text);
        let errors = String::from_utf8_lossy(&text).matches("\"error\":{").count();
        assert!(errors <= 1, "{target}: the error is said once");
    }
}

#[tokio::test]
async fn a_runner_that_dies_in_the_middle_is_told_in_the_familys_words() {
    broken(|| Fault::Crash { after: 5 }).await;
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_is_told_in_the_familys_words() {
    broken(|| Fault::Cut { after: 5 }).await;
}

#[tokio::test]
async fn a_stream_that_ends_without_its_end_is_told_in_the_familys_words() {
    broken(|| Fault::NoEnd { after: 5 }).await;
}

#[tokio::test]
async fn a_clean_stream_carries_no_error() {
    let (_ollama, sidecar) = world(Duration::from_millis(1)).await;
    for (target, _, body) in endpoints(5) {
        let (text, whole) = sidecar.client().stream(target, &body).await.unwrap().rest().await;
        let text = String::from_utf8(text).unwrap();
        assert!(whole && !text.contains("\"error\":{") && !text.contains("\"error\":\""), "{target}: {text}");
        let end = match target {
            "/api/generate" | "/api/chat" => "\"done\":true",
            "/v1/messages" => "event: message_stop",
            "/v1/responses" => "event: response.completed",
            _ => "data: [DONE]",
        };
        assert_eq!(text.matches(end).count(), 1, "{target}: {text}");
    }
}

#[tokio::test]
async fn a_failure_before_the_first_byte_keeps_its_status() {
    let (ollama, sidecar) = world(Duration::ZERO).await;
    for (target, endpoint, mut body) in endpoints(3) {
        for stream in [true, false] {
            body["stream"] = stream.into();
            ollama.fault_at(endpoint, Fault::Crash { after: 0 });
            let answer = sidecar.client().post(target, &body).await.unwrap();
            assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{target} {stream}");
            assert!(answer.text().contains("unexpected EOF"), "{target}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_503_with_a_time_to_come_back() {
    for (target, endpoint, body) in endpoints(1) {
        // Several such in a row would open the breaker.
        let (ollama, sidecar) = world(Duration::ZERO).await;
        ollama.fault_at(endpoint, Fault::Close);
        let answer = sidecar.client().post(target, &body).await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{target}");
        assert!(!answer.header("retry-after").is_empty(), "{target}");
        assert_eq!(
            ollama.record().inferences().iter().filter(|one| one.target == target).count(),
            1,
            "{target}"
        );
    }
}

#[tokio::test]
async fn hop_by_hop_headers_end_at_the_sidecar() {
    let (_ollama, sidecar) = world(Duration::ZERO).await;
    let (target, _, body) = endpoints(1).remove(4);
    let reply = sidecar.client().stream(target, &body).await.unwrap();
    assert_eq!(reply.headers["cache-control"], "no-cache");
    assert_ne!(
        reply.headers.get("connection").map(http::HeaderValue::as_bytes),
        Some(b"keep-alive".as_slice())
    );
    assert!(reply.headers.get("x-request-id").is_some());
}

async fn first_chunk(client: &Client, tokens: u32) -> Reply {
    let (target, _, body) = endpoints(tokens).remove(0);
    let mut reply = client.stream(target, &body).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    reply.chunk().await.unwrap().unwrap();
    reply
}

async fn soon(what: impl Fn() -> bool) -> bool {
    for _ in 0..200 {
        if what() {
            return true;
        }
        sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_cancels_it_within_a_second() {
    let (ollama, sidecar) = world(Duration::from_millis(5)).await;
    for number in 1..=10 {
        drop(first_chunk(&sidecar.client(), 4000).await);
        let left = Instant::now();
        assert!(soon(|| ollama.record().count(Outcome::Cancelled) == number).await);
        assert!(Instant::now() - left < Duration::from_secs(1));
    }
    assert_eq!((ollama.record().load().running, ollama.record().leaked()), (0, 0));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up_and_its_slot_comes_back() {
    let ollama = ScriptedOllama::plain().await.unwrap();
    let policy = PolicyFile::open();
    let sidecar = Sidecar::tuned(&ollama, &policy, |settings| {
        settings.proxy.stall_timeout = Duration::from_millis(300);
    });
    let sidecar = sidecar.await.unwrap();
    // More than every buffer on the way holds.
    ollama.fault(Fault::BigToken { bytes: 24 << 20 });
    let mut deaf = TcpStream::connect(sidecar.client().address()).await.unwrap();
    let (target, _, body) = endpoints(3).remove(0);
    let body = body.to_string();
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    deaf.write_all(head.as_bytes()).await.unwrap();
    assert!(soon(|| ollama.record().load().max_running == 1).await);
    let (target, _, next) = endpoints(1).remove(0);
    let answer = sidecar.client().post(target, &next).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    drop(deaf);
}

#[tokio::test]
async fn ollamas_own_refusals_pass_unchanged() {
    let (_ollama, sidecar) = world(Duration::ZERO).await;
    let body = json!({ "model": "tinybert", "prompt": "hi" });
    let answer = sidecar.client().post("/api/generate", &body).await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.text(), r#"{"error":"\"tinybert\" does not support generate"}"#);
}

#[tokio::test]
async fn embeddings_and_metadata_pass_in_all_their_spellings() {
    let (_ollama, sidecar) = world(Duration::ZERO).await;
    let client = sidecar.client();
    for (target, body) in [
        ("/api/embed", json!({ "model": "tinybert", "input": ["a", "b"] })),
        ("/api/embeddings", json!({ "model": "tinybert", "prompt": "a" })),
        ("/v1/embeddings", json!({ "model": "tinybert", "input": "a" })),
        ("/api/show", json!({ "model": "tiny" })),
        ("/api/show", json!({ "name": "tiny" })),
    ] {
        let answer = client.post(target, &body).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{target}: {}", answer.text());
    }
    for target in ["/", "/api/tags", "/api/version", "/api/ps", "/v1/models", "/v1/models/tiny"] {
        let answer = client.get(target).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{target}: {}", answer.text());
        assert!(!answer.body.is_empty(), "{target}");
    }
}
