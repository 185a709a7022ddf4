//! One strict pass over a JSON body: is it an object that every parser reads alike, and which model does it name?
//!
//! Ollama reads JSON as Go does: keys match in any case, the last of two equal keys wins, and what follows the value is
//! ignored. A body that two parsers could read differently is refused, so that the model limited is the model run.
//! Nothing is copied but the model's name when it holds escapes. Of `options`, only what concerns the runner and the
//! length of the answer is looked at; of the prompt, its size is taken.

use smallvec::SmallVec;

use super::facts::{Facts, Field};
use super::knobs::{Raw, Room};
use super::prompt::Gauge;
use super::text::{self, BadString};

/// The deepest nesting of arrays and objects; the body's own braces are the first.
pub(crate) const MAX_DEPTH: u32 = 64;
/// The most keys of the outermost object: Ollama knows about thirty.
pub(crate) const MAX_KEYS: usize = 256;
/// The longest number, in bytes.
pub(crate) const MAX_NUMBER: usize = 128;

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadJson {
    #[error("the body is not valid UTF-8")]
    NotUtf8,
    #[error("the body must be one JSON object")]
    NotAnObject,
    #[error("the body ends in the middle of a JSON value")]
    Truncated,
    #[error("the body is not valid JSON at byte {at}")]
    Syntax { at: usize },
    #[error("a string holds half of a surrogate pair at byte {at}")]
    LoneSurrogate { at: usize },
    #[error("something follows the JSON object at byte {at}")]
    Trailing { at: usize },
    #[error("the body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("a number is longer than {MAX_NUMBER} bytes")]
    LongNumber,
    #[error("the outermost object has more than {MAX_KEYS} keys")]
    TooManyKeys,
    #[error("the outermost object has a key twice (keys match in any case)")]
    DuplicateKey,
    #[error("`{key}` must be {wanted}")]
    WrongType { key: &'static str, wanted: &'static str },
}

/// Scans a whole body.
pub(crate) fn scan(body: &[u8]) -> Result<Facts<'_>, BadJson> {
    let text = std::str::from_utf8(body).map_err(|_| BadJson::NotUtf8)?;
    let mut scan = Scan::new(text);
    scan.skip_space();
    if !scan.take(b'{') {
        return Err(BadJson::NotAnObject);
    }
    let mut facts = Facts::default();
    scan.outermost(&mut facts)?;
    scan.skip_space();
    if scan.at < text.len() { Err(BadJson::Trailing { at: scan.at }) } else { Ok(facts) }
}

/// Keys and values, as they are written.
pub(crate) type Members<'a> = Vec<(&'a str, Raw<'a>)>;

/// The outermost members of an object, in their order, each value as it is written; and what follows the object.
pub(crate) fn members(text: &str) -> Result<(Members<'_>, &str), BadJson> {
    let mut scan = Scan::new(text);
    let mut members = Vec::new();
    if !scan.take(b'{') {
        return Err(BadJson::NotAnObject);
    }
    scan.members(|scan, key| {
        if members.len() == MAX_KEYS {
            return Err(BadJson::TooManyKeys);
        }
        members.push((key, scan.raw_value(1)?));
        Ok(())
    })?;
    let tail = text.get(scan.at..).unwrap_or_default();
    scan.skip_space();
    if scan.at < text.len() { Err(BadJson::Trailing { at: scan.at }) } else { Ok((members, tail)) }
}

