//! Ollama's own API: NDJSON, counts in the last line.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{CRASHED, Voice, json, json_line};
use crate::ollama::generation::Finish;
use crate::ollama::route::Endpoint;

/// Speaks for `/api/generate` and `/api/chat`.
pub(crate) struct Native {
    model: String,
    chat: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Vec<u32>>,
    #[serde(flatten)]
    counts: Option<Counts>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct Counts {
    total_duration: u64,
    load_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_count: i64,
    prompt_eval_duration: u64,
    eval_count: i64,
    eval_duration: u64,
}

/// Go leaves out what is zero.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &i64) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    error: &'a str,
}

impl Native {
    pub(crate) fn generate(model: String) -> Self {
        Self { model, chat: false }
    }

    pub(crate) fn chat(model: String) -> Self {
        Self { model, chat: true }
    }

    fn line<'a>(&'a self, text: &'a str, done_reason: Option<&'static str>) -> Line<'a> {
        Line {
            model: &self.model,
            created_at: rfc3339_in(SignedDuration::ZERO),
            response: (!self.chat).then_some(text),
            message: self.chat.then_some(Message { role: "assistant", content: text }),
            done: done_reason.is_some(),
            done_reason,
            context: None,
            counts: None,
        }
    }

    fn last<'a>(&'a self, text: &'a str, finish: &Finish) -> Line<'a> {
        let mut line = self.line(text, Some(finish.reason));
        line.context = (!self.chat).then(|| context(finish));
        line.counts = Some(Counts {
            total_duration: finish.total_ns,
            load_duration: finish.load_ns,
            prompt_eval_count: finish.prompt_tokens,
            prompt_eval_duration: finish.prompt_ns,
            eval_count: finish.tokens,
            eval_duration: finish.eval_ns,
        });
        line
    }
}

impl Voice for Native {
    fn token(&mut self, text: &str) -> Bytes {
        json_line(&self.line(text, None))
    }

    fn end(&mut self, finish: &Finish) -> Bytes {
        json_line(&self.last("", finish))
    }

    fn crash(&mut self) -> Bytes {
        json_line(&ErrorLine { error: CRASHED })
    }

    fn whole(&mut self, finish: &Finish) -> Bytes {
        json(&self.last(&finish.text, finish)).into()
    }

    fn stream_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn whole_type(&self) -> &'static str {
        "application/json; charset=utf-8"
    }
}

/// Prompt and answer as token numbers: made up, but as many as there are tokens with text.
fn context(finish: &Finish) -> Vec<u32> {
    let prompt = usize::try_from(finish.prompt_tokens).unwrap_or_default();
    let answer = finish.text.bytes().map(u32::from);
    std::iter::repeat_n(267, prompt).chain(answer).collect()
}

pub(super) fn error(message: &str) -> Bytes {
    json(&ErrorLine { error: message }).into()
}

/// The answer to a request without a prompt.
pub(crate) fn loaded(endpoint: Endpoint, model: &str) -> Bytes {
    only(endpoint, model, "load")
}

/// The answer to a request that unloads.
pub(crate) fn unloaded(endpoint: Endpoint, model: &str) -> Bytes {
    only(endpoint, model, "unload")
}

fn only(endpoint: Endpoint, model: &str, reason: &'static str) -> Bytes {
    let voice = Native { model: model.to_owned(), chat: endpoint == Endpoint::Chat };
    json(&voice.line("", Some(reason))).into()
}

/// A time from now, as Ollama writes times.
pub(crate) fn rfc3339_in(ahead: SignedDuration) -> String {
    (Timestamp::now() + ahead).to_string()
}
