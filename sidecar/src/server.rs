//! The clients' listener: accepts, bounds and ages connections, and serves each with the proxy.

mod io;
mod sources;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::core::Core;
use crate::proxy::{Connection, Dice, MAX_HEAD, Proxy, ProxySettings, identify};
use io::GuardedIo;
use sources::Sources;

/// The most header lines of a request.
const MAX_HEADERS: usize = 100;
/// The most bytes read ahead of a connection.
const READ_BUFFER: usize = 128 * 1024;
/// How long cut answers have to say their last words to clients that are slow to listen.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long to wait when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers clients behind the listener.
pub(crate) trait Host: Send + Sync + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send + 'static;

    /// The clock, health and metrics that the listener goes by.
    fn core(&self) -> &Arc<Core>;

    /// The bounds and times of connections.
    fn settings(&self) -> &ProxySettings;

    /// Spreads the ages of connections.
    fn dice(&self) -> &Dice;

    /// Answers one request of a connection.
    fn answer(
        self: Arc<Self>,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// What goes on beside requests, until it is dropped.
    fn watch(self: Arc<Self>) -> impl Future<Output = ()> + Send;
}

/// Serves clients with Ollama, as `serve_with` does.
pub async fn serve(
    listener: TcpListener,
    core: Arc<Core>,
    settings: ProxySettings,
    shutdown: impl Future<Output = ()>,
) {
    serve_with(listener, Arc::new(Proxy::new(core, settings)), shutdown).await;
}

/// Serves clients until `shutdown` resolves; then takes no more connections, lets requests in flight end within
/// [`ProxySettings::shutdown_grace`] or until they are cut, and returns. A failed accept is tried again.
pub(crate) async fn serve_with<H: Host>(
    listener: TcpListener,
    host: Arc<H>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let sources = Arc::new(Sources::default());
    let mut shutdown = pin!(shutdown);
    let watching = Arc::clone(&host);
    // Aborted when it is dropped: it watches until the last answer is over.
    let mut watch = JoinSet::new();
    watch.spawn(async move { watching.watch().await });
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok(taken) => take(&host, taken, &sources, &stopping, &mut connections),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    wind_up(&*host, connections).await;
}

/// Waits for the last answers; cuts what takes too long, and lets go of clients that do not even take that.
async fn wind_up<H: Host>(host: &H, mut connections: JoinSet<()>) {
    let health = &host.core().health;
    tokio::select! {
        () = ended(&mut connections) => return,
        () = health.until_cut() => {}
        () = sleep(host.settings().shutdown_grace) => {}
    }
    health.cut_running();
    if timeout(LAST_WORDS, ended(&mut connections)).await.is_err() {
        tracing::warn!(left = connections.len(), "connections cut: their clients took nothing any more");
        connections.shutdown().await;
    }
}

async fn ended(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// Serves a connection, if there is room for one more.
fn take<H: Host>(
    host: &Arc<H>,
    (stream, peer): (TcpStream, SocketAddr),
    sources: &Arc<Sources>,
    stopping: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    if connections.len() >= host.settings().max_connections {
        return;
    }
    let plan = host.core().plan();
    let is_proxy =
        plan.is_some_and(|plan| identify::is_trusted(peer.ip().to_canonical(), plan.trusted_proxies()));
    let most = if is_proxy { usize::MAX } else { host.settings().max_connections_each };
    if let Some(counted) = sources.open(peer.ip(), most) {
        let conversation = converse(Arc::clone(host), stream, peer, stopping.clone());
        connections.spawn(async move {
            let _counted = counted;
            conversation.await;
        });
    }
}

async fn converse<H: Host>(
    host: Arc<H>,
    stream: TcpStream,
    peer: SocketAddr,
    mut stopping: watch::Receiver<bool>,
) {
    // Without it small frames wait for the client's acknowledgement of the one before.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let _counted = Counted::new(host.core());
    let (core, settings) = (host.core(), host.settings());
    let age = host.dice().about(settings.max_connection_age);
    let ages_out = core.clock().now().plus(age.into());
    let connection = Arc::new(Connection::new(peer.ip(), local.ip(), ages_out, !core.health.draining()));
    let io = GuardedIo::new(stream, Arc::clone(&connection), settings.head_timeout, settings.stall_timeout);
    let idle_timeout = settings.idle_timeout;
    let service = service_fn(|request| {
        let answer = Arc::clone(&host).answer(Arc::clone(&connection), request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut served = pin!(http(idle_timeout).serve_connection(TokioIo::new(io), service));
    tokio::select! {
        // Errors are the client's: it left, or sent what is not HTTP, and hyper has answered that.
        _ = served.as_mut() => return,
        _ = stopping.wait_for(|stop| *stop) => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

fn http(idle_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // While it waits for a head: heads have a shorter time of their own, from their first byte.
        .header_read_timeout(idle_timeout)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(READ_BUFFER);
    builder
}

/// Counts an open connection for as long as it lives.
struct Counted {
    core: Arc<Core>,
}

impl Counted {
    fn new(core: &Arc<Core>) -> Self {
        core.metrics.connection_opened();
        Self { core: Arc::clone(core) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.core.metrics.connection_closed();
    }
}

#[cfg(test)]
#[path = "server/server_tests.rs"]
mod tests;
