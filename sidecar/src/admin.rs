//! The admin port: probes, metrics, the exchange, and Ollama's own hooks.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /livez` | 200 as long as this thread answers; neither load nor Ollama plays a part |
//! | `GET /readyz` | 200, or 503 with the reason in one word |
//! | `GET /startupz` | 200: both ports are bound |
//! | `GET /ollama/livez` | 503 only when Ollama answers nothing for longer than it ever does while it lives, or a runner of its has stopped |
//! | `GET /drain/wait` | 200 when a drain is over; Ollama's preStop. Nobody is turned away: the kubelet takes any answer for the end |
//! | `GET /metrics` | `OpenMetrics` if asked for, else Prometheus text; up to 100 ms old |
//! | `POST /activation` | see [`crate::activator`]; 404 but in an activator; 429 while its source has two that are being read or two that are kept back, or all have 64 or 8 |
//! | `POST /exchange` | see [`crate::exchange`]; 404 standalone; 429 while its source has two under way, or all have 32 |
//!
//! It runs on a thread of its own: however busy the data path is, a probe is answered at once.

mod connections;
mod places;
mod scrapes;
mod source;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tracing::debug;

use corral_telemetry::exposition;
use corral_wire::activation::MAX_DUTY_BYTES;
use corral_wire::exchange::MAX_DIRECTIVE_BYTES;

use crate::activator::Activation;
use crate::config::DrainSettings;
use crate::core::Core;
use crate::exchange::{Exchange, Reply};
use crate::health::Drain;
use crate::metrics::Standing;
use crate::shutdown::reached;

use connections::Connections;
use places::Places;
use scrapes::Scrapes;
use source::Source;

/// From one source: the leader's, and one that it has given up on.
const MAX_EXCHANGES_EACH: usize = 2;
/// Over all sources. No signature is checked before the body is there, so this is what bounds the memory for bodies: 32
/// of at most [`MAX_DIRECTIVE_BYTES`], together 32 MiB.
const MAX_EXCHANGES: usize = 32;
/// The same for duties until they have shown who sends them, of at most 64 KiB.
const MAX_DUTIES: usize = 64;
/// Duties whose answers are kept back: by an operator that is, and by one that was. No stranger has any of these.
const MAX_KEPT: usize = 8;
/// The leader gives up on a pod after one second.
const EXCHANGE_BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// For a head to come, and for a connection to lie idle. No common scrape or probe interval: closing at the moment of
/// the next request loses it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
const MAX_CONNECTIONS: usize = 512;

type Answer = Response<Full<Bytes>>;

/// What the admin port answers from.
pub struct Admin {
    core: Arc<Core>,
    exchange: Option<Arc<Exchange>>,
    drain: DrainSettings,
    exchanges: Arc<Places>,
    scrapes: Scrapes,
    activation: Option<Arc<Activation>>,
    duties: Arc<Places>,
    kept: Arc<Places>,
}

impl Admin {
    /// Without an exchange (standalone) `/exchange` is not there.
    pub fn new(core: Arc<Core>, exchange: Option<Exchange>, drain: DrainSettings) -> Self {
        Self {
            core,
            exchange: exchange.map(Arc::new),
            drain,
            exchanges: Places::new(MAX_EXCHANGES_EACH, MAX_EXCHANGES),
            scrapes: Scrapes::default(),
            activation: None,
            duties: Places::new(MAX_EXCHANGES_EACH, MAX_DUTIES),
            kept: Places::new(MAX_EXCHANGES_EACH, MAX_KEPT),
        }
    }

    /// The same of an activator.
    pub(crate) fn activating(self, activation: Activation) -> Self {
        Self { activation: Some(Arc::new(activation)), ..self }
    }

