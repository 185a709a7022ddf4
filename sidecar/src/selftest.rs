//! The self-test: a scripted Ollama in process, one request that is answered and one that is refused.
//!
//! It needs no network but the loopback, no file and no cluster: what fails here is the build or the machine.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::config::{Policies, Settings};
use crate::run::{RunError, start};

const PATIENCE: Duration = Duration::from_secs(10);
const POLICY: &str = "\
apiVersion: corral.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: selftest }
spec:
  targetRefs: [{ kind: OllamaPool, name: selftest }]
  limits:
  - name: once-an-hour
    per: [Client]
    requests: 1/h
";
const LIMIT: &str = "once-an-hour";
const ANSWER: &str = "{\"model\":\"tiny\",\"response\":\"hello\",\"done\":true,\"done_reason\":\"stop\"}\n";

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    /// The sidecar does not start or end.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The loopback does not work.
    #[error("the loopback does not work: {0}")]
    Io(#[from] std::io::Error),
    /// A request got no answer.
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    /// A request cannot be made.
    #[error("no request: {0}")]
    Request(#[from] http::Error),
    /// It took too long.
    #[error("it took longer than {} s", PATIENCE.as_secs())]
    TooSlow(#[from] tokio::time::error::Elapsed),
    /// An answer was not what it should be.
    #[error("the {which} request got {status}: {body}")]
    Wrong {
        /// The first or the second.
        which: &'static str,
        /// Its status.
        status: StatusCode,
        /// Its body.
        body: String,
    },
}

/// Runs it; the line says what was seen.
pub async fn selftest() -> Result<String, SelftestError> {
    timeout(PATIENCE, check()).await?
}

async fn check() -> Result<String, SelftestError> {
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let address = upstream.local_addr()?;
    let ollama = tokio::spawn(scripted(upstream));
    let running = start(Settings::standalone(Policies::Text(POLICY.to_owned()), address)).await?;
    running.ready().await;
    let allowed = generate(running.client_address()).await?;
    let refused = generate(running.client_address()).await?;
    running.stop().await?;
    ollama.abort();
    allowed.expect("first", |answer| answer.status == StatusCode::OK && answer.body == ANSWER)?;
    refused.expect("second", |answer| {
        answer.status == StatusCode::TOO_MANY_REQUESTS && answer.retry_after && answer.body.contains(LIMIT)
    })?;
    Ok(format!(
        "selftest ok: the first request was answered, the second refused with 429 by {LIMIT}, with Retry-After"
    ))
}

struct Answer {
    status: StatusCode,
    retry_after: bool,
    body: String,
}

impl Answer {
    fn expect(self, which: &'static str, right: impl Fn(&Self) -> bool) -> Result<(), SelftestError> {
        if right(&self) {
            return Ok(());
        }
        Err(SelftestError::Wrong { which, status: self.status, body: self.body })
    }
}

async fn generate(address: SocketAddr) -> Result<Answer, SelftestError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post("/api/generate")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(b"{\"model\":\"tiny\",\"prompt\":\"hello\",\"stream\":false}")))?;
    let response = sender.send_request(request).await?;
    let (status, retry_after) = (response.status(), response.headers().contains_key("retry-after"));
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok(Answer { status, retry_after, body: String::from_utf8_lossy(&body).into_owned() })
}

/// An Ollama that says hello, and its version.
async fn scripted(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let service = service_fn(|request| async { Ok::<_, Infallible>(say(request).await) });
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
        });
    }
}

async fn say(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let version = request.uri().path() == "/api/version";
    // Read to its end, as Ollama does, so that the connection can be used again.
    let _ = request.into_body().collect().await;
    let text = if version { "{\"version\":\"0.0.0\"}" } else { ANSWER };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_selftest_passes() {
        let line = selftest().await.unwrap();
        assert!(line.contains("429") && line.contains(LIMIT), "{line}");
    }
}
