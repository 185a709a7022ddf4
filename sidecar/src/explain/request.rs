//! A request as a person types it: `POST /api/chat [X-Team: red] {"model":"tiny"}`, or `… model=tiny`.

use std::fmt;
use std::net::IpAddr;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};
use serde::{Deserialize, Serialize};

/// A request to be explained. It may hold a key, so it is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ask {
    /// The peer that it would come from.
    pub client_ip: IpAddr,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    /// Empty: it has none.
    pub(crate) body: String,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ask({} {})", self.method, self.target)
    }
}

/// What is wrong with a request as typed. It may hold a key, so nothing of a header is said again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// No method and path.
    #[error("a request begins with a method and a path, such as: POST /api/chat model=llama3.2")]
    Line,
    /// A header that is none.
    #[error("a header is [Name: value], in brackets, or --header 'Name: value'")]
    Header,
    /// What comes after the headers.
    #[error("after the path and its [Name: value] headers comes a JSON body, {{...}}, or model=NAME")]
    Rest,
}

impl Ask {
    /// Reads a request as typed.
    pub fn parse(text: &str, client_ip: IpAddr) -> Result<Self, BadRequest> {
        let (method, rest) = word(text);
        let (target, mut rest) = word(rest);
        let known =
            Method::from_bytes(method.as_bytes()).is_ok() && method.bytes().all(|b| b.is_ascii_uppercase());
        if !known || !target.starts_with('/') || target.parse::<Uri>().is_err() {
            return Err(BadRequest::Line);
        }
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut ask = Self { client_ip, method, target, headers: Vec::new(), body: String::new() };
        while let Some(inner) = rest.strip_prefix('[') {
            let (header, after) = inner.split_once(']').ok_or(BadRequest::Header)?;
            ask.add_header(header)?;
            rest = after.trim_start();
        }
        ask.body = body(rest)?;
        Ok(ask)
    }

    /// Adds a header written as `Name: value`.
    pub fn add_header(&mut self, line: &str) -> Result<(), BadRequest> {
        let (name, value) = line.split_once(':').ok_or(BadRequest::Header)?;
        let (name, value) = (name.trim(), value.trim());
        let good = name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(value).is_ok();
        if !good {
            return Err(BadRequest::Header);
        }
        self.headers.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Adds an API key.
    pub fn add_key(&mut self, key: &str) -> Result<(), BadRequest> {
        self.add_header(&format!("Authorization: Bearer {key}"))
    }

    pub(crate) fn header_map(&self) -> HeaderMap {
        let parsed = self.headers.iter().filter_map(|(name, value)| {
            Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?))
        });
        let mut map = HeaderMap::new();
        parsed.for_each(|(name, value)| _ = map.append(name, value));
        map
    }
}

/// The first word, and what comes after it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn body(rest: &str) -> Result<String, BadRequest> {
    let rest = rest.trim();
    match rest.strip_prefix("model=") {
        Some(model) if !model.is_empty() && !model.contains(char::is_whitespace) => {
            Ok(serde_json::json!({ "model": model }).to_string())
        }
        None if rest.is_empty() || rest.starts_with('{') => Ok(rest.to_owned()),
        _ => Err(BadRequest::Rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Ask, BadRequest> {
        Ask::parse(text, [127, 0, 0, 1].into())
    }

    #[test]
    fn a_request_is_a_method_a_path_headers_and_a_body_or_a_model() {
        let ask = parse(r#"POST /api/chat [X-Team: red] [x-b:  c d ] {"model": "tiny", "n": [1]}"#).unwrap();
        assert_eq!((&*ask.method, &*ask.target), ("POST", "/api/chat"));
        let headers = [("X-Team", "red"), ("x-b", "c d")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(ask.headers, headers);
        assert_eq!(ask.body, r#"{"model": "tiny", "n": [1]}"#);
        assert_eq!(parse(" POST  /v1/messages  model=tiny:7b ").unwrap().body, r#"{"model":"tiny:7b"}"#);
        assert_eq!(parse("GET /api/tags").unwrap().body, "");
    }

    #[test]
    fn what_is_wrong_is_told_without_repeating_it() {
        for (text, told) in [
            ("", BadRequest::Line),
            ("POST", BadRequest::Line),
            ("post /api/chat", BadRequest::Line),
            ("POST api/chat", BadRequest::Line),
            ("/api/chat model=tiny", BadRequest::Line),
            ("POST /api/chat [secret]", BadRequest::Header),
            ("POST /api/chat [a: secret", BadRequest::Header),
            ("POST /api/chat [a b: secret]", BadRequest::Header),
            ("POST /api/chat tiny", BadRequest::Rest),
            ("POST /api/chat model=", BadRequest::Rest),
            ("POST /api/chat model=a b", BadRequest::Rest),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, told, "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        let mut ask = parse("POST /api/chat [x-api-key: secret-1] model=tiny").unwrap();
        ask.add_key("secret-2").unwrap();
        assert_eq!(ask.header_map().len(), 2);
        assert!(!format!("{ask:?}").contains("secret"), "{ask:?}");
    }
}
