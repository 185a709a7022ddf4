//! A small HTTP/1.1 client inside a cluster's network, which notes when every piece of an answer arrived.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Cluster;
use crate::machine::clock::{Deadline, Stopwatch};

const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_BODY_BYTES: usize = 64 << 20;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// `GET path`.
    pub fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// `POST path` with a JSON body.
    pub fn post(path: &str, body: &serde_json::Value) -> Self {
        let request = Self { method: "POST", body: body.to_string().into_bytes(), ..Self::get(path) };
        request.header("Content-Type", "application/json")
    }

    /// The same with another method.
    #[must_use]
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Head and body as they go to this address; `last` says that no other request will follow on the connection.
    pub fn bytes(&self, to: SocketAddr, last: bool) -> Vec<u8> {
        let mut lines = vec![
            format!("{} {} HTTP/1.1", self.method, self.path),
            format!("Host: {to}"),
            format!("Content-Length: {}", self.body.len()),
        ];
        lines.extend(last.then(|| "Connection: close".to_owned()));
        lines.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        [lines.join("\r\n").as_bytes(), b"\r\n\r\n", &self.body].concat()
    }
}

/// A piece of a body and when it arrived, counted from the start of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// When it arrived.
    pub at: Duration,
    /// The bytes, framing removed.
    pub bytes: Vec<u8>,
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as it arrived.
    pub pieces: Vec<Piece>,
}

impl Answer {
    /// The first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The whole body as text.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The body as one JSON value.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.text())
            .with_context(|| format!("{} and no JSON: {}", self.status, self.text()))
    }

    /// The body as one JSON value a line.
    pub fn json_lines(&self) -> Result<Vec<serde_json::Value>> {
        self.text().lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// How many arrivals are at least this much later than the one before.
    pub fn gaps_of_at_least(&self, gap: Duration) -> usize {
        let times: Vec<Duration> = self.pieces.iter().map(|piece| piece.at).collect();
        times.windows(2).filter(|pair| matches!(pair, [a, b] if b.saturating_sub(*a) >= gap)).count()
    }
}

/// What came of a request, however it ended.
#[derive(Debug)]
pub struct Exchange {
    /// Whether there was a connection.
    pub connected: bool,
    /// What was answered, as far as it came; none without a whole head.
    pub answer: Option<Answer>,
    /// Why the answer is not whole.
    pub fault: Option<Error>,
}

impl Exchange {
    fn without_answer(connected: bool, fault: Error) -> Self {
        Self { connected, answer: None, fault: Some(fault) }
    }

    /// Whether another request may follow on the same connection.
    fn can_go_on(&self) -> bool {
        let framed = |answer: &Answer| {
            answer.header("connection") != Some("close")
                && (answer.header("content-length").is_some() || answer.header("transfer-encoding").is_some())
        };
        self.fault.is_none() && self.answer.as_ref().is_some_and(framed)
    }

    /// The whole answer.
    pub fn whole(self) -> Result<Answer> {
        match self.fault {
            Some(fault) => Err(fault),
            None => self.answer.context("there is no answer"),
        }
    }
}

impl Cluster {
    /// A TCP connection that begins on a node.
    pub fn connect(&self, node: usize, to: SocketAddr, limit: Duration) -> Result<TcpStream> {
        connect_from(&self.instance.network_namespace(node), to, limit)
    }

    /// One request from a node, and its whole answer.
    pub fn http(&self, node: usize, to: SocketAddr, request: &Request, limit: Duration) -> Result<Answer> {
        http_from(&self.instance.network_namespace(node), to, request, limit)
    }

    /// A client on a node that keeps its connection for the next request, if it may, and tries for so long to make one.
    pub fn line(&self, node: usize, to: SocketAddr, patience: Duration) -> Line {
        Line::from_inside(&self.instance.network_namespace(node), to, patience)
    }
}

/// A client that keeps its connection for the next request, as long as the other side lets it.
#[derive(Debug)]
pub struct Line {
    network: PathBuf,
    to: SocketAddr,
    /// How long it tries to connect.
    patience: Duration,
    kept: Option<TcpStream>,
}

impl Line {
    /// A client inside a network namespace, which is named by a file.
    pub fn from_inside(network: &Path, to: SocketAddr, patience: Duration) -> Self {
        Self { network: network.to_owned(), to, patience, kept: None }
    }

