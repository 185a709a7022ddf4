//! Connections: requests on one stay apart, refusals leave it in step, it ages, and it ends in order.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::corpus::BODY;
use corral_tests::ollama::{Arrival, Pace, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

const ONE: &str = "{ name: one, per: [Client], requests: 1/h, burst: { requests: 1 } }";

async fn spent() -> (ScriptedOllama, Sidecar) {
    let ollama = ScriptedOllama::plain().await.unwrap();
    let sidecar = Sidecar::start(&ollama, &PolicyFile::limits(&[ONE])).await.unwrap();
    let first = sidecar.client().send(Method::POST, "/api/generate", BODY).await.unwrap();
    assert_eq!(first.status, StatusCode::OK);
    (ollama, sidecar)
}

fn post(target: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_never_read_as_a_request() {
    let (ollama, sidecar) = spent().await;
    let hidden = post("/api/version", "", "");
    for target in ["/api/generate", "/api/nope", "/api/pull", "/api/tags"] {
        let raw = post(target, "", &hidden)
            + "GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = sidecar.client().raw(raw.as_bytes(), Duration::from_secs(3)).await.unwrap();
        let statuses = answer.statuses();
        assert!(answer.closed, "{target}");
        assert!(!statuses.is_empty() && statuses.len() <= 2, "{target}: {statuses:?}");
        assert!((400..500).contains(&statuses[0]), "{target}: {statuses:?}");
        assert!(statuses.get(1).is_none_or(|second| *second == 200), "{target}: {statuses:?}");
    }
    // The sidecar itself asks what the model is.
    let of_clients = |one: &&Arrival| one.method == "POST" && one.target != "/api/show";
    assert_eq!(ollama.record().arrivals().iter().filter(of_clients).count(), 1);
}

#[tokio::test]
async fn a_kept_connection_serves_on_after_every_kind_of_refusal() {
    let (_ollama, sidecar) = spent().await;
    let mut connection = sidecar.client().connect().await.unwrap();
    for (method, target, body, status) in [
        (Method::POST, "/api/generate", BODY, 429),
        (Method::POST, "/api/nope", "", 404),
        (Method::PUT, "/api/generate", "", 405),
        (Method::GET, "/api/version", "", 200),
        (Method::HEAD, "/api/tags", "", 200),
        (Method::GET, "/api/tags", "", 200),
        (Method::POST, "/api/generate", BODY, 429),
        (Method::GET, "/corral/v1/limits", "", 200),
    ] {
        let answer = connection.send(method.clone(), target, body).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{method} {target}");
    }
}

async fn read_some(socket: &mut TcpStream) -> String {
    let mut buffer = vec![0; 65_536];
    let count = timeout(Duration::from_secs(3), socket.read(&mut buffer)).await.unwrap().unwrap();
    String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).into_owned()
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_it_will_be_read() {
    let ollama = ScriptedOllama::plain().await.unwrap();
    let sidecar = Sidecar::start(&ollama, &PolicyFile::limits(&[ONE])).await.unwrap();
    let head = format!(
        "POST /api/generate HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        BODY.len()
    );
    let mut socket = TcpStream::connect(sidecar.client().address()).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    assert!(read_some(&mut socket).await.starts_with("HTTP/1.1 100 Continue\r\n\r\n"));
    socket.write_all(BODY.as_bytes()).await.unwrap();
    assert!(read_some(&mut socket).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let mut refused = TcpStream::connect(sidecar.client().address()).await.unwrap();
    refused.write_all(head.as_bytes()).await.unwrap();
    assert!(read_some(&mut refused).await.starts_with("HTTP/1.1 429 "));
    assert!(!ollama.record().inferences()[0].headers.contains_key("expect"));
}

#[tokio::test]
async fn a_client_that_is_still_sending_hears_why_it_is_refused() {
    let ollama = ScriptedOllama::plain().await.unwrap();
    let policy = PolicyFile::open();
    let tuned = Sidecar::tuned(&ollama, &policy, |settings| settings.proxy.max_body_bytes = 100_000);
    let sidecar = tuned.await.unwrap();
    let prompt = "x".repeat(3_000_000);
    let body = format!("{{\"model\":\"tiny\",\"prompt\":\"{prompt}\"}}");
    for _ in 0..5 {
        let raw = post("/api/generate", "", &body);
        let answer = sidecar.client().raw(raw.as_bytes(), Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer.statuses(), [413], "{} bytes came back", answer.read.len());
    }
    assert_eq!(ollama.record().inferences().len(), 0);
}

#[tokio::test]
async fn an_old_connection_is_asked_to_close_and_a_young_one_is_not() {
    let ollama = ScriptedOllama::plain().await.unwrap();
    let policy = PolicyFile::open();
    let tuned = Sidecar::tuned(&ollama, &policy, |settings| {
        settings.proxy.max_connection_age = Duration::from_millis(500);
    });
    let sidecar = tuned.await.unwrap();
    let mut connection = sidecar.client().connect().await.unwrap();
    let young = connection.send(Method::GET, "/api/version", "").await.unwrap();
    assert_eq!(young.header("connection"), "");
    sleep(Duration::from_millis(650)).await;
    let old = connection.send(Method::GET, "/api/version", "").await.unwrap();
    assert_eq!((old.status, old.header("connection")), (StatusCode::OK, "close"));
}

#[tokio::test]
async fn a_request_survives_that_ollama_dropped_an_idle_connection() {
    let mut ollama = ScriptedOllama::plain().await.unwrap();
    let policy = PolicyFile::open();
    let sidecar = Sidecar::tuned(&ollama, &policy, |settings| {
        // The prober must not be what notices.
        settings.health.probe_interval = Duration::from_mins(1);
    });
    let sidecar = sidecar.await.unwrap();
    for _ in 0..3 {
        let answer = sidecar.client().send(Method::POST, "/api/generate", BODY).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        ollama.kill().await;
        ollama.revive().await.unwrap();
    }
}

#[tokio::test]
async fn a_drain_lets_streams_end_and_tells_every_connection_to_close() {
    let pace = Pace { token: Duration::from_millis(20), ..Pace::default() };
    let ollama =
        ScriptedOllama::start(Settings { num_parallel: 4, max_queue: 512, pace, ..Settings::default() });
    let ollama = ollama.await.unwrap();
    let policy = PolicyFile::open().slots(1);
    let sidecar = Sidecar::tuned(&ollama, &policy, |settings| {
        settings.drain.delay = Duration::from_millis(300);
        settings.drain.timeout = Duration::from_secs(10);
    });
    let sidecar = sidecar.await.unwrap();
    let client = sidecar.client();
    let body = json!({ "model": "tiny", "prompt": "hi", "options": { "num_predict": 50 } });
    let mut running = client.stream("/api/generate", &body).await.unwrap();
    let waiting = client.clone();
    let short = json!({ "model": "tiny", "prompt": "hi", "stream": false, "options": { "num_predict": 1 } });
    let queued = tokio::spawn(async move { waiting.post("/api/generate", &short).await });
    let mut kept = client.connect().await.unwrap();
    kept.send(Method::GET, "/api/version", "").await.unwrap();
    let mut other = client.connect().await.unwrap();
    other.send(Method::GET, "/api/version", "").await.unwrap();
    let stopping = tokio::spawn(sidecar.stop());
    sleep(Duration::from_millis(100)).await;
    let served = kept.send(Method::GET, "/api/version", "").await.unwrap();
    assert_eq!((served.status, served.header("connection")), (StatusCode::OK, "close"));
    sleep(Duration::from_millis(350)).await;
    let once_more = other.send(Method::POST, "/api/generate", BODY).await.unwrap();
    assert_eq!((once_more.status, once_more.header("connection")), (StatusCode::OK, "close"));
    let mut late = client.connect().await.unwrap();
    let refused = late.send(Method::POST, "/api/generate", BODY).await.unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!refused.header("retry-after").is_empty() && refused.header("connection") == "close");
    let (text, whole) = running.rest().await;
    assert!(whole && String::from_utf8_lossy(&text).contains("\"done\":true"));
    assert_eq!(queued.await.unwrap().unwrap().status, StatusCode::OK, "who waits is served too");
    let began = Instant::now();
    stopping.await.unwrap().unwrap();
    assert!(Instant::now() - began < Duration::from_secs(2));
}

/// Sends a head, waits until it has surely been read, then its body.
async fn send_apart(socket: &mut TcpStream, framing: &str, body: &[u8]) {
    let head = format!("POST /api/generate HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    socket.write_all(body).await.unwrap();
}

#[tokio::test]
async fn a_refusal_before_the_body_keeps_the_connection_when_the_body_comes_later() {
    let (ollama, sidecar) = spent().await;
    let mut socket = TcpStream::connect(sidecar.client().address()).await.unwrap();
    let length = format!("Content-Length: {}", BODY.len());
    for _ in 0..3 {
        send_apart(&mut socket, &length, BODY.as_bytes()).await;
        let answer = read_some(&mut socket).await.to_lowercase();
        assert!(answer.starts_with("http/1.1 429 ") && !answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(ollama.record().inferences().len(), 1);
}

#[tokio::test]
async fn a_refusal_before_a_body_that_is_not_worth_reading_says_that_the_connection_closes() {
    let (_ollama, sidecar) = spent().await;
    for framing in ["Content-Length: 262145", "Transfer-Encoding: chunked"] {
        let mut socket = TcpStream::connect(sidecar.client().address()).await.unwrap();
        send_apart(&mut socket, framing, b"").await;
        let answer = read_some(&mut socket).await.to_lowercase();
        assert!(answer.starts_with("http/1.1 429 ") && answer.contains("connection: close"), "{answer}");
    }
}
