//! The clients' listener: accepts, bounds and ages connections, and serves each with the proxy.

mod io;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::core::Core;
use crate::proxy::{Connection, MAX_HEAD, Proxy, ProxySettings, handle};
use io::GuardedIo;

/// The most header lines of a request.
const MAX_HEADERS: usize = 100;
/// The most bytes read ahead of a connection.
const READ_BUFFER: usize = 128 * 1024;
/// How long cut answers have to say their last words to clients that are slow to listen.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long to wait when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves clients until `shutdown` resolves; then takes no more connections, lets requests in flight end within
/// [`ProxySettings::shutdown_grace`] or until they are cut, and returns. A failed accept is tried again.
pub async fn serve(
    listener: TcpListener,
    core: Arc<Core>,
    settings: ProxySettings,
    shutdown: impl Future<Output = ()>,
) {
    let proxy = Arc::new(Proxy::new(core, settings));
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let watching = Arc::clone(&proxy);
    // Aborted when it is dropped: it watches until the last answer is over.
    let mut watch = JoinSet::new();
    watch.spawn(async move { watching.watch().await });
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok(taken) => take(&proxy, taken, &stopping, &mut connections),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    wind_up(&proxy, connections).await;
}

/// Waits for the last answers; cuts what takes too long, and lets go of clients that do not even take that.
async fn wind_up(proxy: &Proxy, mut connections: JoinSet<()>) {
    let health = &proxy.core.health;
    tokio::select! {
        () = ended(&mut connections) => return,
        () = health.until_cut() => {}
        () = sleep(proxy.settings.shutdown_grace) => {}
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
fn take(
    proxy: &Arc<Proxy>,
    (stream, peer): (TcpStream, SocketAddr),
    stopping: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    if connections.len() < proxy.settings.max_connections {
        connections.spawn(converse(Arc::clone(proxy), stream, peer, stopping.clone()));
    }
}

async fn converse(
    proxy: Arc<Proxy>,
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
    let _counted = Counted::new(&proxy.core);
    let (core, settings) = (&proxy.core, &proxy.settings);
    let age = proxy.dice.about(settings.max_connection_age);
    let ages_out = core.clock().now().plus(age.into());
    let connection = Arc::new(Connection::new(peer.ip(), local.ip(), ages_out, !core.health.draining()));
    let io = GuardedIo::new(stream, Arc::clone(&connection), settings.head_timeout, settings.stall_timeout);
    let idle_timeout = settings.idle_timeout;
    let service = service_fn(|request| {
        let answer = handle(Arc::clone(&proxy), Arc::clone(&connection), request);
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