    /// One request; `last` says that no other one will follow on its connection.
    ///
    /// A connection that the other side has closed meanwhile is not used again. A request that was sent is not sent again.
    pub fn exchange(&mut self, request: &Request, last: bool, limit: Duration) -> Exchange {
        let kept = self.kept.take().filter(is_open);
        let mut stream = match kept.map_or_else(|| connect_from(&self.network, self.to, self.patience), Ok) {
            Ok(stream) => stream,
            Err(error) => return Exchange::without_answer(false, error),
        };
        let exchange = converse(&mut stream, self.to, request, last, limit);
        self.kept = Some(stream).filter(|_| !last && exchange.can_go_on());
        exchange
    }
}

/// Whether the other side has neither closed a connection nor said anything unasked.
fn is_open(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let silent = peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).is_ok() && silent
}

/// A TCP connection that begins in a network namespace, which is named by a file.
fn connect_from(network: &Path, to: SocketAddr, limit: Duration) -> Result<TcpStream> {
    // A socket stays in the namespace in which it was made.
    let connecting = inside(network, move || Ok(TcpStream::connect_timeout(&to, limit)?))?;
    let connected = connecting.join().unwrap_or_else(|_| bail!("connecting panicked"));
    connected.with_context(|| format!("connecting to {to}"))
}

/// Does something on a thread of its own that is inside a network namespace, which is named by a file.
pub fn inside<T: Send + 'static>(
    network: &Path,
    what: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    let pin = File::open(network)?;
    Ok(thread::spawn(move || {
        move_into_link_name_space(pin.as_fd(), Some(LinkNameSpaceType::Network))?;
        what()
    }))
}

/// One request from inside a network namespace, which is named by a file, and its whole answer.
pub fn http_from(network: &Path, to: SocketAddr, request: &Request, limit: Duration) -> Result<Answer> {
    let mut line = Line::from_inside(network, to, limit);
    line.exchange(request, true, limit).whole()
}

fn converse(
    stream: &mut TcpStream,
    to: SocketAddr,
    request: &Request,
    last: bool,
    limit: Duration,
) -> Exchange {
    let (watch, deadline) = (Stopwatch::start(), Deadline::after(limit));
    let mut reading = Reading { bodiless: request.method == "HEAD", ..Reading::default() };
    let sent = send(stream, &request.bytes(to, last));
    match sent.and_then(|()| read(stream, &mut reading, watch, deadline)) {
        Ok(()) => reading.end(None),
        Err(error) => reading.end(Some(error.context(format!("reading {}", request.path)))),
    }
}

