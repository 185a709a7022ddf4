//! Embeddings in three shapes: `/api/embed`, the legacy `/api/embeddings`, `/v1/embeddings`.

use bytes::Bytes;
use serde::Serialize;

use super::{json, json_line};
use crate::ollama::route::Endpoint;

const VECTOR: [f32; 3] = [0.619_190_1, 0.612_457_93, 0.491_425_48];
/// [`VECTOR`] as little-endian bytes in base64.
const VECTOR_BASE64: &str = "PoMePwvKHD8fnPs+";

#[derive(Serialize)]
struct Native<'a> {
    model: &'a str,
    embeddings: Vec<[f32; 3]>,
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: i64,
}

#[derive(Serialize)]
struct Legacy {
    embedding: [f32; 3],
}

#[derive(Serialize)]
struct OpenAi<'a> {
    object: &'static str,
    data: Vec<Item>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    embedding: Vector,
    index: usize,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Floats([f32; 3]),
    Base64(&'static str),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: i64,
    total_tokens: i64,
}

/// The answer for so many inputs, and its media type. Its times are always the recorded ones: nobody can tell from them
/// what was work and what was waiting.
pub(crate) fn vectors(
    endpoint: Endpoint,
    model: &str,
    inputs: usize,
    base64: bool,
    prompt_tokens: i64,
) -> (&'static str, Bytes) {
    let native = "application/json; charset=utf-8";
    match endpoint {
        Endpoint::Embeddings => (native, json(&Legacy { embedding: VECTOR }).into()),
        Endpoint::OpenAiEmbeddings => {
            let item = |index| {
                let embedding = if base64 { Vector::Base64(VECTOR_BASE64) } else { Vector::Floats(VECTOR) };
                Item { object: "embedding", embedding, index }
            };
            let data = (0..inputs).map(item).collect();
            let usage = Usage { prompt_tokens, total_tokens: prompt_tokens };
            ("application/json", json_line(&OpenAi { object: "list", data, model, usage }))
        }
        _ => {
            let embeddings = vec![VECTOR; inputs];
            let body = Native {
                model,
                embeddings,
                total_duration: 17_609_965,
                load_duration: 1_886_943,
                prompt_eval_count: prompt_tokens,
            };
            (native, json(&body).into())
        }
    }
}
