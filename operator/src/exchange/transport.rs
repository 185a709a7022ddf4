//! How a message reaches a pod: one HTTP/1.1 connection each, kept alive, every call under a deadline.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use corral_wire::activation::{MAX_DUTY_BYTES, MAX_PATIENCE};
use corral_wire::exchange::MAX_REPORT_BYTES;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest that one call takes, connecting included.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// The same of a call whose answer may be kept back.
pub const DOOR_DEADLINE: Duration = MAX_PATIENCE.saturating_add(Duration::from_secs(5));
/// The most bytes of an answer that are read: a report is text within text, where each quote takes two bytes.
const MAX_ANSWER_BYTES: usize = 4 * MAX_REPORT_BYTES;

/// Why a pod could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// The connection broke, or what came was not HTTP.
    #[error("the exchange broke off: {0}")]
    Http(#[source] hyper::Error),
    /// The answer was too long, or broke off.
    #[error("the answer could not be read: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A request could not be made.
    #[error("the request could not be made: {0}")]
    Request(#[from] hyper::http::Error),
}

/// A way to one pod. It is used by one caller at a time.
pub trait Link: Send {
    /// Sends a directive's text, and returns the text that came back.
    fn call(&mut self, body: Bytes) -> BoxFuture<'_, Result<Bytes, CallError>>;
}

/// Makes ways to pods.
pub trait Transport: fmt::Debug + Send + Sync {
    /// The way to the pod at `ip`. Nothing is sent yet.
    fn link(&self, ip: IpAddr) -> Box<dyn Link>;

    /// The same to the activator at `ip`, for duties: an answer may be kept back for up to
    /// [`corral_wire::activation::MAX_PATIENCE`].
    fn door(&self, ip: IpAddr) -> Box<dyn Link>;
}

/// The network.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// The port of every pod; 11436 but in tests.
    pub port: u16,
}

impl Transport for Network {
    fn link(&self, ip: IpAddr) -> Box<dyn Link> {
        Box::new(Connection::new((ip, self.port), "/exchange", DEADLINE, MAX_ANSWER_BYTES))
    }

    fn door(&self, ip: IpAddr) -> Box<dyn Link> {
        Box::new(Connection::new((ip, self.port), "/activation", DOOR_DEADLINE, MAX_DUTY_BYTES))
    }
}

/// A way that posts each message to one path.
struct Connection {
    ip: IpAddr,
    port: u16,
    path: &'static str,
    deadline: Duration,
    max_answer_bytes: usize,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Link for Connection {
    fn call(&mut self, body: Bytes) -> BoxFuture<'_, Result<Bytes, CallError>> {
        Box::pin(async move {
            let outcome = timeout(self.deadline, self.exchange(body))
                .await
                .unwrap_or(Err(CallError::Timeout(self.deadline)));
            if outcome.is_err() {
                // What may still be on its way must not answer the next call.
                self.sender = None;
            }
            outcome
        })
    }
}

impl Connection {
    /// To a path at an address. A call takes at most `deadline`, and of its answer so many bytes are read.
    fn new(
        (ip, port): (IpAddr, u16),
        path: &'static str,
        deadline: Duration,
        max_answer_bytes: usize,
    ) -> Self {
        Self { ip, port, path, deadline, max_answer_bytes, sender: None }
    }

    async fn exchange(&mut self, body: Bytes) -> Result<Bytes, CallError> {
        let request = self.request(body)?;
        let sender = self.sender().await?;
        let answer = sender.send_request(request).await.map_err(CallError::Http)?;
        let body = Limited::new(answer.into_body(), self.max_answer_bytes).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(CallError::Body)
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, CallError> {
        let host = std::net::SocketAddr::from((self.ip, self.port)).to_string();
        let request = Request::post(Uri::from_static(self.path))
            .header("host", host)
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        Ok(request)
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, CallError> {
        let mut kept = self.sender.take();
        let alive = match &mut kept {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        let open = match kept.filter(|_| alive) {
            Some(sender) => sender,
            None => connect(self.ip, self.port).await?,
        };
        Ok(self.sender.insert(open))
    }
}

async fn connect(ip: IpAddr, port: u16) -> Result<SendRequest<Full<Bytes>>, CallError> {
    let stream = TcpStream::connect((ip, port)).await.map_err(CallError::Connect)?;
    stream.set_nodelay(true).map_err(CallError::Connect)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(CallError::Http)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a pod's connection ended");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hyper::Response;
    use hyper::server::conn::http1 as server;
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;

    /// Echoes bodies; `hang` never answers, `long` answers with too much, `close` ends the connection. Counts connections.
    async fn pod() -> (Box<dyn Link>, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(server::Builder::new().serve_connection(TokioIo::new(stream), service_fn(echo)));
            }
        });
        (Network { port }.link("127.0.0.1".parse().unwrap()), connections)
    }

    async fn echo(request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/exchange"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if body == "hang" {
            std::future::pending::<()>().await;
        }
        let answer = if body == "long" { Bytes::from(vec![b'x'; 64 * 1024]) } else { body.clone() };
        let mut response = Response::new(Full::new(answer));
        if body == "close" {
            response.headers_mut().insert("connection", hyper::header::HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    #[tokio::test]
    async fn calls_share_a_connection_and_open_a_new_one_after_its_end() {
        let (mut link, connections) = pod().await;
        for text in ["one", "two", "close", "three"] {
            assert_eq!(link.call(text.into()).await.unwrap(), text);
        }
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_pod_that_hangs_costs_one_deadline_and_its_late_answer_is_not_the_next_ones() {
        let (mut link, _) = pod().await;
        assert!(matches!(link.call("hang".into()).await, Err(CallError::Timeout(_))));
        assert_eq!(link.call("next".into()).await.unwrap(), "next");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_its_end() {
        let (mut link, _) = pod().await;
        assert!(matches!(link.call("long".into()).await, Err(CallError::Body(_))));
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_an_error_and_no_panic() {
        let mut link = Network { port: 1 }.link("127.0.0.1".parse().unwrap());
        assert!(matches!(link.call("x".into()).await, Err(CallError::Connect(_))));
    }
}
