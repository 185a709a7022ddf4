//! Ollama's side: a small pool of HTTP/1.1 connections, last used first.
//!
//! A request is sent a second time, on a fresh connection, only if hyper hands it back untouched, which it does when a
//! pooled connection had died before a byte went out. A connection is pooled again only after its answer was read to the end; dropping a
//! [`Lease`] before that cuts the connection, which is how Ollama learns to stop.

mod pieces;
mod pool;
mod request;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

pub(crate) use pieces::Pieces;
pub(crate) use request::Order;

use pool::Pool;

use crate::metrics::{Metrics, Retried};

/// The most bytes of an answer's head.
const MAX_HEAD: usize = 64 * 1024;

/// Why Ollama gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// Nobody listens.
    #[error("connection refused: {0}")]
    Refused(io::Error),
    /// No connection in time, or none for a reason of this host.
    #[error("no connection: {0}")]
    Unreachable(io::Error),
    /// The connection ended before the head of an answer.
    #[error("no answer: {0}")]
    Ended(hyper::Error),
    /// It was the offer of another protocol, which nobody had asked for, or a head whose few bytes did not follow.
    #[error("status {0} is no answer")]
    NotFinal(StatusCode),
    /// It was not asked: what it was asked before has failed too often.
    #[error("the breaker is open")]
    Shut,
}

/// Connections to one Ollama.
pub(crate) struct Upstream {
    address: SocketAddr,
    connect_timeout: Duration,
    pool: Pool,
    metrics: Arc<Metrics>,
    /// After so long without a sign of the other side a connection is given up; none: never.
    lost_after: Option<Duration>,
}

/// A connection that carries one exchange. Dropped instead of given back: cut.
pub(crate) struct Lease {
    sender: http1::SendRequest<Pieces>,
    driver: AbortHandle,
}

impl Upstream {
    pub(crate) fn new(address: SocketAddr, connect_timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self { address, connect_timeout, pool: Pool::default(), metrics, lost_after: None }
    }

    /// The same over a network, where the other side can go without a word. It is the kernel of the other side that is
    /// asked: one that works for minutes before its first byte is not lost.
    pub(crate) fn lost_after(self, silence: Duration) -> Self {
        Self { lost_after: Some(silence), ..self }
    }

    /// Where it leads.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(
        &self,
        mut request: Request<Pieces>,
    ) -> Result<(Response<Incoming>, Lease), NoAnswer> {
        let mut kept = self.pool.take();
        loop {
            let (mut lease, fresh) = match kept.take() {
                Some(lease) => (lease, false),
                None => (self.connect().await?, true),
            };
            match lease.sender.try_send_request(request).await {
                Ok(response) if response.status().is_informational() => {
                    return Err(NoAnswer::NotFinal(response.status()));
                }
                Ok(response) => return Ok((response, lease)),
                Err(mut failed) => match failed.take_message() {
                    Some(untouched) if !fresh => {
                        self.metrics.upstream_retried(Retried::Stale);
                        request = untouched;
                    }
                    _ => return Err(NoAnswer::Ended(failed.into_error())),
                },
            }
        }
    }

    /// Takes back a connection whose answer was read to the end.
    pub(crate) fn give_back(&self, lease: Lease) {
        self.pool.put(lease);
    }

    async fn connect(&self) -> Result<Lease, NoAnswer> {
        let connecting = timeout(self.connect_timeout, TcpStream::connect(self.address));
        let timed_out = |_| NoAnswer::Unreachable(io::ErrorKind::TimedOut.into());
        let stream = connecting.await.map_err(timed_out)?.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => NoAnswer::Refused(error),
            _ => NoAnswer::Unreachable(error),
        })?;
        stream.set_nodelay(true).map_err(NoAnswer::Unreachable)?;
        if let Some(silence) = self.lost_after {
            give_up_after(silence, &stream).map_err(NoAnswer::Unreachable)?;
        }
        let mut builder = http1::Builder::new();
        builder.max_header_size(MAX_HEAD);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(NoAnswer::Ended)?;
        let driver = tokio::spawn(async move {
            // What goes wrong on it is told by the exchange that it carries.
            let _ = connection.await;
        });
        Ok(Lease { sender, driver: driver.abort_handle() })
    }
}

/// Asks after half of the time, and twice until the end of it; what is sent has as long to be acknowledged.
fn give_up_after(silence: Duration, stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let asks = TcpKeepalive::new().with_time(silence / 2).with_interval(silence / 4).with_retries(2);
    socket.set_tcp_keepalive(&asks)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(silence))?;
    Ok(())
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
