//! The corpus of bad input: cases as data (`tests/corpus`), each with the verdict that must hold.

use serde::Deserialize;

/// A plain request for `tiny`, which the placeholders stand for.
pub const BODY: &str = r#"{"model":"tiny","prompt":"hi","stream":false,"options":{"num_predict":1}}"#;

/// What must happen to a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// 4xx but not 429, and nothing reaches inference.
    Refused,
    /// 429: charged to the bucket of its plain spelling.
    Same,
    /// The connection ends, with a 4xx or without an answer, and nothing reaches inference.
    Closed,
}

/// A request target.
#[derive(Debug, Deserialize)]
pub struct TargetCase {
    /// The method, as it is written.
    pub method: String,
    /// The target, as it is written.
    pub target: String,
    /// What must happen.
    pub verdict: Verdict,
}

/// Whole requests as raw bytes.
#[derive(Debug, Deserialize)]
pub struct RawCase {
    /// Says what is tried.
    pub name: String,
    /// What must happen.
    pub verdict: Verdict,
    /// The bytes, with placeholders.
    pub raw: String,
}

/// Header lines put on a plain request.
#[derive(Debug, Deserialize)]
pub struct HeaderCase {
    /// Says what is tried.
    pub name: String,
    /// What must happen.
    pub verdict: Verdict,
    /// The lines, with placeholders.
    pub lines: Vec<String>,
}

/// A body sent to `/api/generate`.
#[derive(Debug, Deserialize)]
pub struct BodyCase {
    /// Says what is tried.
    pub name: String,
    /// What must happen.
    pub verdict: Verdict,
    /// The body as text, with placeholders.
    #[serde(default)]
    pub body: String,
    /// The body as bytes, instead.
    pub hex: Option<String>,
}

impl BodyCase {
    /// The bytes to send.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.hex {
            Some(hex) => unhex(hex),
            None => expand(&self.body).into_bytes(),
        }
    }
}

/// A spelling of a model's name.
#[derive(Debug, Deserialize)]
pub struct ModelCase {
    /// The name, as a client writes it.
    pub spelling: String,
    /// What must happen.
    pub verdict: Verdict,
}

/// `targets.json`
pub fn targets() -> serde_json::Result<Vec<TargetCase>> {
    serde_json::from_str(include_str!("../corpus/targets.json"))
}

/// `framing.json`
pub fn framing() -> serde_json::Result<Vec<RawCase>> {
    serde_json::from_str(include_str!("../corpus/framing.json"))
}

/// `headers.json`
pub fn headers() -> serde_json::Result<Vec<HeaderCase>> {
    serde_json::from_str(include_str!("../corpus/headers.json"))
}

/// `bodies.json`
pub fn bodies() -> serde_json::Result<Vec<BodyCase>> {
    serde_json::from_str(include_str!("../corpus/bodies.json"))
}

/// `models.json`
pub fn models() -> serde_json::Result<Vec<ModelCase>> {
    serde_json::from_str(include_str!("../corpus/models.json"))
}

/// The raw bytes of a case: placeholders filled, each character up to U+00FF one byte.
pub fn raw_bytes(text: &str, host: &str) -> Vec<u8> {
    let length = BODY.len().to_string();
    let filled = expand(text).replace("$HOST", host).replace("$LEN", &length).replace("$BODY", BODY);
    filled.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

/// `<<N*text>>` is `text` N times.
pub fn expand(text: &str) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, count, repeated, after)) = next_repeat(rest) {
        expanded.push_str(before);
        expanded.push_str(&repeated.repeat(count));
        rest = after;
    }
    expanded.push_str(rest);
    expanded
}

fn next_repeat(text: &str) -> Option<(&str, usize, &str, &str)> {
    let (before, rest) = text.split_once("<<")?;
    let (count, rest) = rest.split_once('*')?;
    let (repeated, after) = rest.split_once(">>")?;
    Some((before, count.parse().ok()?, repeated, after))
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    let byte = |pair: &[u32]| pair.iter().fold(0, |sum, digit| sum * 16 + digit);
    digits.chunks(2).filter_map(|pair| u8::try_from(byte(pair)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_corpus_is_read() {
        let count = targets().unwrap().len()
            + framing().unwrap().len()
            + headers().unwrap().len()
            + bodies().unwrap().len()
            + models().unwrap().len();
        assert!(count > 300, "{count}");
    }

    #[test]
    fn placeholders_are_filled() {
        assert_eq!(expand("a<<3*bc>>d<<2*}>>"), "abcbcbcd}}");
        assert_eq!(raw_bytes("$HOST \u{ff}$LEN", "h"), [b"h ".as_slice(), b"\xff73"].concat());
        assert_eq!(unhex("ff00"), [255, 0]);
    }
}