/// Shows each item of a list, as it is written.
pub(crate) fn items<'a>(text: &'a str, mut item: impl FnMut(&'a str)) -> Result<(), BadJson> {
    let mut scan = Scan::new(text);
    scan.expect(b'[')?;
    scan.skip_space();
    if scan.take(b']') {
        return Ok(());
    }
    loop {
        scan.skip_space();
        item(scan.raw_value(1)?.text);
        scan.skip_space();
        if scan.take(b']') {
            return Ok(());
        }
        scan.expect(b',')?;
    }
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// Hashes of the outermost keys, folded. Equal keys always meet; unequal ones never do in practice.
    keys: SmallVec<[u64; 16]>,
    /// Measures the value that is scanned.
    gauge: Gauge,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, keys: SmallVec::new(), gauge: Gauge::default() }
    }

    /// The rest of the outermost object, behind its brace.
    fn outermost(&mut self, facts: &mut Facts<'a>) -> Result<(), BadJson> {
        self.members(|scan, key| {
            scan.remember(key)?;
            scan.known_value(key, facts)
        })?;
        facts.knobs.close = self.at - 1;
        Ok(())
    }

    /// The rest of an object, behind its brace; says whether it is empty. `member` reads the value of a key.
    fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a str) -> Result<(), BadJson>,
    ) -> Result<bool, BadJson> {
        self.skip_space();
        if self.take(b'}') {
            return Ok(true);
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.colon()?;
            member(self, key)?;
            self.skip_space();
            if self.take(b'}') {
                return Ok(false);
            }
            self.expect(b',')?;
        }
    }

    fn remember(&mut self, key: &str) -> Result<(), BadJson> {
        let hash = text::folded_hash(key);
        if self.keys.contains(&hash) {
            return Err(BadJson::DuplicateKey);
        }
        if self.keys.len() == MAX_KEYS {
            return Err(BadJson::TooManyKeys);
        }
        self.keys.push(hash);
        Ok(())
    }

    fn known_value(&mut self, key: &str, facts: &mut Facts<'a>) -> Result<(), BadJson> {
        match Field::of(key) {
            Some(Field::Options) => facts.knobs.options = self.room(|key, raw| facts.option(key, raw))?,
            Some(Field::StreamOptions) => {
                facts.knobs.stream_options = self.room(|key, raw| facts.stream_option(key, raw))?;
            }
            Some(Field::Read(part)) => {
                self.gauge = Gauge::of(part);
                let raw = self.raw_value(1)?;
                facts.read(part, raw, &self.gauge);
            }
            Some(field) => facts.take(field, self.raw_value(1)?)?,
            None => _ = self.raw_value(1)?,
        }
        Ok(())
    }

    /// An outermost value that is looked into if it is an object.
    fn room(&mut self, mut member: impl FnMut(&str, &'a str)) -> Result<Room, BadJson> {
        if !self.take(b'{') {
            return self.raw_value(1).map(Room::of);
        }
        let empty = self.members(|scan, key| {
            let raw = scan.raw_value(2)?;
            member(key, raw.text);
            Ok(())
        })?;
        Ok(Room::Object { close: self.at - 1, empty })
    }

    /// The text of one value, at a place that is already `depth` deep.
    fn raw_value(&mut self, depth: u32) -> Result<Raw<'a>, BadJson> {
        let at = self.at;
        self.value(depth)?;
        Ok(Raw { at, text: self.text.get(at..self.at).unwrap_or_default() })
    }

    /// One value of any kind, at a place that is already `depth` deep. Iterative: depth costs bits, not stack.
    fn value(&mut self, depth: u32) -> Result<(), BadJson> {
        let mut nest = Nest { objects: 0, depth, floor: depth };
        loop {
            let mut done = self.begin_value(&mut nest)?;
            while done {
                if nest.depth == nest.floor {
                    return Ok(());
                }
                done = self.after_value(&mut nest)?;
            }
        }
    }

    /// Reads a scalar, or opens a container. Says whether a value is complete.
    fn begin_value(&mut self, nest: &mut Nest) -> Result<bool, BadJson> {
        match self.peek()? {
            b'"' => {
                let inner = self.string()?;
                self.gauge.string(inner);
                Ok(true)
            }
            b'{' => self.open(nest, true),
            b'[' => self.open(nest, false),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            b'-' | b'0'..=b'9' => {
                self.gauge.number();
                self.number()
            }
            _ => Err(BadJson::Syntax { at: self.at }),
        }
    }

    fn open(&mut self, nest: &mut Nest, object: bool) -> Result<bool, BadJson> {
        self.at += 1;
        nest.push(object)?;
        self.gauge.opened(nest.depth, object);
        self.skip_space();
        if self.take(if object { b'}' } else { b']' }) {
            self.close(nest);
            return Ok(true);
        }
        if object {
            self.key()?;
        }
        Ok(false)
    }

    /// Behind a complete value in a container: closes it (true) or goes on to its next value (false).
    fn after_value(&mut self, nest: &mut Nest) -> Result<bool, BadJson> {
        let object = nest.in_object();
        self.skip_space();
        if self.take(if object { b'}' } else { b']' }) {
            self.close(nest);
            return Ok(true);
        }
        self.expect(b',')?;
        self.skip_space();
        if object {
            self.key()?;
        }
        Ok(false)
    }

    fn close(&mut self, nest: &mut Nest) {
        self.gauge.closed(nest.depth);
        nest.pop();
    }

    fn key(&mut self) -> Result<(), BadJson> {
        let key = self.string()?;
        self.gauge.key(key);
        self.colon()
    }

    fn colon(&mut self) -> Result<(), BadJson> {
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Ok(())
    }

    /// A string, quotes and escapes left in what is returned, without its quotes.
    fn string(&mut self) -> Result<&'a str, BadJson> {
        self.expect(b'"')?;
        let start = self.at;
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        match text::end_of_string(rest) {
            Ok(length) => {
                self.at = start + length + 1;
                Ok(self.text.get(start..start + length).unwrap_or_default())
            }
            Err(BadString::Unterminated) => Err(BadJson::Truncated),
            Err(BadString::Syntax { at }) => Err(BadJson::Syntax { at: start + at }),
            Err(BadString::LoneSurrogate { at }) => Err(BadJson::LoneSurrogate { at: start + at }),
        }
    }

    fn number(&mut self) -> Result<bool, BadJson> {
        let start = self.at;
        let _ = self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        if self.at - start > MAX_NUMBER { Err(BadJson::LongNumber) } else { Ok(true) }
    }

    fn digits(&mut self) -> Result<(), BadJson> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.unexpected());
        }
        self.at += count;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<bool, BadJson> {
        if !self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(BadJson::Syntax { at: self.at });
        }
        self.at += word.len();
        Ok(true)
    }

    fn peek(&self) -> Result<u8, BadJson> {
        self.text.as_bytes().get(self.at).copied().ok_or(BadJson::Truncated)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Ok(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), BadJson> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> BadJson {
        if self.at < self.text.len() { BadJson::Syntax { at: self.at } } else { BadJson::Truncated }
    }

    fn skip_space(&mut self) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
    }
}

/// Which containers are open: one bit each, set for an object.
struct Nest {
    objects: u64,
    depth: u32,
    floor: u32,
}

impl Nest {
    fn push(&mut self, object: bool) -> Result<(), BadJson> {
        if self.depth == MAX_DEPTH {
            return Err(BadJson::TooDeep);
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u64::from(object);
        Ok(())
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
