//! Asks Ollama what a model is, for how many slots it has.
//!
//! Ollama gives one slot, whatever `OLLAMA_NUM_PARALLEL` says, to models that cannot complete, and to some architectures:
//! `Scheduler.load` in its `server/sched.go`, from v0.17.1 on, has all of these but the last, which came with v0.24.0.

use std::time::Duration;

use bytes::Bytes;
use corral_limiter::ModelName;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::kinds::Shown;
use crate::proxy::upstream::{Pieces, Upstream};

/// Architectures that have one slot.
const ONE_SLOT: [&str; 11] = [
    "mllama",
    "qwen3vl",
    "qwen3vlmoe",
    "qwen35",
    "qwen35moe",
    "qwen3next",
    "lfm2",
    "lfm2moe",
    "nemotron_h",
    "nemotron_h_moe",
    "nemotron_h_omni",
];
/// Architectures that only embed, for an Ollama that does not tell what a model can do.
const EMBEDS: [&str; 3] = ["bert", "nomic-bert", "nomic-bert-moe"];
/// The longest that is waited: it takes milliseconds, more where the models lie on a network's disk.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most bytes of an answer: with licence and tensors it is some hundred KiB.
const MAX_BODY: usize = 4 << 20;

/// Asks about one model.
pub(super) async fn ask(upstream: &Upstream, model: &ModelName) -> Shown {
    timeout(PATIENCE, exchange(upstream, model)).await.ok().flatten().unwrap_or(Shown::Nothing)
}

async fn exchange(upstream: &Upstream, model: &ModelName) -> Option<Shown> {
    let body = format!("{{\"model\":{}}}", Value::from(model.as_str()));
    let mut request = Request::new(Pieces::from(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/api/show");
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let (response, lease) = upstream.send(request).await.ok()?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.ok()?.to_bytes();
    upstream.give_back(lease);
    Some(read(status, &body))
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    details: Details,
    /// What it can do, as `completion` or `embedding`; not there before v0.6.4.
    capabilities: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    family: String,
}

fn read(status: StatusCode, body: &[u8]) -> Shown {
    if status == StatusCode::NOT_FOUND {
        return Shown::Unknown;
    }
    match serde_json::from_slice::<Model>(body) {
        Ok(model) if status.is_success() => model.slots(),
        _ => Shown::Nothing,
    }
}

impl Model {
    fn slots(&self) -> Shown {
        let family = self.details.family.as_str();
        let completes = match &self.capabilities {
            Some(capabilities) => capabilities.iter().any(|one| one == "completion"),
            None => !EMBEDS.contains(&family),
        };
        match family {
            "" if self.capabilities.is_none() => Shown::Nothing,
            _ if completes && !ONE_SLOT.contains(&family) => Shown::AllSlots,
            _ => Shown::OneSlot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> Shown {
        read(StatusCode::OK, body.as_bytes())
    }

    #[test]
    fn one_slot_have_the_families_that_ollama_names_and_whatever_does_not_complete() {
        for family in ONE_SLOT {
            let body =
                format!(r#"{{"details":{{"family":"{family}"}},"capabilities":["completion","vision"]}}"#);
            assert_eq!(shown(&body), Shown::OneSlot, "{family}");
        }
        for (body, expected) in [
            (r#"{"details":{"family":"llama"},"capabilities":["completion","tools"]}"#, Shown::AllSlots),
            (r#"{"details":{"family":"qwen3"},"capabilities":["embedding"]}"#, Shown::OneSlot),
            (r#"{"details":{"family":"bert"},"capabilities":["embedding"]}"#, Shown::OneSlot),
            (r#"{"details":{"family":"Qwen35"},"capabilities":["completion"]}"#, Shown::AllSlots),
            (r#"{"details":{"family":"qwen35x"},"capabilities":["completion"]}"#, Shown::AllSlots),
        ] {
            assert_eq!(shown(body), expected, "{body}");
        }
    }

    #[test]
    fn an_older_ollama_is_understood_by_the_family_alone() {
        assert_eq!(shown(r#"{"details":{"family":"nomic-bert"}}"#), Shown::OneSlot);
        assert_eq!(shown(r#"{"details":{"family":"mllama"}}"#), Shown::OneSlot);
        assert_eq!(shown(r#"{"details":{"family":"llama"},"license":"x"}"#), Shown::AllSlots);
    }

    #[test]
    fn what_is_no_answer_says_nothing_and_a_missing_model_is_told_apart() {
        for nothing in
            ["", "{}", "[]", "null", "{\"details\":3}", "{\"details\":{\"family\":\"\"}}", "<html>"]
        {
            assert_eq!(shown(nothing), Shown::Nothing, "{nothing}");
        }
        let good = br#"{"details":{"family":"bert"}}"#;
        assert_eq!(read(StatusCode::INTERNAL_SERVER_ERROR, good), Shown::Nothing);
        assert_eq!(read(StatusCode::NOT_FOUND, b"{\"error\":\"model 'x' not found\"}"), Shown::Unknown);
    }
}
