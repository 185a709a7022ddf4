//! Whatever Ollama answers, a client gets a whole answer or an honest failure, and the slot comes back.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::canned::Canned;
use corral_tests::client::Client;
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

const FINE: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";

fn ask() -> Value {
    json!({ "model": "tiny", "prompt": "hi", "stream": false })
}

/// One slot and one request at a time: whatever is not given back stops the test.
async fn world() -> (Canned, Sidecar) {
    let canned = Canned::start().await.unwrap();
    let policy = PolicyFile::limits(&["{ name: one, per: [Client], concurrency: 1 }"]);
    let sidecar = Sidecar::before(canned.address(), &policy, |settings| {
        settings.health.probe_interval = Duration::from_millis(20);
    });
    let sidecar = sidecar.await.unwrap();
    (canned, sidecar)
}

/// Status, body, and whether the body ended as it should; none if there was no answer.
async fn meet(client: &Client) -> Option<(StatusCode, Vec<u8>, bool)> {
    let met = timeout(Duration::from_secs(10), async {
        let mut reply = client.stream("/api/generate", &ask()).await.ok()?;
        let (body, whole) = reply.rest().await;
        Some((reply.status, body, whole))
    });
    met.await.unwrap()
}

async fn assert_recovers(canned: &Canned, sidecar: &Sidecar, after: &str) {
    canned.set(FINE);
    for _ in 0..200 {
        match meet(&sidecar.client()).await {
            Some((StatusCode::OK, body, true)) if body == b"{}" => return,
            // It may take the prober two looks to believe in this upstream again.
            Some((StatusCode::SERVICE_UNAVAILABLE, ..)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => assert!(other.is_none(), "after {after}: {other:?}"),
        }
    }
    assert_eq!(after, "", "it never recovered from this");
}

#[tokio::test]
async fn answers_that_are_no_http_become_a_failure_with_a_status() {
    let long = "x".repeat(10_000_000);
    for (name, answer) in [
        ("nothing", String::new()),
        ("garbage", "nonsense\r\n\r\n".to_owned()),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Type: appl".to_owned()),
        ("a bad status", "HTTP/1.1 99999 OK\r\n\r\n".to_owned()),
        ("a head of ten megabytes", format!("HTTP/1.1 200 OK\r\nX: {long}\r\n\r\n")),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x".to_owned()),
        ("a switch of protocols", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_owned()),
    ] {
        // Half of its exchanges would open the breaker.
        let (canned, sidecar) = world().await;
        canned.set(answer);
        let met = meet(&sidecar.client()).await;
        let (status, body, whole) = met.unwrap();
        assert!(
            matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY),
            "{name}: {status}"
        );
        assert!(whole && serde_json::from_slice::<Value>(&body).unwrap()["error"].is_string(), "{name}");
        assert_recovers(&canned, &sidecar, name).await;
    }
}

#[tokio::test]
async fn a_body_cut_short_never_looks_whole() {
    let (canned, sidecar) = world().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    for (name, answer) in [
        ("a length not reached", format!("{head}Content-Length: 100\r\n\r\n{{\"a\":1")),
        ("a chunk not finished", format!("{head}Transfer-Encoding: chunked\r\n\r\n64\r\n{{\"a\":1")),
        ("no last chunk", format!("{head}Transfer-Encoding: chunked\r\n\r\n7\r\n{{\"a\":1}}\r\n")),
        ("a bad chunk size", format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n")),
    ] {
        canned.set(answer);
        let met = meet(&sidecar.client()).await;
        let failed = met.as_ref().is_none_or(|(status, _, whole)| !whole || status.is_server_error());
        assert!(failed, "{name}: {met:?}");
        assert_recovers(&canned, &sidecar, name).await;
    }
}

#[tokio::test]
async fn informational_answers_are_skipped_and_odd_ones_pass() {
    let (canned, sidecar) = world().await;
    let hints = "HTTP/1.1 100 Continue\r\n\r\n".repeat(3) + "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    for (name, answer, status, body) in [
        ("hints first", format!("{hints}{FINE}"), 200, "{}"),
        ("an empty answer", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned(), 204, ""),
        ("until it closes", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}".to_owned(), 200, "{}"),
        ("more than its length", format!("{FINE}HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"), 200, "{}"),
        (
            "a teapot",
            "HTTP/1.1 418 Teapot\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".to_owned(),
            418,
            "{}",
        ),
    ] {
        canned.set(answer);
        let (found, text, whole) = meet(&sidecar.client()).await.unwrap();
        assert_eq!(
            (found.as_u16(), String::from_utf8(text).unwrap().as_str(), whole),
            (status, body, true),
            "{name}"
        );
        assert_recovers(&canned, &sidecar, name).await;
    }
}

#[tokio::test]
async fn an_upstreams_headers_do_not_speak_for_the_sidecar() {
    let (canned, sidecar) = world().await;
    canned.set(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, X-Secret\r\nX-Secret: a\r\nKeep-Alive: timeout=1\r\n\
         Proxy-Authenticate: Basic\r\nTrailer: X\r\nUpgrade: h2c\r\nAccess-Control-Allow-Origin: *\r\n\r\n{}",
    );
    let answer = sidecar.client().post("/api/generate", &ask()).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    for name in ["x-secret", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert_eq!(answer.header(name), "", "{name}");
    }
}
