//! The three APIs that stream: how each is asked, and how it says that an answer is whole.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cluster::http::Request;

/// One API that streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// What is asked.
    pub path: &'static str,
    /// How its streams call themselves.
    pub content_type: &'static str,
    /// Where the text of an event is.
    text: &'static str,
    /// The last line of a whole answer has this in it.
    last: &'static str,
    /// Where an event that says that the answer failed has its reason.
    error: &'static str,
}

/// Ollama's own, `OpenAI`'s and Anthropic's.
pub const APIS: [Api; 3] = [
    Api {
        path: "/api/chat",
        content_type: "application/x-ndjson",
        text: "/message/content",
        last: "\"done\":true",
        error: "/error",
    },
    Api {
        path: "/v1/chat/completions",
        content_type: "text/event-stream",
        text: "/choices/0/delta/content",
        last: "data: [DONE]",
        error: "/error/message",
    },
    Api {
        path: "/v1/messages",
        content_type: "text/event-stream",
        text: "/delta/text",
        last: "\"type\":\"message_stop\"",
        error: "/error/message",
    },
];

impl Api {
    /// Asks a model for so many tokens, one after the other.
    pub fn request(&self, model: &str, tokens: usize) -> Request {
        let body = json!({
            "model": model,
            "messages": [{ "role": "user", "content": "Say the alphabet." }],
            "stream": true,
            "max_tokens": tokens,
            "options": { "num_predict": tokens },
        });
        Request::post(self.path, &body)
    }

    /// The model's words in a body.
    pub fn text(&self, body: &str) -> Result<String> {
        Ok(events(body)?.iter().filter_map(|event| event.pointer(self.text)?.as_str()).collect())
    }

    /// Whether a body has the line that ends a whole answer.
    pub fn is_whole(&self, body: &str) -> bool {
        body.lines().rfind(|line| !line.is_empty()).is_some_and(|line| line.contains(self.last))
    }

    /// What the API's own error event says, if a body ends in one.
    pub fn error(&self, body: &str) -> Option<String> {
        let line = body.lines().rfind(|line| !line.is_empty())?;
        let event: Value = serde_json::from_str(data(line)).ok()?;
        event.pointer(self.error)?.as_str().map(str::to_owned)
    }
}

/// One JSON value a line, or a line that begins with `data:`; `[DONE]` is none.
fn events(body: &str) -> Result<Vec<Value>> {
    let lines = body.lines().map(data);
    lines.filter(|line| line.starts_with('{')).map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn data(line: &str) -> &str {
    line.strip_prefix("data:").unwrap_or(line).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODIES: [&str; 3] = [
        "{\"message\":{\"content\":\"ab\"},\"done\":false}\n{\"message\":{\"content\":\"c\"},\"done\":false}\n\
         {\"message\":{\"content\":\"\"},\"done\":true}\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"ab\"}}]}\n\n\
         data: {\"choices\":[{\"delta\":{\"content\":\"c\"}}]}\n\ndata: [DONE]\n\n",
        "event: content_block_delta\ndata: {\"delta\":{\"text\":\"ab\"}}\n\n\
         event: content_block_delta\ndata: {\"delta\":{\"text\":\"c\"}}\n\n\
         event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    ];

    #[test]
    fn every_api_gives_its_words_and_its_end() {
        for (api, body) in APIS.iter().zip(BODIES) {
            assert_eq!(api.text(body).unwrap(), "abc", "{}", api.path);
            assert!(api.is_whole(body), "{}", api.path);
            assert_eq!(api.error(body), None);
            let last = body.trim_end().rfind('\n').unwrap();
            assert!(!api.is_whole(body.get(..last).unwrap()), "{}", api.path);
        }
    }

    #[test]
    fn an_answer_that_ends_in_an_error_event_is_not_whole() {
        let ends = [
            "{\"error\":\"gone\"}\n",
            "data: {\"error\":{\"message\":\"gone\"}}\n\n",
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"gone\"}}\n\n",
        ];
        for (api, end) in APIS.iter().zip(ends) {
            assert_eq!(api.error(end).as_deref(), Some("gone"), "{}", api.path);
            assert!(!api.is_whole(end), "{}", api.path);
        }
    }
}
