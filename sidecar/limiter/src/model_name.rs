//! Model names in normal form: every spelling that Ollama takes for one model becomes one name.
//!
//! Follows Ollama 0.32.15: `internal/modelref` (white space, `:local`, `:cloud`) and then `types/model/name.go`
//! (host, namespace, model, tag and their defaults). What Ollama answers with 400 is an error here.

use std::{fmt, sync::Arc};

const HOST: &str = "registry.ollama.ai";
const NAMESPACE: &str = "library";
const TAG: &str = "latest";

/// The model that a request names, in lower case, as short as it can be said: `tiny:latest`, `me/tiny:7b`,
/// `example.com/me/tiny:7b`. Two names are equal exactly when Ollama takes them for the same model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName {
    short: Arc<str>,
    cloud: bool,
}

/// A name that Ollama answers with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadModelName {
    /// Nothing but white space.
    #[error("the model name is empty")]
    Empty,
    /// Both `:local` and `:cloud`, or one of them twice.
    #[error("a model name ends in :local or :cloud once, not in both")]
    TwoSources,
    /// A part has a character that does not belong there, is empty or too long.
    #[error("invalid model name: its {part} is not one")]
    BadPart {
        /// `host`, `namespace`, `model` or `tag`.
        part: &'static str,
    },
}

/// Where the model runs, as the end of a name says it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Unsaid,
    Local,
    Cloud,
}

impl ModelName {
    /// Reads a name as Ollama does.
    pub fn parse(raw: &str) -> Result<Self, BadModelName> {
        let raw = raw.trim();
        if raw.is_empty() {
            return Err(BadModelName::Empty);
        }
        let (base, source) = split_source(raw);
        if source != Source::Unsaid && split_source(&base).1 != Source::Unsaid {
            return Err(BadModelName::TwoSources);
        }
        let cloud = source == Source::Cloud;
        Parts::split(&base).checked().map(|parts| Self { short: parts.shortest(cloud).into(), cloud })
    }

    /// Whether the name asks for Ollama's cloud (`:cloud`, `:7b-cloud`): such a model never runs in the pod.
    pub fn is_cloud(&self) -> bool {
        self.cloud
    }

    /// The normal form.
    pub fn as_str(&self) -> &str {
        &self.short
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short)
    }
}

/// Splits `:local`, `:cloud` or the `-cloud` of a tag off the end.
fn split_source(raw: &str) -> (String, Source) {
    let Some((base, end)) = raw.rsplit_once(':') else {
        return (raw.to_owned(), Source::Unsaid);
    };
    let end = end.trim().to_ascii_lowercase();
    match end.as_str() {
        "local" => (base.to_owned(), Source::Local),
        "cloud" => (base.to_owned(), Source::Cloud),
        _ => match end.strip_suffix("-cloud") {
            Some(tag) if !end.contains('/') => (format!("{base}:{tag}"), Source::Cloud),
            _ => (raw.to_owned(), Source::Unsaid),
        },
    }
}

/// The parts as written; one that is not written has its default, one that is promised by its separator and then
/// missing is empty, which no check lets through.
struct Parts<'a> {
    host: &'a str,
    namespace: &'a str,
    model: &'a str,
    tag: &'a str,
}

impl<'a> Parts<'a> {
    fn split(name: &'a str) -> Self {
        let mut parts = Self { host: HOST, namespace: NAMESPACE, model: name, tag: TAG };
        if let Some((rest, tag)) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            (parts.model, parts.tag) = (rest, tag);
        }
        let Some((rest, model)) = parts.model.rsplit_once('/') else {
            return parts;
        };
        (parts.namespace, parts.model) = (rest, model);
        let Some((rest, namespace)) = rest.rsplit_once('/') else {
            return parts;
        };
        parts.namespace = namespace;
        parts.host = match rest.split_once("://") {
            Some((_, "")) => HOST,
            Some((_, host)) => host,
            None => rest,
        };
        parts
    }

    fn checked(self) -> Result<Self, BadModelName> {
        let checks = [
            ("host", self.host, 350, "-_.:"),
            ("namespace", self.namespace, 80, "-_"),
            ("model", self.model, 80, "-_."),
            ("tag", self.tag, 80, "-_."),
        ];
        match checks.into_iter().find(|(_, text, longest, marks)| !is_part(text, *longest, marks)) {
            Some((part, ..)) => Err(BadModelName::BadPart { part }),
            None => Ok(self),
        }
    }

    fn shortest(&self, cloud: bool) -> String {
        let mut name = String::with_capacity(64);
        let other_host = !self.host.eq_ignore_ascii_case(HOST);
        if other_host {
            name.extend([self.host, "/"]);
        }
        if other_host || !self.namespace.eq_ignore_ascii_case(NAMESPACE) {
            name.extend([self.namespace, "/"]);
        }
        name.extend([self.model, ":"]);
        match (cloud, self.tag.eq_ignore_ascii_case(TAG)) {
            (false, _) => name.push_str(self.tag),
            (true, true) => name.push_str("cloud"),
            (true, false) => name.extend([self.tag, "-cloud"]),
        }
        name.make_ascii_lowercase();
        name
    }
}

/// Starts with a letter, a digit or `_`, goes on with those and `marks`.
fn is_part(text: &str, longest: usize, marks: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= longest
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || marks.as_bytes().contains(&byte))
}
