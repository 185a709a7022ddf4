//! Model patterns: names with `*` in them, for limits that cover more than one model.
//!
//! `*` stands for any run of characters, `/` and `:` included, over the short normal form of a name. A pattern without
//! a tag covers every tag: `llama3*` covers `llama3.2:3b`, `*/tiny` covers `me/tiny:7b`; `*:70b` covers everything of
//! 70b. Without a `*` it is one name, in any spelling: `llama3` is `llama3:latest` only. Letters match in either case.
//!
//! What normal forms leave out may be written before the first `*`: `library/llama*` covers models without a namespace,
//! `registry.ollama.ai/me/*` those of `me`.
//!
//! The text between two `*` is looked for from left to right, each at its first place, with a search that takes linear
//! time; there is nothing to go back to, so no pattern is slow.

use std::fmt;

use crate::{BadModelName, ModelName};

/// The longest pattern, in bytes.
const LONGEST: usize = 512;
const HOST: &str = "registry.ollama.ai/";
const NAMESPACE: &str = "library/";

/// A model, or all that a pattern covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// As it is matched: in lower case, without what normal forms leave out.
    text: Box<str>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Name(ModelName),
    Glob {
        any_tag: bool,
        /// How many `/` a name has at most: none in the library, one in Ollama's registry.
        slashes: usize,
    },
}

/// A text that is no pattern of model names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Longer than 512 bytes.
    #[error("a model pattern has at most 512 characters")]
    TooLong,
    /// A character that no model name has.
    #[error("{0:?} is in no model name; in a pattern, only * stands for other characters")]
    BadCharacter(char),
    /// Nothing can match it.
    #[error("no model name begins with / or :, ends with one, or has two of them in a row")]
    NoName,
    /// Without a `*`, and no model name.
    #[error(transparent)]
    BadName(#[from] BadModelName),
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(raw: &str) -> Result<Self, BadPattern> {
        if raw.len() > LONGEST {
            return Err(BadPattern::TooLong);
        }
        if raw.contains('*') { Self::glob(&raw.trim().to_ascii_lowercase()) } else { Self::name(raw) }
    }

    /// Whether it covers a model.
    pub fn matches(&self, model: &ModelName) -> bool {
        let (any_tag, slashes) = match &self.kind {
            Kind::Name(name) => return name == model,
            Kind::Glob { any_tag, slashes } => (*any_tag, *slashes),
        };
        let name = model.as_str();
        if slashes < usize::MAX && name.bytes().filter(|byte| *byte == b'/').count() > slashes {
            return false;
        }
        let untagged = name.rsplit_once(':').map_or(name, |(model, _)| model);
        is_match(&self.text, name) || any_tag && is_match(&self.text, untagged)
    }

    /// The one model that it covers, if it has no `*`.
    pub fn model(&self) -> Option<&ModelName> {
        match &self.kind {
            Kind::Name(name) => Some(name),
            Kind::Glob { .. } => None,
        }
    }

    fn name(raw: &str) -> Result<Self, BadPattern> {
        let name = ModelName::parse(raw)?;
        Ok(Self { text: name.as_str().into(), kind: Kind::Name(name) })
    }

    fn glob(raw: &str) -> Result<Self, BadPattern> {
        let known = |c: &char| c.is_ascii_alphanumeric() || "*-_.:/".contains(*c);
        let text = without_scheme(raw);
        if let Some(bad) = text.chars().find(|c| !known(c)) {
            return Err(BadPattern::BadCharacter(bad));
        }
        let is_mark = |c: char| c == '/' || c == ':';
        let pairs = text.chars().zip(text.chars().skip(1));
        if text.starts_with(is_mark)
            || text.ends_with(is_mark)
            || pairs.into_iter().any(|(a, b)| is_mark(a) && is_mark(b))
        {
            return Err(BadPattern::NoName);
        }
        let (text, slashes) = without_defaults(text);
        let any_tag = text.rsplit_once(':').is_none_or(|(_, tag)| tag.contains('/'));
        Ok(Self { text: text.into(), kind: Kind::Glob { any_tag, slashes } })
    }
}

/// As it is matched.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn without_scheme(text: &str) -> &str {
    text.split_once("://").filter(|(scheme, _)| !scheme.contains('*')).map_or(text, |(_, rest)| rest)
}

/// The pattern without what normal forms leave out, and how many `/` a name may then have.
fn without_defaults(text: &str) -> (&str, usize) {
    let (text, slashes) = text.strip_prefix(HOST).map_or((text, usize::MAX), |rest| (rest, 1));
    text.strip_prefix(NAMESPACE).map_or((text, slashes), |rest| (rest, 0))
}

/// Whether a pattern with a `*` covers the whole of a text.
fn is_match(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut left) = text.strip_prefix(first).and_then(|text| text.strip_suffix(last)) else {
        return false;
    };
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        let Some((_, after)) = left.split_once(part) else {
            return false;
        };
        left = after;
    }
    true
}
