//! What the kubelet and Prometheus ask: `/livez`, `/readyz`, `/metrics`. HTTP/1.1, answered from memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corral_telemetry::exposition;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// The most open connections.
const CONNECTIONS: usize = 64;
/// The longest a connection may take for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether the operator is ready: it leads or waits for its turn, and what it reads is there.
#[derive(Debug, Default)]
pub struct Readiness(AtomicBool);

impl Readiness {
    /// Sets it.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Answers on `listener` for ever.
pub async fn serve(listener: TcpListener, readiness: Arc<Readiness>, metrics: Arc<Metrics>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (readiness, metrics) = (Arc::clone(&readiness), Arc::clone(&metrics));
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = answer(&request, &readiness, &metrics);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
                tracing::debug!(%error, "a connection to the admin port ended");
            }
            drop(permit);
        });
    }
}

fn answer<B>(request: &Request<B>, readiness: &Readiness, metrics: &Metrics) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok".to_owned()),
        "/readyz" if readiness.get() => text(StatusCode::OK, "ok".to_owned()),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "starting".to_owned()),
        "/metrics" => match metrics.text() {
            Ok(all) => {
                let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
                let (kind, all) = exposition::negotiated(accepted, all);
                typed(StatusCode::OK, kind, all)
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        _ => text(StatusCode::NOT_FOUND, "not found".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_only_when_told_and_alive_always() {
        let (readiness, metrics) = (Readiness::default(), Metrics::new());
        let ask = |path: &str| Request::get(path).body(()).unwrap();
        let status = |path: &str| answer(&ask(path), &readiness, &metrics).status().as_u16();
        assert_eq!(
            (status("/livez"), status("/readyz"), status("/metrics"), status("/x")),
            (200, 503, 200, 404)
        );
        readiness.set(true);
        assert_eq!(status("/readyz"), 200);
    }
}
