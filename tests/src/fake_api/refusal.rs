//! Refusals, in the form that a client of Kubernetes expects: a `Status`.

use std::io;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::Answer;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        })
    }

    pub(crate) fn answer(&self) -> Answer {
        let mut answer = whole(self.code, &self.status());
        if self.code == 429 {
            answer.headers_mut().insert("retry-after", http::HeaderValue::from_static("1"));
        }
        answer
    }
}

pub(crate) fn not_found(what: &str) -> Refusal {
    Refusal { code: 404, reason: "NotFound", message: format!("{what} not found") }
}

pub(crate) fn conflict(message: impl Into<String>) -> Refusal {
    Refusal { code: 409, reason: "Conflict", message: message.into() }
}

pub(crate) fn exists(name: &str) -> Refusal {
    Refusal { code: 409, reason: "AlreadyExists", message: format!("{name} already exists") }
}

pub(crate) fn bad_request(message: impl Into<String>) -> Refusal {
    Refusal { code: 400, reason: "BadRequest", message: message.into() }
}

pub(crate) fn gone() -> Refusal {
    Refusal { code: 410, reason: "Expired", message: "too old resource version".into() }
}

pub(crate) fn of_code(code: u16) -> Refusal {
    let reason = match code {
        403 => "Forbidden",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    Refusal { code, reason, message: format!("injected {code}") }
}

/// A whole answer of one JSON value.
pub(crate) fn whole(code: u16, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    let mut answer = Response::new(UnsyncBody::new(body));
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    answer
}

type UnsyncBody = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;
