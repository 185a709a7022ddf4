//! The Anthropic family: `/v1/messages`, named events, and its errors.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::{Voice, event, json_line, serial};
use crate::ollama::generation::Finish;

#[derive(Serialize)]
struct ErrorBody<'a> {
    r#type: &'static str,
    error: ErrorDetail<'a>,
    request_id: String,
}

#[derive(Serialize)]
struct ErrorDetail<'a> {
    r#type: &'static str,
    message: &'a str,
}

pub(super) fn error(status: StatusCode, message: &str) -> Bytes {
    let r#type = match status.as_u16() {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    };
    let request_id = format!("req_{:024x}", serial());
    json_line(&ErrorBody { r#type: "error", error: ErrorDetail { r#type, message }, request_id })
}

/// Speaks for `/v1/messages`.
pub(super) struct Messages {
    id: String,
    model: String,
    opened: bool,
}

#[derive(Serialize, Clone, Copy)]
struct Usage {
    input_tokens: i64,
    output_tokens: i64,
}

#[derive(Serialize)]
struct Block<'a> {
    r#type: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct Message<'a> {
    id: &'a str,
    r#type: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<Block<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<&'static str>,
    usage: Usage,
}

#[derive(Serialize)]
struct Start<'a> {
    r#type: &'static str,
    message: Message<'a>,
}

#[derive(Serialize)]
struct BlockStart {
    r#type: &'static str,
    index: u32,
    content_block: Block<'static>,
}

#[derive(Serialize)]
struct BlockDelta<'a> {
    r#type: &'static str,
    index: u32,
    delta: Block<'a>,
}

#[derive(Serialize)]
struct BlockStop {
    r#type: &'static str,
    index: u32,
}

#[derive(Serialize)]
struct MessageDelta {
    r#type: &'static str,
    delta: StopReason,
    usage: Usage,
}

#[derive(Serialize)]
struct StopReason {
    stop_reason: &'static str,
}

#[derive(Serialize)]
struct MessageStop {
    r#type: &'static str,
}

impl Messages {
    pub(super) fn new(model: String) -> Self {
        Self { id: format!("msg_{:024x}", serial()), model, opened: false }
    }

    fn message<'a>(&'a self, content: Vec<Block<'a>>, usage: Usage) -> Message<'a> {
        Message {
            id: &self.id,
            r#type: "message",
            role: "assistant",
            model: &self.model,
            content,
            stop_reason: None,
            usage,
        }
    }

    /// The preamble, once; its input count is only a guess, as the real one's is.
    fn open(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.opened, true) {
            return Vec::new();
        }
        let message = self.message(Vec::new(), Usage { input_tokens: 4, output_tokens: 0 });
        let mut frames = event("message_start", &Start { r#type: "message_start", message });
        let content_block = Block { r#type: "text", text: "" };
        let start = BlockStart { r#type: "content_block_start", index: 0, content_block };
        frames.extend(event("content_block_start", &start));
        frames
    }
}

fn stop_reason(finish: &Finish) -> &'static str {
    if finish.reason == "length" { "max_tokens" } else { "end_turn" }
}

fn usage(finish: &Finish) -> Usage {
    Usage { input_tokens: finish.prompt_tokens, output_tokens: finish.tokens }
}

impl Voice for Messages {
    fn token(&mut self, text: &str) -> Bytes {
        let mut frames = self.open();
        let delta = Block { r#type: "text_delta", text };
        let delta = BlockDelta { r#type: "content_block_delta", index: 0, delta };
        frames.extend(event("content_block_delta", &delta));
        frames.into()
    }

    fn end(&mut self, finish: &Finish) -> Bytes {
        let mut frames = self.open();
        let stop = BlockStop { r#type: "content_block_stop", index: 0 };
        frames.extend(event("content_block_stop", &stop));
        let delta = StopReason { stop_reason: stop_reason(finish) };
        let delta = MessageDelta { r#type: "message_delta", delta, usage: usage(finish) };
        frames.extend(event("message_delta", &delta));
        frames.extend(event("message_stop", &MessageStop { r#type: "message_stop" }));
        frames.into()
    }

    /// Nothing: the stream ends where it stands.
    fn crash(&mut self) -> Bytes {
        Bytes::new()
    }

    fn whole(&mut self, finish: &Finish) -> Bytes {
        let block = Block { r#type: "text", text: &finish.text };
        let mut message = self.message(vec![block], usage(finish));
        message.stop_reason = Some(stop_reason(finish));
        json_line(&message)
    }

    fn keeps_alive(&self) -> bool {
        true
    }
}
