//! A scripted Ollama for this room's tests: it answers by the model's name, byte by byte as told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;

/// What it has seen.
#[derive(Default)]
pub(super) struct Seen {
    /// Whole requests, as they came.
    pub(super) requests: Mutex<Vec<String>>,
    pub(super) connections: AtomicUsize,
    /// Answers that were cut by the other side.
    pub(super) cut: AtomicUsize,
    /// Requests for inference at one time: now, and at most.
    pub(super) running: AtomicUsize,
    pub(super) most: AtomicUsize,
    /// What `/api/ps` answers with; `{n}` is another number each time. Empty: as any other `GET`.
    pub(super) listed: Mutex<String>,
    /// How often it was asked for.
    pub(super) asked: AtomicUsize,
    /// Its runner has stopped: streams say nothing more, and a request without input is not answered.
    pub(super) wedged: AtomicBool,
    /// Streams say nothing more, and tokens do not come, though requests without input are answered.
    pub(super) hushed: AtomicBool,
    /// Requests without input, as they came.
    pub(super) canaries: Mutex<Vec<String>>,
    /// Lets those speak that say nothing until then.
    pub(super) speak: Notify,
}

/// Listens on a free port.
pub(super) async fn start() -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let all = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            all.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(converse(stream, Arc::clone(&all)));
        }
    });
    (address, seen)
}

async fn converse(mut stream: TcpStream, seen: Arc<Seen>) {
    while let Some(request) = read_request(&mut stream).await {
        if request.starts_with("GET /api/ps") && !seen.listed.lock().is_empty() {
            let number = seen.asked.fetch_add(1, Ordering::SeqCst).to_string();
            let body = seen.listed.lock().replace("{n}", &number);
            let length = body.len();
            write(&mut stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")).await;
            continue;
        }
        if request.starts_with("POST /api/embed") && !request.contains("\"input\"") {
            seen.canaries.lock().push(request);
            if !works(&mut stream, &seen.wedged).await {
                return;
            }
            write(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"embeddings\":[]}").await;
            continue;
        }
        if asks_what_a_model_is(&request) {
            // On a connection that counts for nothing: that a model is not described is no trouble.
            seen.connections.fetch_sub(1, Ordering::SeqCst);
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
            write(&mut stream, &format!("{head}{{}}")).await;
            return;
        }
        seen.requests.lock().push(request.clone());
        let running = seen.running.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(running, Ordering::SeqCst);
        let whole = answer(&mut stream, &request, &seen).await;
        seen.running.fetch_sub(1, Ordering::SeqCst);
        if !whole {
            seen.cut.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if request.contains("\"cut") {
            return;
        }
    }
}

/// Whether it is the sidecar's own question, and no client's.
fn asks_what_a_model_is(request: &str) -> bool {
    request.starts_with("POST /api/show") && !request.contains("\"kind\"") && !request.contains("\"name\"")
}

/// Whether the answer could be given to its end.
async fn answer(stream: &mut TcpStream, request: &str, seen: &Seen) -> bool {
    let says = |word: &str| request.contains(word);
    if says("\"num_predict\":1") {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        return works(stream, &seen.hushed).await && write(stream, head).await;
    }
    if says("\"slow\"") {
        sleep(Duration::from_millis(150)).await;
    }
    if says("\"never\"") {
        return !gone_within(stream, Duration::from_secs(20)).await;
    }
    if says("\"later\"") {
        tokio::select! {
            () = seen.speak.notified() => {}
            _ = gone_within(stream, Duration::from_secs(20)) => return false,
        }
    }
    if says("\"busy\"") {
        let head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n";
        return write(stream, head).await && write(stream, "{\"error\":\"server busy\"}").await;
    }
    if request.starts_with("HEAD") {
        return write(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 17\r\n\r\n")
            .await;
    }
    if says("\"whole\"") || request.starts_with("GET") {
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\nX-Own: 1\r\n\r\n";
        return write(stream, head).await && write(stream, "{\"done\":true}").await;
    }
    let sse = says("/v1/");
    let kind = if sse { "text/event-stream" } else { "application/x-ndjson" };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let mut ok = write(stream, &head).await;
    let pieces = if says("\"forever\"") { 10_000 } else { 3 };
    for _ in 0..pieces {
        let line = if sse { "data: {\"a\":1}\n\n" } else { "{\"done\":false}\n" };
        ok = ok && write(stream, &format!("{:x}\r\n{line}\r\n", line.len())).await;
        ok = ok && !gone_within(stream, Duration::from_millis(20)).await;
        ok = ok && works(stream, &seen.wedged).await && works(stream, &seen.hushed).await;
        if !ok {
            return false;
        }
    }
    if says("\"cut\"") {
        return true;
    }
    let last = if sse { "data: [DONE]\n\n" } else { "{\"done\":true}\n" };
    let last = if says("\"cut-clean\"") { ":\n\n" } else { last };
    ok && write(stream, &format!("{:x}\r\n{last}\r\n0\r\n\r\n", last.len())).await
}

/// Waits until this does not hold the runner up; false if the other side closes meanwhile.
async fn works(stream: &mut TcpStream, held_up: &AtomicBool) -> bool {
    while held_up.load(Ordering::SeqCst) {
        if gone_within(stream, Duration::from_millis(5)).await {
            return false;
        }
    }
    true
}

async fn write(stream: &mut TcpStream, text: &str) -> bool {
    stream.write_all(text.as_bytes()).await.is_ok()
}

/// Whether the other side closes within a time.
async fn gone_within(stream: &mut TcpStream, time: Duration) -> bool {
    let mut byte = [0];
    tokio::time::timeout(time, stream.peek(&mut byte)).await.is_ok_and(|read| !matches!(read, Ok(1)))
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    loop {
        let mut buffer = vec![0; 64 * 1024];
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |n| n.parse().unwrap());
        if body.len() >= length {
            return Some(text);
        }
    }
}
