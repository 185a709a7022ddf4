//! One strict pass over a JSON body: is it an object that every parser reads alike, and which model does it name?
//!
//! Ollama reads JSON as Go does: keys match in any case, the last of two equal keys wins, and what follows the value is
//! ignored. A body that two parsers could read differently is refused, so that the model limited is the model run.
//! Nothing is copied but the model's name when it holds escapes. Of `options`, only what concerns the runner is looked at.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::shape::Tuning;
use super::text::{self, BadString};

/// The deepest nesting of arrays and objects; the body's own braces are the first.
pub(crate) const MAX_DEPTH: u32 = 64;
/// The most keys of the outermost object: Ollama knows about thirty.
pub(crate) const MAX_KEYS: usize = 256;
/// The longest number, in bytes.
pub(crate) const MAX_NUMBER: usize = 128;

/// What the outermost object says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts<'a> {
    /// The string under `model`; none if it is absent or null.
    pub(crate) model: Option<Cow<'a, str>>,
    /// The string under `name`, by which `/api/show` also knows a model.
    pub(crate) name: Option<Cow<'a, str>>,
    /// The boolean under `stream`; none if it is absent or null.
    pub(crate) stream: Option<bool>,
    /// What is asked of the runner.
    pub(crate) tuning: Tuning<'a>,
}

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
    let mut scan = Scan { text, at: 0, keys: SmallVec::new() };
    scan.skip_space();
    if !scan.take(b'{') {
        return Err(BadJson::NotAnObject);
    }
    let mut facts = Facts::default();
    scan.outermost(&mut facts)?;
    scan.skip_space();
    if scan.at < text.len() { Err(BadJson::Trailing { at: scan.at }) } else { Ok(facts) }
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// Hashes of the outermost keys, folded. Equal keys always meet; unequal ones never do in practice.
    keys: SmallVec<[u64; 16]>,
}

impl<'a> Scan<'a> {
    /// The rest of the outermost object, behind its brace.
    fn outermost(&mut self, facts: &mut Facts<'a>) -> Result<(), BadJson> {
        self.members(|scan, key| {
            scan.remember(key)?;
            scan.known_value(key, facts)
        })
    }

    /// The rest of an object, behind its brace. `member` reads the value of a key.
    fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a str) -> Result<(), BadJson>,
    ) -> Result<(), BadJson> {
        self.skip_space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.colon()?;
            member(self, key)?;
            self.skip_space();
            if self.take(b'}') {
                return Ok(());
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
        if text::folds_to(key, "options") && self.take(b'{') {
            return self.members(|scan, key| {
                let raw = scan.raw_value(2)?;
                facts.tuning.option(key, raw);
                Ok(())
            });
        }
        let raw = self.raw_value(1)?;
        if text::folds_to(key, "model") {
            facts.model = string_of("model", raw)?;
        } else if text::folds_to(key, "name") {
            facts.name = string_of("name", raw)?;
        } else if text::folds_to(key, "stream") {
            facts.stream = boolean_of("stream", raw)?;
        } else if text::folds_to(key, "shift") {
            facts.tuning.shift(raw);
        }
        Ok(())
    }

    /// The text of one value, at a place that is already `depth` deep.
    fn raw_value(&mut self, depth: u32) -> Result<&'a str, BadJson> {
        let start = self.at;
        self.value(depth)?;
        Ok(self.text.get(start..self.at).unwrap_or_default())
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
            b'"' => self.string().map(|_| true),
            b'{' => self.open(nest, true),
            b'[' => self.open(nest, false),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(BadJson::Syntax { at: self.at }),
        }
    }

    fn open(&mut self, nest: &mut Nest, object: bool) -> Result<bool, BadJson> {
        self.at += 1;
        nest.push(object)?;
        self.skip_space();
        if self.take(if object { b'}' } else { b']' }) {
            nest.pop();
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
            nest.pop();
            return Ok(true);
        }
        self.expect(b',')?;
        self.skip_space();
        if object {
            self.key()?;
        }
        Ok(false)
    }

    fn key(&mut self) -> Result<(), BadJson> {
        self.string()?;
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

fn string_of<'a>(key: &'static str, raw: &'a str) -> Result<Option<Cow<'a, str>>, BadJson> {
    if raw == "null" {
        return Ok(None);
    }
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.map(|inner| Some(text::unescape(inner))).ok_or(BadJson::WrongType { key, wanted: "a string" })
}

fn boolean_of(key: &'static str, raw: &str) -> Result<Option<bool>, BadJson> {
    match raw {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        "null" => Ok(None),
        _ => Err(BadJson::WrongType { key, wanted: "true or false" }),
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
