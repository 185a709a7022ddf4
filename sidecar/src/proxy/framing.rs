//! The strict reading of a connection's bytes: where each request begins and ends, and whether its head leaves doubt.
//!
//! hyper reads leniently what a proxy in front may read otherwise (a length beside `chunked`, two `chunked` lines,
//! bare line feeds, no `Host`), and does not show it. So the same bytes pass through here first. This reader changes
//! nothing: it keeps count of requests and remembers the first one whose framing is in doubt. That one is refused,
//! and the connection ends with it.

use super::head::HeadFault;

/// The most bytes of a head.
pub(crate) const MAX_HEAD: usize = 32 * 1024;
/// The most bytes of the trailers of a body.
const MAX_TRAILERS: usize = 4 * 1024;

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    /// The head so far, when it came in pieces.
    head: Vec<u8>,
    /// How many heads are complete.
    requests: u64,
    fault: Option<Fault>,
}

/// A request whose framing is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Which request of the connection, from 1.
    pub(crate) request: u64,
    /// What is wrong with its head.
    pub(crate) head: HeadFault,
}

/// A body is malformed: nothing that follows can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body")]
pub(crate) struct BadChunk;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Sized(u64),
    ChunkSize {
        size: u64,
        digits: u8,
    },
    ChunkSizeEnd(u64),
    ChunkData(u64),
    ChunkEnd {
        seen_cr: bool,
    },
    Trailers {
        line: u16,
        total: u16,
        seen_cr: bool,
    },
    /// Behind a fault: not followed any more.
    Lost,
}

impl Framing {
    pub(crate) fn new() -> Self {
        Self { state: State::Head, head: Vec::new(), requests: 0, fault: None }
    }

    /// The first request whose head is in doubt.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether a head has begun and is not complete.
    pub(crate) fn in_head(&self) -> bool {
        self.state == State::Head && !self.head.is_empty()
    }

    /// Whether bytes of the client may still be on their way: it is in the middle of a body, or was lost.
    pub(crate) fn is_mid_message(&self) -> bool {
        self.state != State::Head || !self.head.is_empty()
    }

    /// How many heads are complete.
    #[cfg(test)]
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// Follows bytes just read.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) -> Result<(), BadChunk> {
        while !bytes.is_empty() {
            let used = match self.state {
                State::Head => self.head_bytes(bytes),
                State::Sized(left) => self.sized(left, bytes),
                State::ChunkData(left) => self.chunk_data(left, bytes),
                State::Lost => bytes.len(),
                _ => self.chunk_byte(bytes.first().copied().unwrap_or_default()).map(|()| 1)?,
            };
            bytes = bytes.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes what belongs to the head, and says how much that is.
    fn head_bytes(&mut self, bytes: &[u8]) -> usize {
        let seen = self.head.len();
        if seen == 0
            && let Some(end) = end_of_head(bytes)
        {
            self.head_done(check_head(bytes.get(..end).unwrap_or_default()));
            return end;
        }
        self.head.extend_from_slice(bytes);
        // The end of a head may lie across two reads.
        let from = seen.saturating_sub(2);
        let Some(end) = end_of_head(self.head.get(from..).unwrap_or_default()) else {
            if self.head.len() > MAX_HEAD {
                self.head_done(Err(HeadFault::TooLarge));
            }
            return bytes.len();
        };
        let end = from + end;
        let head = std::mem::take(&mut self.head);
        self.head_done(check_head(head.get(..end).unwrap_or_default()));
        end - seen
    }

    fn head_done(&mut self, checked: Result<Length, HeadFault>) {
        self.requests += 1;
        self.head = Vec::new();
        match checked {
            Ok(Length::None | Length::Sized(0)) => self.state = State::Head,
            Ok(Length::Sized(length)) => self.state = State::Sized(length),
            Ok(Length::Chunked) => self.state = State::ChunkSize { size: 0, digits: 0 },
            Err(head) => {
                self.fault = Some(Fault { request: self.requests, head });
                self.state = State::Lost;
            }
        }
    }

    fn sized(&mut self, left: u64, bytes: &[u8]) -> usize {
        let used = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - used as u64;
        self.state = if left == 0 { State::Head } else { State::Sized(left) };
        used
    }

    fn chunk_data(&mut self, left: u64, bytes: &[u8]) -> usize {
        let used = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - used as u64;
        self.state = if left == 0 { State::ChunkEnd { seen_cr: false } } else { State::ChunkData(left) };
        used
    }

    fn chunk_byte(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.state = match (self.state, byte) {
            (State::ChunkSize { size, digits }, b'\r') if digits > 0 => State::ChunkSizeEnd(size),
            (State::ChunkSize { size, digits }, _) if digits < 15 => {
                let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                State::ChunkSize { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::ChunkSizeEnd(0), b'\n') => State::Trailers { line: 0, total: 0, seen_cr: false },
            (State::ChunkSizeEnd(size), b'\n') => State::ChunkData(size),
            (State::ChunkEnd { seen_cr: false }, b'\r') => State::ChunkEnd { seen_cr: true },
            (State::ChunkEnd { seen_cr: true }, b'\n') => State::ChunkSize { size: 0, digits: 0 },
            (State::Trailers { line, total, seen_cr }, _) => trailer_byte(line, total, seen_cr, byte)?,
            _ => return Err(BadChunk),
        };
        Ok(())
    }
}

fn trailer_byte(line: u16, total: u16, seen_cr: bool, byte: u8) -> Result<State, BadChunk> {
    if usize::from(total) >= MAX_TRAILERS {
        return Err(BadChunk);
    }
    let total = total + 1;
    match (seen_cr, byte) {
        (true, b'\n') if line == 0 => Ok(State::Head),
        (true, b'\n') => Ok(State::Trailers { line: 0, total, seen_cr: false }),
        (false, b'\r') => Ok(State::Trailers { line, total, seen_cr: true }),
        (true, _) | (false, b'\n' | 0) => Err(BadChunk),
        (false, _) => Ok(State::Trailers { line: line + 1, total, seen_cr: false }),
    }
}

/// How long the body is that follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    None,
    Sized(u64),
    Chunked,
}

/// Where the head ends that `bytes` begin with: behind the first empty line, however its ends are written.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match bytes.get(at + 1..) {
        Some([b'\n', ..]) => Some(at + 2),
        Some([b'\r', b'\n', ..]) => Some(at + 3),
        _ => None,
    })
}

