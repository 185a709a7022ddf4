//! Takes out of a stream what was only told because this sidecar asked for it: the usage that a client of the `OpenAI`
//! API did not ask for.
//!
//! Ollama tells it in a chunk of its own, without choices, before the end; in `/v1/completions` every other chunk
//! carries one of zeros as well. Lines without any go on untouched. A line that has not come to its end is kept until it
//! has, for its usage stands last.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

/// The longest line that is kept. What is longer goes on as it is: no chunk of Ollama's is.
const LONGEST_LINE: usize = 4 * 1024 * 1024;

/// Follows one stream.
#[derive(Debug, Default)]
pub(super) struct Strip {
    /// A line that has not come to its end.
    kept: BytesMut,
    /// The line at hand is too long to be kept.
    too_long: bool,
    /// A chunk was taken out, and the empty line that ends it comes next.
    between: bool,
}

impl Strip {
    /// What of the bytes that come goes on.
    pub(super) fn pass(&mut self, data: Bytes) -> Bytes {
        if self.is_at_line_start() && data.ends_with(b"\n") && memmem::find(&data, USAGE).is_none() {
            return data;
        }
        let mut out = BytesMut::with_capacity(self.kept.len() + data.len());
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            self.line(line, &mut out);
        }
        out.freeze()
    }

    /// What is kept when the stream ends in the middle of a line.
    pub(super) fn rest(&mut self) -> Bytes {
        self.kept.split().freeze()
    }

    fn is_at_line_start(&self) -> bool {
        self.kept.is_empty() && !self.too_long && !self.between
    }

    /// A line, or a part of one.
    fn line(&mut self, line: &[u8], out: &mut BytesMut) {
        let ends = line.ends_with(b"\n");
        if self.too_long {
            out.extend_from_slice(line);
            self.too_long = !ends;
        } else if !ends {
            self.kept.extend_from_slice(line);
            if self.kept.len() > LONGEST_LINE {
                out.extend_from_slice(&self.kept.split());
                self.too_long = true;
            }
        } else if self.kept.is_empty() {
            self.whole(line, out);
        } else {
            let mut kept = self.kept.split();
            kept.extend_from_slice(line);
            self.whole(&kept, out);
        }
    }

    fn whole(&mut self, line: &[u8], out: &mut BytesMut) {
        if std::mem::take(&mut self.between) && line.trim_ascii().is_empty() {
            return;
        }
        match usage_of(line) {
            Found::None => out.extend_from_slice(line),
            Found::Alone => self.between = true,
            Found::Beside { from, to } => {
                out.extend_from_slice(line.get(..from).unwrap_or_default());
                out.extend_from_slice(line.get(to..).unwrap_or_default());
            }
        }
    }
}

const USAGE: &[u8] = b"\"usage\"";

/// What of a line is about usage.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    None,
    /// All of it.
    Alone,
    /// So much of it, a comma with it.
    Beside {
        from: usize,
        to: usize,
    },
}

fn usage_of(line: &[u8]) -> Found {
    let Some(json) = line.strip_prefix(b"data:").filter(|json| memmem::find(json, USAGE).is_some()) else {
        return Found::None;
    };
    let (mut usage, mut is_alone) = (None, false);
    for member in Members::of(json) {
        match member.key {
            b"usage" if member.value.starts_with(b"{") => usage = Some(member),
            b"choices" => is_alone = member.value == b"[]",
            _ => {}
        }
    }
    match usage {
        None => Found::None,
        Some(_) if is_alone => Found::Alone,
        Some(Member { from, to, .. }) => {
            let offset = line.len() - json.len();
            Found::Beside { from: offset + from, to: offset + to }
        }
    }
}

/// A member of the outermost object.
#[derive(Debug, Clone, Copy)]
struct Member<'a> {
    key: &'a [u8],
    value: &'a [u8],
    /// What has to go with it: from the comma in front of it, or up to the one behind it if it is the first.
    from: usize,
    to: usize,
}

/// The members of the outermost object of a JSON text that Ollama wrote.
struct Members<'a> {
    json: &'a [u8],
    /// Behind the brace, or at the comma, that a member follows.
    at: usize,
    first: bool,
}

impl<'a> Members<'a> {
    fn of(json: &'a [u8]) -> Self {
        let brace = memchr::memchr(b'{', json).map_or(json.len(), |brace| brace + 1);
        Self { json, at: brace, first: true }
    }

    fn behind(&self, at: usize) -> &'a [u8] {
        self.json.get(at..).unwrap_or_default()
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let from = self.at;
        let key_at = from + self.behind(from).iter().position(|byte| *byte == b'"')?;
        let key_end = key_at + 1 + length_of_string(self.behind(key_at + 1))?;
        let key = self.json.get(key_at + 1..key_end)?;
        let colon = key_end + memchr::memchr(b':', self.behind(key_end))?;
        let end = colon + 1 + length_of_value(self.behind(colon + 1))?;
        let value = self.json.get(colon + 1..end)?.trim_ascii();
        let to = if self.first && self.behind(end).starts_with(b",") { end + 1 } else { end };
        (self.at, self.first) = (end, false);
        Some(Member { key, value, from, to })
    }
}

/// Up to the quote that closes a string.
fn length_of_string(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', rest.get(at..)?)?;
        if rest.get(at) == Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

/// Up to the comma or the brace behind a value.
fn length_of_value(rest: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match rest.get(at)? {
            b'"' => at += 1 + length_of_string(rest.get(at + 1..)?)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
#[path = "strip_tests.rs"]
mod tests;