    async fn answer(&self, source: Source, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::POST, "/exchange") => self.exchange(source, request).await,
            (&Method::POST, "/activation") => self.activate(source, request).await,
            (_, "/exchange" | "/activation") => not_allowed("POST"),
            (&Method::GET | &Method::HEAD, path) => self.look(path, &request).await,
            _ => not_allowed("GET, HEAD"),
        }
    }

    async fn look(&self, path: &str, request: &Request<Incoming>) -> Answer {
        match path {
            "/livez" | "/startupz" => text(StatusCode::OK, "ok"),
            "/readyz" => self.readyz(),
            "/ollama/livez" => self.ollama_livez(),
            "/drain/wait" => self.drain_wait().await,
            "/metrics" => self.metrics(request.headers()),
            _ => text(StatusCode::NOT_FOUND, "not here"),
        }
    }

    fn readyz(&self) -> Answer {
        let readiness = self.core.health.readiness();
        if readiness.ready() {
            text(StatusCode::OK, "ok")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, readiness.reason.word())
        }
    }

    fn ollama_livez(&self) -> Answer {
        match self.core.health.needs_restart() {
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            None => text(StatusCode::OK, "ok"),
        }
    }

    /// Ollama must outlive what runs in it, and be told when that has ended. One that answers nothing need not wait, nor
    /// one that is to be started anew because it has stopped: there is no drain then. Connections bound those who wait.
    async fn drain_wait(&self) -> Answer {
        let health = &self.core.health;
        tokio::select! {
            begun = timeout(self.drain.begin_wait, reached(health, Drain::Closing)) => {
                if begun.is_err() {
                    return text(StatusCode::OK, "no drain began");
                }
            }
            why = self.until_restart() => return text(StatusCode::OK, why),
        }
        tokio::select! {
            () = reached(health, Drain::Over) => text(StatusCode::OK, "drain over"),
            () = health.until_wedged() => text(StatusCode::OK, "Ollama answers nothing"),
        }
    }

    async fn until_restart(&self) -> &'static str {
        loop {
            if let Some(why) = self.core.health.needs_restart() {
                return why;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        // The content type hangs on the header alone, so that nothing is rendered to learn it.
        let (kind, _) = exposition::negotiated(accepted, String::new());
        let text = self
            .scrapes
            .text(kind, || exposition::negotiated(accepted, self.core.metrics.render(&self.standing())).1);
        typed(StatusCode::OK, kind, text)
    }

    fn standing(&self) -> Standing {
        let core = &self.core;
        let (bands, models) = core.queue_gauges();
        Standing {
            gauges: core.gauges(),
            counters: core.counters(),
            plan_sequence: core.plan().map_or(0, |plan| plan.sequence()),
            divisor: core.divisor().get(),
            reason: Some(core.health.readiness().reason),
            circuit: core.health.circuit(),
            transitions: core.health.transitions().collect(),
            models_off_gpu: core.health.off_gpu().len(),
            limits: core.limit_stats(),
            bands: bands.to_vec(),
            models,
        }
    }

    async fn exchange(&self, source: Source, request: Request<Incoming>) -> Answer {
        let Some(exchange) = self.exchange.clone() else {
            return text(StatusCode::NOT_FOUND, "not here");
        };
        let Some(place) = self.exchanges.take(source) else {
            return text(StatusCode::TOO_MANY_REQUESTS, "too many directives at one time");
        };
        let body = match message(request.into_body(), MAX_DIRECTIVE_BYTES).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let answering = move || {
            // Its work goes on when the caller has gone, and so does its place.
            let _place = place;
            exchange.answer(&body)
        };
        let reply = tokio::task::spawn_blocking(answering).await;
        reply.map_or_else(
            |_| text(StatusCode::INTERNAL_SERVER_ERROR, "the directive could not be handled"),
            replied,
        )
    }
}

impl Admin {
    /// An answer that is kept back keeps its place, and gives it up when whoever asked has gone.
    async fn activate(&self, source: Source, request: Request<Incoming>) -> Answer {
        let Some(activation) = self.activation.clone() else {
            return text(StatusCode::NOT_FOUND, "not here");
        };
        let too_many = || text(StatusCode::TOO_MANY_REQUESTS, "too many duties at one time");
        let Some(place) = self.duties.take(source) else {
            return too_many();
        };
        let body = match message(request.into_body(), MAX_DUTY_BYTES).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let obeying = Arc::clone(&activation);
        let owed = match tokio::task::spawn_blocking(move || obeying.obey(&body)).await {
            Ok(Ok(owed)) => owed,
            Ok(Err(refusal)) => return replied(refusal),
            Err(_) => return text(StatusCode::INTERNAL_SERVER_ERROR, "the duty could not be handled"),
        };
        drop(place);
        if owed.may_be_kept() {
            let Some(_kept) = self.kept.take(source) else {
                return too_many();
            };
            activation.news(&owed).await;
        }
        let reply = tokio::task::spawn_blocking(move || activation.answer(&owed)).await;
        reply.map_or_else(
            |_| text(StatusCode::INTERNAL_SERVER_ERROR, "the duty could not be answered"),
            replied,
        )
    }
}

/// Reads a whole message of the operator.
async fn message(body: Incoming, most: usize) -> Result<Bytes, Answer> {
    if body.size_hint().lower() > most as u64 {
        return Err(text(StatusCode::PAYLOAD_TOO_LARGE, "a message is smaller"));
    }
    match timeout(EXCHANGE_BODY_TIMEOUT, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(text(StatusCode::PAYLOAD_TOO_LARGE, "a message is smaller, and whole")),
        Err(_) => Err(text(StatusCode::REQUEST_TIMEOUT, "the message did not come")),
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let mut connections = Connections::new(MAX_CONNECTIONS);
    loop {
        let (stream, source) = match listener.accept().await {
            Ok((stream, peer)) => (stream, Source::from(peer.ip())),
            Err(error) => {
                // Out of file descriptors, most likely: the next one may be luckier.
                debug!(%error, "accept failed");
                sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        connections.open(source, async move {
            let service =
                service_fn(|request| async { Ok::<_, Infallible>(admin.answer(source, request).await) });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(64 * 1024);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                debug!(%error, "connection to the admin port ended");
            }
        });
    }
}

fn replied(reply: Reply) -> Answer {
    match reply {
        Reply::Report(status, signed) => match serde_json::to_string(&signed) {
            Ok(json) => typed(status, "application/json", json),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the report cannot be written"),
        },
        Reply::Refusal(status, why) => typed(status, PLAIN, why),
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn text(status: StatusCode, line: &'static str) -> Answer {
    typed(status, PLAIN, line)
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "not by this method");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

#[cfg(test)]
#[path = "admin/tests.rs"]
mod tests;