/// Checks a whole head, and says how long its body is.
fn check_head(head: &[u8]) -> Result<Length, HeadFault> {
    if head.len() > MAX_HEAD {
        return Err(HeadFault::TooLarge);
    }
    let lines = head.strip_suffix(b"\r\n").ok_or(HeadFault::Malformed)?;
    let mut lines = lines.split_inclusive(|b| *b == b'\n').map(without_end);
    check_request_line(lines.next().ok_or(HeadFault::Malformed)??)?;
    let mut seen = Seen::default();
    for line in lines {
        seen.take(line?)?;
    }
    seen.length()
}

/// A line without its CRLF.
fn without_end(line: &[u8]) -> Result<&[u8], HeadFault> {
    let plain = |line: &&[u8]| line.iter().all(|b| (0x20..0x7f).contains(b) || *b == b'\t');
    line.strip_suffix(b"\r\n").filter(plain).ok_or(HeadFault::Malformed)
}

fn check_request_line(line: &[u8]) -> Result<(), HeadFault> {
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadFault::Malformed);
    };
    if version != b"HTTP/1.1" {
        return Err(if version.starts_with(b"HTTP/") { HeadFault::Version } else { HeadFault::Malformed });
    }
    // hyper cuts a fragment off and says nothing.
    let plain = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase) && !target.contains(&b'#');
    if plain { Ok(()) } else { Err(HeadFault::Malformed) }
}

/// The headers that frame a message.
#[derive(Default)]
struct Seen {
    host: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Seen {
    fn take(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        let colon = memchr::memchr(b':', line).ok_or(HeadFault::Malformed)?;
        let (name, value) = line.split_at(colon);
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
            return Err(HeadFault::Malformed);
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"host") {
            return self.take_host(value);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = content_length(value).filter(|_| self.length.is_none() && !self.chunked);
            self.length = Some(length.ok_or(HeadFault::Framing)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || self.length.is_some() || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadFault::Framing);
            }
            self.chunked = true;
        }
        Ok(())
    }

    fn take_host(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        let plain =
            |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        if self.host || value.is_empty() || value.len() > 255 || !value.iter().all(plain) {
            return Err(HeadFault::Host);
        }
        self.host = true;
        Ok(())
    }

    fn length(&self) -> Result<Length, HeadFault> {
        match (self.host, self.chunked, self.length) {
            (false, ..) => Err(HeadFault::Host),
            (true, true, _) => Ok(Length::Chunked),
            (true, false, Some(length)) => Ok(Length::Sized(length)),
            (true, false, None) => Ok(Length::None),
        }
    }
}

/// Digits alone, and as few as can be.
fn content_length(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let canonical = text == "0" || !text.starts_with('0');
    let digits = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    (canonical && digits).then(|| text.parse().ok()).flatten()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
