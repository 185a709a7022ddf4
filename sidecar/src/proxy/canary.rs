//! Asks Ollama something that only a runner which works can answer.
//!
//! Before Ollama gives any request to a loaded runner, it asks the runner whether it is well, and has the answer within
//! milliseconds, however busy its slots are: llama-server answers that on a thread of its own. So the cheapest question
//! is a request without input: it goes to the runner, past its slots, and ends there. It must ask for the very shape
//! that is loaded, or the model would be loaded anew; and it says nothing of `keep_alive`, so that keeps its value.
//!
//! The dearer question is one token. It needs a slot, and shows that the runner computes.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tokio::time::timeout;

use super::residency::Need;
use super::upstream::{NoAnswer, Pieces, Upstream};

/// The most bytes of an answer.
const MAX_BODY: usize = 64 * 1024;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Whether the runner answers at all.
    Alive,
    /// Whether it computes: one token.
    Token,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The runner works, or there is no such runner any more.
    Works,
    /// Ollama itself has failed to have it work.
    Failed,
    /// Ollama has gone: whatever comes next is another one.
    Gone,
    /// Nothing, in all that time.
    Nothing,
}

/// Asks once.
pub(crate) async fn ask(upstream: &Upstream, need: &Need, question: Question, within: Duration) -> Heard {
    let Some(request) = request(need, question) else {
        return Heard::Nothing;
    };
    match timeout(within, exchange(upstream, request)).await {
        Ok(heard) => heard,
        Err(_) => Heard::Nothing,
    }
}

/// The request to a runner of this shape; none if the shape cannot be spelt.
pub(crate) fn request(need: &Need, question: Question) -> Option<Request<Pieces>> {
    let (path, members) = match question {
        // Without input it suits every model, also one that only embeds.
        Question::Alive if !need.shape.shifts() => ("/api/embed", need.shape.members("")?),
        Question::Alive => ("/api/generate", need.shape.members("")?),
        Question::Token => {
            let members = need.shape.members("\"num_predict\":1")?;
            ("/api/generate", members + ",\"prompt\":\"a\",\"raw\":true,\"stream\":false")
        }
    };
    let model = Value::from(need.model.as_str());
    let mut request = Request::new(Pieces::from(Bytes::from(format!("{{\"model\":{model}{members}}}"))));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some(request)
}

async fn exchange(upstream: &Upstream, request: Request<Pieces>) -> Heard {
    match upstream.send(request).await {
        Ok((response, lease)) => {
            let status = response.status();
            if Limited::new(response.into_body(), MAX_BODY).collect().await.is_ok() {
                upstream.give_back(lease);
            }
            if status.is_success() || status.is_client_error() { Heard::Works } else { Heard::Failed }
        }
        Err(NoAnswer::Unreachable(_) | NoAnswer::Shut) => Heard::Nothing,
        Err(NoAnswer::Refused(_) | NoAnswer::Ended(_) | NoAnswer::NotFinal(_)) => Heard::Gone,
    }
}

#[cfg(test)]
mod tests {
    use corral_limiter::ModelName;

    use super::super::inspect::{Reads, shape_of};
    use super::*;

    async fn asked(body: &str, question: Question) -> Option<(String, String)> {
        let shape = shape_of(body, Reads::OptionsAndShift);
        let request = request(&Need { model: ModelName::parse("Tiny").unwrap(), shape }, question)?;
        let path = request.uri().to_string();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Some((path, String::from_utf8(body.to_vec()).unwrap()))
    }

    #[tokio::test]
    async fn a_canary_asks_for_the_very_shape_and_for_nothing_else() {
        use Question::{Alive, Token};
        let shifted = r#"{"options":{"num_ctx":7,"seed":3},"shift":true,"keep_alive":0}"#;
        for (body, question, path, asks) in [
            ("{}", Alive, "/api/embed", r#"{"model":"tiny:latest"}"#),
            (
                r#"{"options":{"num_ctx":7}}"#,
                Alive,
                "/api/embed",
                r#"{"model":"tiny:latest","options":{"num_ctx":7}}"#,
            ),
            (
                shifted,
                Alive,
                "/api/generate",
                r#"{"model":"tiny:latest","options":{"num_ctx":7},"shift":true}"#,
            ),
            (
                shifted,
                Token,
                "/api/generate",
                r#"{"model":"tiny:latest","options":{"num_ctx":7,"num_predict":1},"shift":true,"prompt":"a","raw":true,"stream":false}"#,
            ),
        ] {
            assert_eq!(asked(body, question).await, Some((path.to_owned(), asks.to_owned())));
        }
    }

    #[tokio::test]
    async fn a_shape_that_cannot_be_spelt_is_never_asked_for() {
        let long = format!(r#"{{"options":{{"num_ctx":"{}"}}}}"#, "9".repeat(200));
        assert_eq!(asked(&long, Question::Alive).await, None);
        assert_eq!(asked(&long, Question::Token).await, None);
    }
}
