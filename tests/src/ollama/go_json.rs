//! JSON as Go's decoder reads it from the front of a body: laxer than the grammar, and pinned to its error texts.
//!
//! One value is read and whatever follows it is ignored. Invalid UTF-8 and lone surrogates become U+FFFD. Objects
//! keep every pair in order, because which of two equal keys counts is for [`super::go_fields`] to say.

use std::fmt::Write as _;

/// Deeper bodies are refused. The real decoder stops at 10,000; nothing here needs so much stack.
const MAX_DEPTH: usize = 1000;

/// One JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GoValue {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Self>),
    /// An object, with every pair as it came.
    Object(Vec<(String, Self)>),
}

impl GoValue {
    /// The word that Go's type errors use for it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// How many characters of text it holds, all strings together: what a prompt's length is guessed from.
    pub(crate) fn text_len(&self) -> usize {
        match self {
            Self::String(text) => text.chars().count(),
            Self::Array(items) => items.iter().map(Self::text_len).sum(),
            Self::Object(pairs) => pairs.iter().map(|(_, value)| value.text_len()).sum(),
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
        }
    }
}

/// Reads the first value of a body; `Err` holds Ollama's error text.
pub(crate) fn read(body: &[u8]) -> Result<GoValue, String> {
    let mut reader = Reader { bytes: body, at: 0 };
    reader.skip_space();
    if reader.peek().is_none() {
        return Err("missing request body".to_owned());
    }
    reader.value(0)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<GoValue, String> {
        if depth > MAX_DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(GoValue::String),
            Some(b't') => self.literal("true", GoValue::Bool(true)),
            Some(b'f') => self.literal("false", GoValue::Bool(false)),
            Some(b'n') => self.literal("null", GoValue::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<GoValue, String> {
        self.at += 1;
        let mut pairs = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(GoValue::Object(pairs));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let key = self.string()?;
            self.skip_space();
            self.expect(b':', "after object key")?;
            pairs.push((key, self.value(depth + 1)?));
            if self.closes(b'}', "after object key:value pair")? {
                return Ok(GoValue::Object(pairs));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<GoValue, String> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(GoValue::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.closes(b']', "after array element")? {
                return Ok(GoValue::Array(items));
            }
        }
    }

    /// After an element: true at the closing byte, false at a comma.
    fn closes(&mut self, close: u8, place: &str) -> Result<bool, String> {
        self.skip_space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(false)
            }
            _ => self.expect(close, place).map(|()| true),
        }
    }

    fn expect(&mut self, byte: u8, place: &str) -> Result<(), String> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(place))
    }

    fn literal(&mut self, word: &str, value: GoValue) -> Result<GoValue, String> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                let place = format!("in literal {word} (expecting '{}')", char::from(expected));
                return Err(self.unexpected(&place));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<GoValue, String> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.bytes.get(from..self.at).unwrap_or_default();
        Ok(GoValue::Number(String::from_utf8_lossy(text).into_owned()))
    }

    fn digits(&mut self) -> Result<(), String> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.unexpected("in numeric literal"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let from = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            text.push_str(&String::from_utf8_lossy(self.bytes.get(from..self.at).unwrap_or_default()));
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                _ => return Err(self.unexpected("in string literal")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let plain = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Result<char, String> {
        let first = self.hex4()?;
        if !(0xd800..0xdc00).contains(&first) || self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let back = self.at;
        self.at += 2;
        let second = self.hex4()?;
        if (0xdc00..0xe000).contains(&second) {
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        self.at = back;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.unexpected("in \\u hexadecimal character escape"));
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn unexpected(&self, place: &str) -> String {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return "unexpected EOF".to_owned();
        }
        let head = rest.get(..rest.len().min(4)).unwrap_or_default();
        let found = String::from_utf8_lossy(head).chars().next().unwrap_or_default();
        format!("invalid character '{}' {place}", quoted(found))
    }
}

/// A character as Go's `strconv.Quote` prints it.
fn quoted(found: char) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = match found {
        '\'' | '\\' => write!(text, "\\{found}"),
        '\n' => write!(text, "\\n"),
        '\r' => write!(text, "\\r"),
        '\t' => write!(text, "\\t"),
        '\0'..='\x1f' | '\x7f' => write!(text, "\\x{:02x}", u32::from(found)),
        '\u{feff}' => write!(text, "\\ufeff"),
        other => write!(text, "{other}"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_first_value_is_ignored() {
        assert_eq!(read(b"{} trailing \0 bytes"), Ok(GoValue::Object(vec![])));
        assert_eq!(read(b" null"), Ok(GoValue::Null));
    }

    #[test]
    fn broken_text_becomes_the_replacement_character() {
        let text = |body: &[u8]| read(body).map(|value| value == GoValue::String("a\u{fffd}".to_owned()));
        assert_eq!(text(b"\"a\xff\""), Ok(true));
        assert_eq!(text(br#""a\ud800""#), Ok(true));
        assert_eq!(read(br#""\ud83d\ude00""#), Ok(GoValue::String("😀".to_owned())));
    }

    #[test]
    fn errors_read_as_the_real_decoder_words_them() {
        let error = |body: &[u8]| read(body).unwrap_err();
        assert_eq!(error(b""), "missing request body");
        assert_eq!(error(b"nope"), "invalid character 'o' in literal null (expecting 'u')");
        assert_eq!(error(b"\x1f\x8b"), "invalid character '\\x1f' looking for beginning of value");
        assert_eq!(
            error("\u{feff}{}".as_bytes()),
            "invalid character '\\ufeff' looking for beginning of value"
        );
        assert_eq!(error(b"{bad"), "invalid character 'b' looking for beginning of object key string");
        assert_eq!(error(b"{\"a\":1"), "unexpected EOF");
    }

    #[test]
    fn a_thousand_levels_pass_and_more_are_refused() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(read(&nested(500)).is_ok());
        assert_eq!(read(&nested(1100)), Err("exceeded max depth".to_owned()));
    }
}
