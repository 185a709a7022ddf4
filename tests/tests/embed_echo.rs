//! Answers in parts, before an upstream whose vectors say which input they are of, and how long they are.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic as tests do")]

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use corral_tests::client::Client;
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// Embeds each text as its own number, and says each of them as long as it is told to.
struct Echo {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long a vector is, in bytes; and which request is answered with an error, counted from 1.
#[derive(Clone, Copy)]
struct Manner {
    bytes: usize,
    fails_at: usize,
}

async fn echo(manner: Manner) -> Echo {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            connections.spawn(async move {
                let service = service_fn(move |request| answer(request, manner, Arc::clone(&count)));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    Echo { address, served, task }
}

async fn answer(
    request: Request<Incoming>,
    manner: Manner,
    served: Arc<AtomicUsize>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if request.method() == Method::GET || !path.contains("embed") {
        // Probes, and what the sidecar asks for itself.
        return Ok(Response::new(Full::from("{\"version\":\"0.32.15\"}")));
    }
    if path == "/api/show" {
        return Ok(Response::new(Full::from("{}")));
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if served.fetch_add(1, Ordering::SeqCst) + 1 == manner.fails_at {
        let mut failed = Response::new(Full::from("{\"error\":\"the runner died\"}"));
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return Ok(failed);
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    Ok(Response::new(Full::from(said(&path, body["input"].as_array().unwrap(), manner.bytes))))
}

/// As Ollama would say it.
fn said(path: &str, inputs: &[Value], bytes: usize) -> String {
    let vector = |input: &Value| {
        let text = input.as_str().unwrap();
        "0".repeat(bytes.saturating_sub(text.len())) + text
    };
    let items: Vec<String> = if path == "/api/embed" {
        inputs.iter().map(|input| format!("[\"{}\"]", vector(input))).collect()
    } else {
        let item = |(index, input)| {
            format!(r#"{{"object":"embedding","embedding":"{}","index":{index}}}"#, vector(input))
        };
        inputs.iter().enumerate().map(item).collect()
    };
    let (count, items) = (inputs.len(), items.join(","));
    if path == "/api/embed" {
        return format!(r#"{{"model":"m","embeddings":[{items}],"prompt_eval_count":{count}}}"#);
    }
    let usage = format!(r#"{{"prompt_tokens":{count},"total_tokens":{count}}}"#);
    format!("{{\"object\":\"list\",\"data\":[{items}],\"model\":\"m\",\"usage\":{usage}}}\n")
}

fn inputs(count: usize) -> Vec<Value> {
    (0..count).map(|at| Value::from(at.to_string())).collect()
}

async fn before(echo: &Echo) -> (Sidecar, Client) {
    let sidecar = Sidecar::before(echo.address, &PolicyFile::open(), |_| ()).await.unwrap();
    let client = sidecar.client();
    (sidecar, client)
}

#[tokio::test]
async fn every_input_has_its_vector_in_its_place() {
    let echo = echo(Manner { bytes: 8, fails_at: 0 }).await;
    let (_sidecar, client) = before(&echo).await;
    for path in ["/api/embed", "/v1/embeddings"] {
        for count in [16, 17, 31, 32, 33, 1000] {
            let asked = inputs(count);
            let got = client.post(path, &json!({ "model": "m", "input": asked })).await.unwrap();
            assert_eq!(got.text(), said(path, &asked, 8), "{path} {count}");
            let length = got.header("content-length");
            assert_eq!(length.is_empty(), count > 16 && got.body.len() > 2048, "{length}");
        }
    }
}

#[tokio::test]
async fn an_answer_too_long_to_be_held_goes_out_as_it_comes_and_is_the_same() {
    const LONG: usize = 900 << 10;
    let echo = echo(Manner { bytes: LONG, fails_at: 0 }).await;
    let (_sidecar, client) = before(&echo).await;
    let asked = inputs(60);
    let got = client.post("/v1/embeddings", &json!({ "model": "m", "input": asked })).await.unwrap();
    assert!(got.body.len() > 50 << 20);
    assert!(got.text() == said("/v1/embeddings", &asked, LONG), "the answer is another one");
    assert_eq!(echo.served.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_error_behind_what_has_gone_out_breaks_the_answer_off() {
    let echo = echo(Manner { bytes: 900 << 10, fails_at: 4 }).await;
    let (sidecar, client) = before(&echo).await;
    let mut reply =
        client.stream("/v1/embeddings", &json!({ "model": "m", "input": inputs(60) })).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    let (got, whole) = reply.rest().await;
    assert!(!whole && got.len() > 30 << 20, "{} bytes", got.len());
    // What was done is settled, and the slot is free.
    let next = client.post("/api/embed", &json!({ "model": "m", "input": ["1"] })).await.unwrap();
    assert_eq!(next.status, StatusCode::OK);
    tokio::time::sleep(std::time::Duration::from_millis(110)).await;
    let metrics = sidecar.metrics().await.unwrap();
    assert!(metrics.contains("corral_tokens_total{kind=\"input\",phase=\"settled\"} 49"), "{metrics}");
}

#[tokio::test]
async fn an_error_while_the_answer_is_held_is_the_answer() {
    let echo = echo(Manner { bytes: 8, fails_at: 3 }).await;
    let (_sidecar, client) = before(&echo).await;
    let got = client.post("/api/embed", &json!({ "model": "m", "input": inputs(60) })).await.unwrap();
    assert_eq!((got.status.as_u16(), got.text().as_str()), (500, "{\"error\":\"the runner died\"}"));
    assert_eq!(echo.served.load(Ordering::SeqCst), 3, "no further part was sent");
}

#[tokio::test]
async fn a_part_with_an_answer_longer_than_any_is_broken() {
    let echo = echo(Manner { bytes: 2 << 20, fails_at: 0 }).await;
    let (_sidecar, client) = before(&echo).await;
    let got = client.post("/v1/embeddings", &json!({ "model": "m", "input": inputs(60) })).await.unwrap();
    assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(echo.served.load(Ordering::SeqCst), 1);
}
