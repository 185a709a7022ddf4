//! `/v1/responses`: numbered events, keys in alphabetical order, the whole response repeated at the end.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Voice, event, json_line, serial};
use crate::ollama::generation::Finish;

/// Speaks for `/v1/responses`.
pub(super) struct Responses {
    id: String,
    item: String,
    model: String,
    created: i64,
    bound: Option<i64>,
    events: u32,
    opened: bool,
}

impl Responses {
    pub(super) fn new(model: String, bound: Option<i64>) -> Self {
        let (id, item) = (format!("resp_{}", serial()), format!("msg_{}", serial()));
        Self { id, item, model, created: Timestamp::now().as_second(), bound, events: 0, opened: false }
    }

    fn say(&mut self, name: &str, mut body: Value) -> Vec<u8> {
        if let Some(fields) = body.as_object_mut() {
            fields.insert("sequence_number".into(), self.events.into());
            fields.insert("type".into(), name.into());
        }
        self.events += 1;
        event(name, &body)
    }

    fn open(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.opened, true) {
            return Vec::new();
        }
        let response = self.response("in_progress", &json!([]), &Value::Null);
        let item = self.output("in_progress", &json!([]));
        let part = part("");
        [
            self.say("response.created", json!({ "response": response })),
            self.say("response.in_progress", json!({ "response": response })),
            self.say("response.output_item.added", json!({ "item": item, "output_index": 0 })),
            self.say("response.content_part.added", self.placed("part", part)),
        ]
        .concat()
    }

    /// Fields that say which part of which item an event is about.
    fn placed(&self, name: &str, value: Value) -> Value {
        let mut body = json!({ "content_index": 0, "item_id": self.item, "output_index": 0 });
        if let Some(fields) = body.as_object_mut() {
            fields.insert(name.into(), value);
        }
        body
    }

    fn output(&self, status: &str, content: &Value) -> Value {
        json!({ "content": content, "id": self.item, "role": "assistant", "status": status, "type": "message" })
    }

    fn response(&self, status: &str, output: &Value, usage: &Value) -> Value {
        let done = (status == "completed").then_some(self.created);
        json!({
            "background": false, "completed_at": done, "created_at": self.created, "error": null,
            "frequency_penalty": 0, "id": self.id, "incomplete_details": null, "instructions": null,
            "max_output_tokens": self.bound, "max_tool_calls": null, "metadata": {}, "model": self.model,
            "object": "response", "output": output, "parallel_tool_calls": true, "presence_penalty": 0,
            "previous_response_id": null, "prompt_cache_key": null, "reasoning": null,
            "safety_identifier": null, "service_tier": "default", "status": status, "store": false,
            "temperature": 1, "text": { "format": { "type": "text" } }, "tool_choice": "auto", "tools": [],
            "top_logprobs": 0, "top_p": 1, "truncation": "disabled", "usage": usage,
        })
    }

    fn completed(&self, finish: &Finish) -> Value {
        let output = self.output("completed", &json!([part(&finish.text)]));
        let usage = json!({
            "input_tokens": finish.prompt_tokens,
            "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": finish.tokens,
            "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": finish.prompt_tokens + finish.tokens,
        });
        self.response("completed", &json!([output]), &usage)
    }
}

fn part(text: &str) -> Value {
    json!({ "annotations": [], "logprobs": [], "text": text, "type": "output_text" })
}

impl Voice for Responses {
    fn token(&mut self, text: &str) -> Bytes {
        let mut frames = self.open();
        let mut body = self.placed("delta", text.into());
        if let Some(fields) = body.as_object_mut() {
            fields.insert("logprobs".into(), json!([]));
        }
        frames.extend(self.say("response.output_text.delta", body));
        frames.into()
    }

    fn end(&mut self, finish: &Finish) -> Bytes {
        let mut frames = self.open();
        let mut text = self.placed("text", finish.text.clone().into());
        if let Some(fields) = text.as_object_mut() {
            fields.insert("logprobs".into(), json!([]));
        }
        frames.extend(self.say("response.output_text.done", text));
        let whole_part = self.placed("part", part(&finish.text));
        frames.extend(self.say("response.content_part.done", whole_part));
        let item = self.output("completed", &json!([part(&finish.text)]));
        frames.extend(self.say("response.output_item.done", json!({ "item": item, "output_index": 0 })));
        let response = self.completed(finish);
        frames.extend(self.say("response.completed", json!({ "response": response })));
        frames.into()
    }

    /// Nothing: the stream ends where it stands.
    fn crash(&mut self) -> Bytes {
        Bytes::new()
    }

    fn whole(&mut self, finish: &Finish) -> Bytes {
        json_line(&self.completed(finish))
    }

    fn keeps_alive(&self) -> bool {
        true
    }
}
