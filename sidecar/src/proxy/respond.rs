//! The one map from a refusal to its answer, in the words of the API that was called.

use std::time::Duration;

use bytes::Bytes;
use corral_limiter::{Nanos, Retry, Standing};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::admission::Shedding;
use super::dice::Dice;
use super::head::REQUEST_ID;
use super::headers::Reset;
use super::inspect::BodyFault;
use super::refused::{Kind, Refused, about};
use super::route::{Family, RouteFault};
use super::{cors, headers, wording};
use crate::metrics::{NO_ROOM, shed_word};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const RETRY_KIND: HeaderName = HeaderName::from_static("x-corral-retry");
const LIMIT: HeaderName = HeaderName::from_static("x-corral-limit");
const SHED_REASON: HeaderName = HeaderName::from_static("x-corral-shed-reason");
const QUEUE_POSITION: HeaderName = HeaderName::from_static("x-corral-queue-position");
const ESTIMATED_WAIT: HeaderName = HeaderName::from_static("x-corral-estimated-wait");
const QUEUE_TIME: HeaderName = HeaderName::from_static("x-corral-queue-time");

/// SDKs sleep as long as they are told, without a word: beyond this they are told not to.
const LONGEST_SLEEP: Nanos = Nanos::from_secs(120);
/// The most jitter of a wait that is exact.
const MAX_JITTER: Duration = Duration::from_secs(5);
/// The least jitter of an estimate: who is told so at one moment comes back over a second at least.
const SPREAD: Duration = Duration::from_secs(1);

/// Ollama is busy with others than us, whose number nobody knows: as long as when it is not there.
const OLLAMA_BUSY: Nanos = Nanos::from_secs(5);

/// What surrounds a refusal.
pub(crate) struct Context<'a> {
    pub(crate) family: Family,
    pub(crate) request_id: &'a str,
    /// How the client stands, where limits were looked at.
    pub(crate) standings: &'a [Standing],
    pub(crate) dice: &'a Dice,
}

/// The answer to a refused request.
pub(crate) fn refuse(refused: &Refused, context: &Context<'_>) -> Response<Bytes> {
    let body = body(refused.kind(), &refused.to_string(), context);
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = refused.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let retry = refused.retry();
    if let Some(retry) = &retry {
        insert_retry(headers, retry, context.dice);
    }
    headers::insert(headers, context.standings, reset(refused), context.family);
    insert_limits(headers, refused);
    match refused {
        Refused::Shed(shedding) => insert_shed(headers, shedding),
        Refused::Body(BodyFault::NoRoom) => {
            headers.insert(SHED_REASON, HeaderValue::from_static(NO_ROOM));
        }
        _ => {}
    }
    if refused.is_final() {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if let Refused::Route(RouteFault::Method { allow }) = refused {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if matches!(refused, Refused::Unauthenticated(_)) {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if refused.closes() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn reset(refused: &Refused) -> Reset<'_> {
    match refused {
        Refused::Limit(refusal) => Reset::Refused(&refusal.retry),
        _ => Reset::Untold,
    }
}

/// When to come back after Ollama itself, whose 503 says nothing of it, had no room for a request.
pub(crate) fn insert_busy(headers: &mut HeaderMap, dice: &Dice) {
    insert_retry(headers, &about(OLLAMA_BUSY), dice);
}

/// By which id a request is found in logs.
pub(crate) fn insert_id(headers: &mut HeaderMap, id: &str) {
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, id);
    }
}

/// What a browser is told of what pages may send.
pub(crate) fn preflight() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = cors::preflight();
    response
}

/// How long it was waited for a slot, in milliseconds.
pub(crate) fn insert_queue_time(headers: &mut HeaderMap, waited: Nanos) {
    headers.insert(QUEUE_TIME, HeaderValue::from(waited.millis_ceil()));
}

/// What the queue said.
fn insert_shed(headers: &mut HeaderMap, shedding: &Shedding) {
    let Shedding { shed, .. } = shedding;
    headers.insert(SHED_REASON, HeaderValue::from_static(shed_word(shed.reason)));
    headers.insert(QUEUE_POSITION, HeaderValue::from(shed.position));
    let tenths = shed.estimated_wait.millis_ceil().div_ceil(100);
    if let Ok(wait) = HeaderValue::try_from(format!("{}.{}", tenths / 10, tenths % 10)) {
        headers.insert(ESTIMATED_WAIT, wait);
    }
}

/// Never early: jitter only ever adds, and every unit is rounded up. Of an estimate it is up to a fifth.
fn insert_retry(headers: &mut HeaderMap, retry: &Retry, dice: &Dice) {
    let exact = Duration::from_millis(retry.wait.millis_ceil());
    let jitter = match (retry.shared, retry.estimate) {
        (false, _) => Duration::ZERO,
        (true, false) => dice.up_to((exact / 10).min(MAX_JITTER)),
        (true, true) => dice.up_to((exact / 5).max(SPREAD)),
    };
    let millis = Nanos::from(exact + jitter).millis_ceil();
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
    headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000).max(1)));
    if retry.estimate {
        headers.insert(RETRY_KIND, HeaderValue::from_static("estimate"));
    }
    if retry.wait > LONGEST_SLEEP {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
}

/// The limits that the message tells of, by their identities.
fn insert_limits(headers: &mut HeaderMap, refused: &Refused) {
    let told: Vec<_> = match refused {
        Refused::Limit(refusal) => wording::told(refusal).iter().map(|violation| &violation.limit).collect(),
        Refused::Oversized(oversized) => vec![&oversized.limit],
        _ => return,
    };
    let mut names: Vec<String> = Vec::new();
    for name in told.into_iter().map(ToString::to_string) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if let Ok(value) = HeaderValue::try_from(names.join(", ")) {
        headers.insert(LIMIT, value);
    }
}

fn body(kind: Kind, message: &str, context: &Context<'_>) -> Value {
    match context.family {
        Family::Ollama => json!({ "error": message }),
        Family::OpenAi => {
            let (kind, code) = openai(kind);
            json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
        }
        Family::Anthropic => json!({
            "type": "error",
            "error": { "type": anthropic(kind), "message": message },
            "request_id": context.request_id,
        }),
    }
}

/// Type and code, as `OpenAI` clients know them.
fn openai(kind: Kind) -> (&'static str, Option<&'static str>) {
    match kind {
        Kind::Invalid | Kind::TooLarge => ("invalid_request_error", None),
        Kind::Unauthenticated => ("invalid_request_error", Some("invalid_api_key")),
        Kind::Forbidden => ("permission_error", None),
        Kind::NotFound => ("not_found_error", None),
        Kind::RateLimited { tokens } => {
            (if tokens { "tokens" } else { "requests" }, Some("rate_limit_exceeded"))
        }
        Kind::Overloaded => ("server_error", Some("overloaded")),
        Kind::Unavailable => ("server_error", Some("unavailable")),
    }
}

fn anthropic(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "invalid_request_error",
        Kind::TooLarge => "request_too_large",
        Kind::Unauthenticated => "authentication_error",
        Kind::Forbidden => "permission_error",
        Kind::NotFound => "not_found_error",
        Kind::RateLimited { .. } => "rate_limit_error",
        Kind::Overloaded | Kind::Unavailable => "overloaded_error",
    }
}

#[cfg(test)]
#[path = "respond_tests.rs"]
mod tests;
