//! One request of a load: its bytes out, its answer in, and when each was.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout_at};

use super::{AHEAD, Leaves, Shot};

/// Nobody waits longer for the end of an answer.
const PATIENCE: Duration = Duration::from_mins(2);

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a whole answer, whatever its status.
    Whole,
    /// Its client left, as it was to.
    Left,
    /// Any other way.
    Broken,
}

/// What became of one request. Times count from when it was due.
#[derive(Debug, Clone)]
pub struct Heard {
    /// When it was sent: how late the load was.
    pub sent: Duration,
    /// The status, if a head came.
    pub status: Option<u16>,
    /// When the first byte of the body was there.
    pub first: Option<Duration>,
    /// When it was over.
    pub ended: Duration,
    /// How it ended.
    pub end: End,
    /// All that came, head and body.
    pub raw: Vec<u8>,
}

impl Heard {
    /// Whether it was answered in full with this status.
    pub fn is(&self, status: u16) -> bool {
        self.end == End::Whole && self.status == Some(status)
    }
}

pub(super) async fn one(shot: Shot, due: Instant, released: oneshot::Receiver<()>) -> Heard {
    sleep_until(due.checked_sub(AHEAD).unwrap_or(due).into()).await;
    let socket = TcpStream::connect(shot.to).await;
    // The clock lives as long as there are requests.
    let _ = released.await;
    let sent = Instant::now().saturating_duration_since(due);
    let mut reading = Reading { due, raw: Vec::new(), first: None };
    let end = match socket {
        Ok(socket) => converse(socket, &shot, &mut reading).await.unwrap_or(End::Broken),
        Err(_) => End::Broken,
    };
    let ended = Instant::now().saturating_duration_since(due);
    Heard { sent, status: status(&reading.raw), first: reading.first, ended, end, raw: reading.raw }
}

async fn converse(mut socket: TcpStream, shot: &Shot, reading: &mut Reading) -> io::Result<End> {
    socket.set_nodelay(true)?;
    socket.write_all(&shot.request).await?;
    let (until, end) = match shot.leaves {
        Leaves::WhenServed => (reading.due + PATIENCE, End::Broken),
        Leaves::After(time) => (reading.due + time, End::Left),
    };
    timeout_at(until.into(), reading.all(&mut socket)).await.unwrap_or(Ok(end))
}

struct Reading {
    due: Instant,
    raw: Vec<u8>,
    first: Option<Duration>,
}

impl Reading {
    /// Reads until the other side closes.
    async fn all(&mut self, socket: &mut TcpStream) -> io::Result<End> {
        while socket.read_buf(&mut self.raw).await? > 0 {
            if self.first.is_none() && body(&self.raw).is_some_and(|body| !body.is_empty()) {
                self.first = Some(Instant::now().saturating_duration_since(self.due));
            }
        }
        Ok(if is_whole(&self.raw) { End::Whole } else { End::Broken })
    }
}

fn status(raw: &[u8]) -> Option<u16> {
    let digits = raw.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn body(raw: &[u8]) -> Option<&[u8]> {
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n")?;
    raw.get(end + 4..)
}

/// Whether the body is as long as its head says, or has its last chunk.
fn is_whole(raw: &[u8]) -> bool {
    let Some(body) = body(raw) else { return false };
    let head = String::from_utf8_lossy(raw.strip_suffix(body).unwrap_or_default()).to_ascii_lowercase();
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match (value("transfer-encoding:"), value("content-length:")) {
        (Some("chunked"), _) => body.ends_with(b"0\r\n\r\n"),
        (_, Some(length)) => length.parse() == Ok(body.len()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_only_with_all_that_its_head_announces() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(is_whole(format!("{chunked}1\r\na\r\n0\r\n\r\n").as_bytes()));
        assert!(!is_whole(format!("{chunked}1\r\na\r\n").as_bytes()));
        let sized = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n";
        assert!(is_whole(format!("{sized}ab").as_bytes()));
        assert!(!is_whole(format!("{sized}a").as_bytes()));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n\r\nab"), "nothing says that this is all");
        assert_eq!(status(sized.as_bytes()), Some(429));
    }
}
