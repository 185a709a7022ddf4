//! How each API family says the same things: a token, the end, a crash, the whole, an error.

mod anthropic;
mod embed;
mod native;
mod openai;
mod responses;

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::generation::Finish;
use super::job::Job;
use super::route::Endpoint;

pub(crate) use embed::vectors;
pub(crate) use native::{loaded, rfc3339_in, unloaded};

/// The speech of one answer.
pub(crate) trait Voice: Send {
    /// Frames that carry one token; the first may carry a preamble.
    fn token(&mut self, text: &str) -> Bytes;
    /// Frames that end a stream.
    fn end(&mut self, finish: &Finish) -> Bytes;
    /// What is said in a stream whose runner died.
    fn crash(&mut self) -> Bytes;
    /// The answer in one piece.
    fn whole(&mut self, finish: &Finish) -> Bytes;
    /// The media type of the stream.
    fn stream_type(&self) -> &'static str {
        "text/event-stream"
    }
    /// The media type of the whole.
    fn whole_type(&self) -> &'static str {
        "application/json"
    }
    /// Whether streams carry `Cache-Control: no-cache` and `Connection: keep-alive`.
    fn keeps_alive(&self) -> bool {
        false
    }
}

/// Picks the family's voice; `usage` and `bound` are what the client asked for.
pub(crate) fn of(job: &Job, usage: bool, bound: Option<i64>) -> Box<dyn Voice> {
    let model = job.spelling.clone();
    match job.endpoint {
        Endpoint::ChatCompletions => Box::new(openai::Chat::new(model, usage)),
        Endpoint::Completions => Box::new(openai::Text::new(model, usage)),
        Endpoint::Messages => Box::new(anthropic::Messages::new(model)),
        Endpoint::Responses => Box::new(responses::Responses::new(model, bound)),
        Endpoint::Chat => Box::new(native::Native::chat(model)),
        _ => Box::new(native::Native::generate(model)),
    }
}

/// What a dead runner is reported as.
pub(crate) const CRASHED: &str = "an error was encountered while running the model: unexpected EOF";

/// An error in the shape of an endpoint's family.
pub(crate) fn error(endpoint: Endpoint, status: StatusCode, message: &str) -> Bytes {
    match endpoint {
        Endpoint::Messages => anthropic::error(status, message),
        Endpoint::ChatCompletions
        | Endpoint::Completions
        | Endpoint::Responses
        | Endpoint::OpenAiEmbeddings
        | Endpoint::Model => openai::error(status, message),
        _ => native::error(message),
    }
}

/// A number that no two answers share.
fn serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn json_line<T: Serialize>(value: &T) -> Bytes {
    let mut line = json(value);
    line.push(b'\n');
    line.into()
}

/// One event as `data: …`, without a name.
fn data<T: Serialize>(value: &T) -> Vec<u8> {
    [b"data: ".as_slice(), &json(value), b"\n\n"].concat()
}

/// One event with its name.
fn event<T: Serialize>(name: &str, value: &T) -> Vec<u8> {
    [format!("event: {name}\n").as_bytes(), &data(value)].concat()
}
