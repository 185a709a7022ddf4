//! An upstream that answers inference with any bytes at all: what a broken or hostile Ollama might send.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What a probe is answered.
const ALIVE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 21\r\nConnection: close\r\n\r\n{\"version\":\"0.32.15\"}";

/// The upstream; it is gone when this is dropped.
pub struct Canned {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    server: JoinHandle<()>,
}

impl Canned {
    /// Starts one on a free loopback port; it closes each connection after its answer.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let answer = Arc::new(Mutex::new(Vec::new()));
        let server = tokio::spawn(accept(listener, answer.clone()));
        Ok(Self { address, answer, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What every inference is answered from now on.
    pub fn set(&self, answer: impl Into<Vec<u8>>) {
        *self.answer.lock() = answer.into();
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn accept(listener: TcpListener, answer: Arc<Mutex<Vec<u8>>>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        connections.spawn(converse(socket, answer.clone()));
    }
}

async fn converse(mut socket: TcpStream, answer: Arc<Mutex<Vec<u8>>>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !whole(&request) {
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    let bytes = if request.starts_with(b"POST") { answer.lock().clone() } else { ALIVE.to_vec() };
    // Whoever asked may have had enough.
    let _ = socket.write_all(&bytes).await;
    let _ = socket.shutdown().await;
}

/// Whether a request with a `Content-Length` has come to its end.
fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0)
}
