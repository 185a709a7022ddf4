//! The port that KEDA calls: HTTP/2 without TLS, by gRPC's "prior knowledge", with every number bounded.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use corral_limiter::network;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;

use super::externalscaler::external_scaler_server::ExternalScalerServer;
use super::scaler::Scaler;
use super::source::PoolNumbers;

/// The most open connections; a KEDA operator has one for each spelling of the scaler's address.
pub const CONNECTIONS: usize = 32;
/// Those of them that come from one address, or one /64.
pub const CONNECTIONS_OF_ONE: usize = 8;
/// The largest call: its `metadata` is nearly all of it.
pub const MAX_CALL_BYTES: usize = 16 * 1024;
/// The most calls that one connection has open: all streams that there may be, and as many others, which else would wait for a
/// stream to end.
const CALLS: u32 = 512;
/// The most calls of all connections that are not answered yet.
const UNANSWERED: usize = 512;
/// The longest until a call is answered, from its first byte on; a stream is answered when it is opened.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The longest until a new connection says its first word.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// The longest from that until its first call.
const FIRST_CALL: Duration = Duration::from_secs(20);
/// The longest that it has no call open after that.
const IDLE: Duration = Duration::from_mins(2);
/// How often the other side is asked whether it is still there.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How long it may take to say so.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many bytes of calls that nobody has read yet a connection may have on their way.
const ON_THE_WAY: u32 = 128 * 1024;

/// What all connections share.
#[derive(Clone)]
struct Shared {
    scaler: ExternalScalerServer<Scaler>,
    unanswered: Arc<Semaphore>,
}

/// Where open connections come from.
type Sources = Arc<Mutex<Vec<IpAddr>>>;

/// One open connection; it counts until it is dropped.
struct Place {
    sources: Sources,
    source: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// None where one source has enough of them.
    fn take(sources: &Sources, ip: IpAddr, permit: OwnedSemaphorePermit) -> Option<Self> {
        let source = network(ip);
        let mut open = sources.lock();
        if open.iter().filter(|other| **other == source).count() >= CONNECTIONS_OF_ONE {
            return None;
        }
        open.push(source);
        Some(Self { sources: Arc::clone(sources), source, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sources.lock();
        if let Some(place) = open.iter().position(|other| *other == self.source) {
            open.swap_remove(place);
        }
    }
}

/// Answers on `listener` for as long as it is polled. All connections end with it.
pub async fn serve(listener: TcpListener, numbers: Arc<dyn PoolNumbers>) {
    let scaler = ExternalScalerServer::new(Scaler::new(numbers)).max_decoding_message_size(MAX_CALL_BYTES);
    let shared = Shared { scaler, unanswered: Arc::new(Semaphore::new(UNANSWERED)) };
    let (permits, mut connections) = (Arc::new(Semaphore::new(CONNECTIONS)), JoinSet::new());
    let sources = Sources::default();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((stream, from)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(place) = Place::take(&sources, from.ip(), permit) else { continue };
        let shared = shared.clone();
        connections.spawn(async move {
            converse(stream, shared).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, shared: Shared) {
    if !matches!(timeout(FIRST_WORD, stream.peek(&mut [0])).await, Ok(Ok(1..))) {
        return;
    }
    let calls = watch::Sender::new(0);
    let idle = until_idle(calls.subscribe());
    let answer = service_fn(move |request| answer(shared.clone(), Open::new(&calls), request));
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .keep_alive_interval(ASK_EVERY)
        .keep_alive_timeout(PATIENCE)
        .max_concurrent_streams(CALLS)
        .initial_connection_window_size(ON_THE_WAY)
        .initial_stream_window_size(ON_THE_WAY)
        .max_header_list_size(4 * 1024);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), answer));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = idle => {
            connection.as_mut().graceful_shutdown();
            timeout(DEADLINE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of KEDA ended");
    }
}

/// A call that is open, until what it is answered with has been sent.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(calls: &watch::Sender<usize>) -> Self {
        calls.send_modify(|open| *open = open.saturating_add(1));
        Self(calls.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// Ends when no call has been open for too long.
async fn until_idle(mut calls: watch::Receiver<usize>) {
    let mut patience = FIRST_CALL;
    loop {
        let is_idle = *calls.borrow_and_update() == 0;
        let longest = if is_idle { patience } else { Duration::MAX };
        if !matches!(timeout(longest, calls.changed()).await, Ok(Ok(()))) {
            return;
        }
        patience = IDLE;
    }
}

async fn answer(
    mut shared: Shared,
    open: Open,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let Ok(_permit) = Arc::clone(&shared.unanswered).try_acquire_owned() else {
        return Ok(Status::resource_exhausted("too many calls are not answered yet").into_http());
    };
    let Ok(answer) = timeout(DEADLINE, shared.scaler.call(request)).await else {
        return Ok(Status::deadline_exceeded("the call did not come to an end").into_http());
    };
    Ok(answer?.map(|body| {
        Body::new(body.map_frame(move |frame| {
            // It is open for as long as there is something to send.
            let _ = &open;
            frame
        }))
    }))
}
