//! A client for tests: one connection a request unless told otherwise, nothing retried, every chunk with its time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Speaks to one address.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    headers: HeaderMap,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

impl Answer {
    /// A header as text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// An answer whose body is still to be read. Dropping it closes the connection.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    _connection: Connection,
}

impl Reply {
    /// The next chunk, none at the end; an error when the body breaks off.
    pub async fn chunk(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let frame = timeout(PATIENCE, self.body.frame()).await.context("wait for a chunk")?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(data) = frame.context("read a chunk")?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// Every chunk still to come, each with the time it came at.
    pub async fn timed_chunks(&mut self) -> anyhow::Result<Vec<(Instant, Bytes)>> {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            chunks.push((Instant::now(), chunk));
        }
        Ok(chunks)
    }

    /// Every chunk still to come.
    pub async fn chunks(&mut self) -> anyhow::Result<Vec<Bytes>> {
        Ok(self.timed_chunks().await?.into_iter().map(|(_, chunk)| chunk).collect())
    }

    /// The rest of the body, up to where it breaks off; true if it ended as it should.
    pub async fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut rest = Vec::new();
        loop {
            match self.chunk().await {
                Ok(Some(chunk)) => rest.extend_from_slice(&chunk),
                Ok(None) => return (rest, true),
                Err(_) => return (rest, false),
            }
        }
    }
}

/// One keep-alive connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    host: String,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Sends a request and reads its head.
    async fn head(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<http::Response<Incoming>> {
        let answer =
            timeout(PATIENCE, self.sender.send_request(request)).await.context("wait for an answer")?;
        answer.context("send a request")
    }

    /// Sends a request and reads the whole answer; the connection stays open for the next.
    pub async fn send(&mut self, method: Method, target: &str, body: &str) -> anyhow::Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, &self.host)
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        read_whole(self.head(request).await?).await
    }
}

async fn read_whole(answer: http::Response<Incoming>) -> anyhow::Result<Answer> {
    let (parts, body) = answer.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.context("wait for the body")?;
    let body = body.context("read the body")?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

impl Client {
    /// A client of `address` that sends no header but Host.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: HeaderMap::new() }
    }

    /// Whom it speaks to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same client with one more header on every request.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.append(name, value);
        }
        self
    }

    /// Opens a connection to keep.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let socket = timeout(PATIENCE, TcpStream::connect(self.address)).await??;
        socket.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await?;
        let driver = tokio::spawn(async move {
            // A broken connection shows in the answer.
            let _ = connection.await;
        });
        Ok(Connection { sender, driver, host: self.address.to_string() })
    }

    /// Sends a request and reads the head of the answer.
    pub async fn open(&self, method: Method, target: &str, body: impl Into<Bytes>) -> anyhow::Result<Reply> {
        let mut connection = self.connect().await?;
        let mut request = Request::builder().method(method).uri(target).body(Full::new(body.into()))?;
        *request.headers_mut() = self.headers.clone();
        if !self.headers.contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, self.address.to_string().parse()?);
        }
        let (parts, body) = connection.head(request).await?.into_parts();
        Ok(Reply { status: parts.status, headers: parts.headers, body, _connection: connection })
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&self, method: Method, target: &str, body: impl Into<Bytes>) -> anyhow::Result<Answer> {
        let reply = self.open(method, target, body).await?;
        let Reply { status, headers, body, _connection } = reply;
        let body = timeout(PATIENCE, body.collect()).await.context("wait for the body")?;
        Ok(Answer { status, headers, body: body.context("read the body")?.to_bytes() })
    }

    /// `GET`.
    pub async fn get(&self, target: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, target, Bytes::new()).await
    }

    /// `POST` of a JSON value.
    pub async fn post(&self, target: &str, body: &serde_json::Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, target, body.to_string()).await
    }

    /// `POST` of a JSON value; the body is read by the caller.
    pub async fn stream(&self, target: &str, body: &serde_json::Value) -> anyhow::Result<Reply> {
        self.open(Method::POST, target, body.to_string()).await
    }

    /// Writes these bytes to a fresh connection and reads until it closes or `wait` is over.
    pub async fn raw(&self, bytes: &[u8], wait: Duration) -> anyhow::Result<Raw> {
        let mut socket = TcpStream::connect(self.address).await?;
        // The other side may close before it has read everything.
        let _ = socket.write_all(bytes).await;
        let until = Instant::now() + wait;
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        let closed = loop {
            match timeout_at(until, socket.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => break true,
                Ok(Ok(count)) => read.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(_) => break false,
            }
        };
        Ok(Raw { read, closed })
    }
}

/// What came back on a raw connection.
#[derive(Debug, Clone)]
pub struct Raw {
    /// All bytes.
    pub read: Vec<u8>,
    /// Whether the other side closed.
    pub closed: bool,
}

impl Raw {
    /// The status of every answer in it, by its status lines.
    pub fn statuses(&self) -> Vec<u16> {
        let text = String::from_utf8_lossy(&self.read);
        text.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
    }
}