fn send(stream: &mut TcpStream, request: &[u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    Ok(stream.write_all(request)?)
}

fn read(stream: &mut TcpStream, reading: &mut Reading, watch: Stopwatch, deadline: Deadline) -> Result<()> {
    let mut chunk = vec![0; 64 << 10];
    while !reading.complete() {
        ensure!(!deadline.passed(), "no whole answer within {} s", watch.elapsed().as_secs());
        stream.set_read_timeout(Some(deadline.left().max(Duration::from_millis(1))))?;
        let count = stream.read(&mut chunk)?;
        reading.take(chunk.get(..count).unwrap_or_default(), watch.elapsed())?;
        if count == 0 {
            break;
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Framing {
    #[default]
    UntilClose,
    Length(usize),
    Chunked,
}

/// An answer being read.
#[derive(Debug, Default)]
struct Reading {
    /// Whatever its head says, there is no body.
    bodiless: bool,
    raw: Vec<u8>,
    head: Option<(u16, Vec<(String, String)>)>,
    framing: Framing,
    pieces: Vec<Piece>,
    received: usize,
    over: bool,
}

impl Reading {
    fn complete(&self) -> bool {
        self.over
    }

    /// Takes what arrived; nothing means that the other side has closed.
    fn take(&mut self, bytes: &[u8], at: Duration) -> Result<()> {
        self.raw.extend(bytes);
        if self.head.is_none() {
            self.read_head()?;
        }
        if self.head.is_some() {
            let body = self.read_body()?;
            self.received += body.len();
            ensure!(self.received <= MAX_BODY_BYTES, "the answer is longer than {MAX_BODY_BYTES} bytes");
            if !body.is_empty() {
                self.pieces.push(Piece { at, bytes: body });
            }
            self.over |= self.framing == Framing::Length(self.received);
        }
        Ok(())
    }

    fn read_head(&mut self) -> Result<()> {
        let Some(end) = find(&self.raw, b"\r\n\r\n") else {
            ensure!(self.raw.len() <= MAX_HEAD_BYTES, "the head is longer than {MAX_HEAD_BYTES} bytes");
            return Ok(());
        };
        let body = self.raw.split_off(end + 4);
        let head = std::mem::replace(&mut self.raw, body);
        let (status, headers) = parse_head(str::from_utf8(&head)?)?;
        let value =
            |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        self.framing = match (value("transfer-encoding"), value("content-length")) {
            _ if self.bodiless => Framing::Length(0),
            (Some("chunked"), _) => Framing::Chunked,
            (_, Some(length)) => Framing::Length(length.parse()?),
            _ if status == 204 => Framing::Length(0),
            _ => Framing::UntilClose,
        };
        self.head = Some((status, headers));
        Ok(())
    }

    fn read_body(&mut self) -> Result<Vec<u8>> {
        if self.framing != Framing::Chunked {
            return Ok(std::mem::take(&mut self.raw));
        }
        let mut body = Vec::new();
        while !self.over {
            let Some(line) = find(&self.raw, b"\r\n") else { break };
            let size = str::from_utf8(self.raw.get(..line).unwrap_or_default())?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
            let end = line + 2 + size;
            let Some(data) = self.raw.get(line + 2..end) else { break };
            if self.raw.len() < end + 2 {
                break;
            }
            body.extend(data);
            self.raw.drain(..end + 2);
            self.over = size == 0;
        }
        Ok(body)
    }

    /// All that came, with the reason why no more did.
    fn end(self, fault: Option<Error>) -> Exchange {
        let Some((status, headers)) = self.head else {
            let silent = || anyhow!("the connection was closed without an answer");
            return Exchange::without_answer(true, fault.unwrap_or_else(silent));
        };
        let cut = !self.over && self.framing != Framing::UntilClose;
        let short = || anyhow!("the answer {status} was cut short after {} bytes", self.received);
        let fault = fault.or_else(|| cut.then(short));
        let answer = Some(Answer { status, headers, pieces: self.pieces });
        Exchange { connected: true, answer, fault }
    }
}

fn parse_head(head: &str) -> Result<(u16, Vec<(String, String)>)> {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).with_context(|| format!("no status line: {first}"))?.parse()?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    Ok((status, headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect()))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn read(parts: &[&str]) -> Result<Answer> {
        let mut reading = Reading::default();
        for (index, part) in parts.iter().enumerate() {
            reading.take(part.as_bytes(), Duration::from_millis(index as u64 * 10))?;
        }
        reading.end(None).whole()
    }

    #[test]
    fn chunks_keep_the_time_at_which_they_arrived() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = read(&[head, "2\r\nab\r\n", "1\r\nc", "\r\n0\r\n\r\n"]).unwrap();
        assert_eq!(answer.text(), "abc");
        let times: Vec<_> = answer.pieces.iter().map(|piece| piece.at.as_millis()).collect();
        assert_eq!(times, [10, 30]);
        assert_eq!(answer.gaps_of_at_least(Duration::from_millis(15)), 1);
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(read(&[head, "2\r\nab\r\n", ""]).unwrap_err().to_string().contains("cut short"));
        assert!(read(&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"]).is_err());
        assert!(read(&[""]).is_err());
    }

    #[test]
    fn header_names_do_not_mind_their_case() {
        let answer =
            read(&["HTTP/1.1 429 Too Many Requests\r\nRETRY-After: 7\r\nContent-Length: 0\r\n\r\n"]).unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("7")));
    }

    #[test]
    fn without_framing_the_body_lasts_until_the_close() {
        let answer = read(&["HTTP/1.0 200 OK\r\n\r\nab", "cd", ""]).unwrap();
        assert_eq!(answer.text(), "abcd");
    }

    #[test]
    fn a_connection_is_kept_only_after_a_whole_answer_that_does_not_close_it() {
        let kept = |head: &str| {
            let mut reading = Reading::default();
            reading.take(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nab").as_bytes(), Duration::ZERO).unwrap();
            reading.end(None).can_go_on()
        };
        assert!(kept("Content-Length: 2"));
        assert!(!kept("Content-Length: 3"), "not whole");
        assert!(!kept("Content-Length: 2\r\nConnection: close"));
        assert!(!kept("Server: x"), "it ends with its connection");
    }

    #[test]
    fn a_connection_that_the_server_closed_is_not_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert!(is_open(&client));
        drop(server);
        let closed = || Ok(if is_open(&client) { Err("it is open".to_owned()) } else { Ok(()) });
        Deadline::after(Duration::from_secs(5))
            .wait("it is closed", Duration::from_millis(1), closed)
            .unwrap();
    }
}
