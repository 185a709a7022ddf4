//! The `OpenAI` family: `/v1/chat/completions` and `/v1/completions`, and its errors.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

use super::{Voice, data, json_line, serial};
use crate::ollama::generation::Finish;

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

#[derive(Serialize)]
struct ErrorDetail<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<()>,
    code: Option<()>,
}

pub(super) fn error(status: StatusCode, message: &str) -> Bytes {
    let r#type = match status.as_u16() {
        400 => "invalid_request_error",
        404 => "not_found_error",
        _ => "api_error",
    };
    json_line(&ErrorBody { error: ErrorDetail { message, r#type, param: None, code: None } })
}

#[derive(Serialize, Clone, Copy, Default)]
#[expect(clippy::struct_field_names, reason = "the names on the wire")]
struct Usage {
    prompt_tokens: i64,
    completion_tokens: i64,
    total_tokens: i64,
}

impl Usage {
    fn of(finish: &Finish) -> Self {
        Self {
            prompt_tokens: finish.prompt_tokens,
            completion_tokens: finish.tokens,
            total_tokens: finish.prompt_tokens + finish.tokens,
        }
    }
}

/// Speaks for `/v1/chat/completions`.
pub(super) struct Chat {
    id: String,
    created: i64,
    model: String,
    usage: bool,
    spoke: bool,
}

#[derive(Serialize)]
struct ChatBody<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<ChatChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct ChatChoice<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Words<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Words<'a>>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize, Default)]
struct Words<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl Chat {
    pub(super) fn new(model: String, usage: bool) -> Self {
        let id = format!("chatcmpl-{}", serial());
        Self { id, created: Timestamp::now().as_second(), model, usage, spoke: false }
    }

    fn body<'a>(&'a self, object: &'static str, choices: Vec<ChatChoice<'a>>) -> ChatBody<'a> {
        ChatBody {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            system_fingerprint: "fp_ollama",
            choices,
            usage: None,
        }
    }

    fn chunk<'a>(&'a self, delta: Words<'a>, finish_reason: Option<&'static str>) -> ChatBody<'a> {
        let choice = ChatChoice { index: 0, delta: Some(delta), message: None, finish_reason };
        self.body("chat.completion.chunk", vec![choice])
    }
}

impl Voice for Chat {
    fn token(&mut self, text: &str) -> Bytes {
        let role = (!std::mem::replace(&mut self.spoke, true)).then_some("assistant");
        data(&self.chunk(Words { role, content: Some(text) }, None)).into()
    }

    fn end(&mut self, finish: &Finish) -> Bytes {
        let mut frames = data(&self.chunk(Words::default(), Some(finish.reason)));
        if self.usage {
            let mut last = self.body("chat.completion.chunk", Vec::new());
            last.usage = Some(Usage::of(finish));
            frames.extend(data(&last));
        }
        frames.extend(b"data: [DONE]\n\n");
        frames.into()
    }

    fn crash(&mut self) -> Bytes {
        let mut chunk = self.chunk(Words { role: None, content: Some("") }, None);
        chunk.model = "";
        data(&chunk).into()
    }

    fn whole(&mut self, finish: &Finish) -> Bytes {
        let words = Words { role: Some("assistant"), content: Some(&finish.text) };
        let choice =
            ChatChoice { index: 0, delta: None, message: Some(words), finish_reason: Some(finish.reason) };
        let mut body = self.body("chat.completion", vec![choice]);
        body.usage = Some(Usage::of(finish));
        json_line(&body)
    }
}

/// Speaks for `/v1/completions`.
pub(super) struct Text {
    id: String,
    created: i64,
    model: String,
    usage: bool,
}

#[derive(Serialize)]
struct TextBody<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    choices: Vec<TextChoice<'a>>,
    model: &'a str,
    system_fingerprint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct TextChoice<'a> {
    text: &'a str,
    index: u32,
    finish_reason: Option<&'static str>,
}

impl Text {
    pub(super) fn new(model: String, usage: bool) -> Self {
        let id = format!("cmpl-{}", serial());
        Self { id, created: Timestamp::now().as_second(), model, usage }
    }

    fn body<'a>(&'a self, text: &'a str, finish_reason: Option<&'static str>) -> TextBody<'a> {
        TextBody {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            choices: vec![TextChoice { text, index: 0, finish_reason }],
            model: &self.model,
            system_fingerprint: "fp_ollama",
            // Every chunk carries a usage of zeros once the client asks for it; the true one comes last.
            usage: self.usage.then(Usage::default),
        }
    }
}

impl Voice for Text {
    fn token(&mut self, text: &str) -> Bytes {
        data(&self.body(text, None)).into()
    }

    fn end(&mut self, finish: &Finish) -> Bytes {
        let mut frames = data(&self.body("", Some(finish.reason)));
        if self.usage {
            let mut last = self.body("", None);
            last.choices.clear();
            last.usage = Some(Usage::of(finish));
            frames.extend(data(&last));
        }
        frames.extend(b"data: [DONE]\n\n");
        frames.into()
    }

    fn crash(&mut self) -> Bytes {
        let mut chunk = self.body("", None);
        chunk.model = "";
        data(&chunk).into()
    }

    fn whole(&mut self, finish: &Finish) -> Bytes {
        let mut body = self.body(&finish.text, Some(finish.reason));
        body.usage = Some(Usage::of(finish));
        json_line(&body)
    }
}
