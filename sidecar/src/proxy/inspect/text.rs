//! JSON strings: where one ends, what it says, and when two keys are one to Go.

use std::borrow::Cow;

/// Why a string is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadString {
    Unterminated,
    Syntax { at: usize },
    LoneSurrogate { at: usize },
}

/// Bytes looked at together when nothing among them is special; the compiler makes vector code of it.
const BLOCK: usize = 32;

/// The length of the string that `rest` begins with, up to its closing quote. Its UTF-8 is known to be valid.
pub(super) fn end_of_string(rest: &[u8]) -> Result<usize, BadString> {
    let mut at = 0;
    loop {
        at += plain_prefix(rest.get(at..).unwrap_or_default());
        match rest.get(at) {
            None => return Err(BadString::Unterminated),
            Some(b'"') => return Ok(at),
            Some(b'\\') => at += escape(rest.get(at..).unwrap_or_default()).map_err(|bad| bad.moved(at))?,
            Some(_) => return Err(BadString::Syntax { at }),
        }
    }
}

/// How many bytes from the start are neither quote, backslash nor control.
fn plain_prefix(bytes: &[u8]) -> usize {
    let special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
    let blocks = bytes.chunks_exact(BLOCK);
    let whole =
        blocks.take_while(|block| !block.iter().fold(false, |any, b| any | special(b))).count() * BLOCK;
    let tail = bytes.get(whole..).unwrap_or_default();
    whole + tail.iter().take_while(|b| !special(b)).count()
}

/// The length of the escape that `bytes` begins with.
fn escape(bytes: &[u8]) -> Result<usize, BadString> {
    match bytes.get(1) {
        None => Err(BadString::Unterminated),
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') => match hex4(bytes)? {
            0xD800..=0xDBFF => low_surrogate(bytes),
            0xDC00..=0xDFFF => Err(BadString::LoneSurrogate { at: 0 }),
            _ => Ok(6),
        },
        Some(_) => Err(BadString::Syntax { at: 1 }),
    }
}

fn low_surrogate(bytes: &[u8]) -> Result<usize, BadString> {
    let second = bytes.get(6..).unwrap_or_default();
    if second.first() == Some(&b'\\') && second.get(1) == Some(&b'u') {
        let low = hex4(second).map_err(|bad| bad.moved(6))?;
        if (0xDC00..=0xDFFF).contains(&low) {
            return Ok(12);
        }
    }
    Err(BadString::LoneSurrogate { at: 0 })
}

/// The number in `\uXXXX`.
fn hex4(bytes: &[u8]) -> Result<u32, BadString> {
    let mut number = 0;
    for at in 2..6 {
        let byte = *bytes.get(at).ok_or(BadString::Unterminated)?;
        let digit = char::from(byte).to_digit(16).ok_or(BadString::Syntax { at })?;
        number = number << 4 | digit;
    }
    Ok(number)
}

impl BadString {
    fn moved(self, by: usize) -> Self {
        match self {
            Self::Unterminated => Self::Unterminated,
            Self::Syntax { at } => Self::Syntax { at: at + by },
            Self::LoneSurrogate { at } => Self::LoneSurrogate { at: at + by },
        }
    }
}

/// What a valid string says, its escapes resolved.
pub(super) fn unescape(inner: &str) -> Cow<'_, str> {
    if inner.contains('\\') { Cow::Owned(Chars { rest: inner }.collect()) } else { Cow::Borrowed(inner) }
}

/// How many bytes of UTF-8 a valid string says.
pub(super) fn length(inner: &str) -> u64 {
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return inner.len() as u64;
    }
    Chars { rest: inner }.map(|c| c.len_utf8() as u64).sum()
}

/// FNV-1a over the key as Go folds it.
pub(super) fn folded_hash(key: &str) -> u64 {
    let step = |hash: u64, c: char| (hash ^ u64::from(u32::from(c))).wrapping_mul(0x0100_0000_01b3);
    Chars { rest: key }.map(fold).fold(0xcbf2_9ce4_8422_2325, step)
}

/// Whether Go takes `key` for the field `name`, which is in lower case.
pub(super) fn folds_to(key: &str, name: &str) -> bool {
    Chars { rest: key }.map(fold).eq(name.chars())
}

/// Go's folding as far as it reaches an ASCII name: letters in either case, the Kelvin sign and the long s.
fn fold(c: char) -> char {
    match c {
        '\u{212A}' => 'k',
        '\u{017F}' => 's',
        other => other.to_ascii_lowercase(),
    }
}

/// The characters of a valid string, escapes resolved.
struct Chars<'a> {
    rest: &'a str,
}

impl Iterator for Chars<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let first = chars.next()?;
        if first != '\\' {
            self.rest = chars.as_str();
            return Some(first);
        }
        let (length, c) = resolve(self.rest)?;
        self.rest = self.rest.get(length..)?;
        Some(c)
    }
}

/// The escape at the start, and how long it is.
fn resolve(rest: &str) -> Option<(usize, char)> {
    let bytes = rest.as_bytes();
    let plain = |c| Some((2, c));
    match bytes.get(1)? {
        b'b' => plain('\u{8}'),
        b'f' => plain('\u{c}'),
        b'n' => plain('\n'),
        b'r' => plain('\r'),
        b't' => plain('\t'),
        b'u' => match hex4(bytes).ok()? {
            high @ 0xD800..=0xDBFF => {
                let low = hex4(bytes.get(6..)?).ok()?;
                let code = 0x1_0000 + ((high - 0xD800) << 10) + low.checked_sub(0xDC00)?;
                Some((12, char::from_u32(code)?))
            }
            code => Some((6, char::from_u32(code)?)),
        },
        other => plain(char::from(*other)),
    }
}
