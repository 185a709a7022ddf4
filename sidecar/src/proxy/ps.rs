//! Asks Ollama which models are loaded, and until when each of them stays.
//!
//! `/api/ps` lists a runner that is still loading, too. But the expiry of a runner is fixed only when it first becomes
//! idle; until then each answer counts it anew, from its own moment. Requests do not move a fixed one, only the next
//! idleness does. So a model listed twice with the same expiry was loaded and settled all the time between.

use std::time::Duration;

use bytes::Bytes;
use corral_limiter::ModelName;
use http::header::HOST;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use tokio::time::timeout;

use super::upstream::Upstream;

/// The longest that is waited for the answer: it takes a millisecond, or as long as Ollama loads.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most bytes of the answer: some hundred models.
const MAX_BODY: usize = 64 * 1024;

/// What is loaded, or loading, at one moment.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Listed {
    models: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Entry {
    name: String,
    expires_at: String,
}

/// Asks once. None if there is no answer that can be read, in time.
pub(crate) async fn ask(upstream: &Upstream) -> Option<Listed> {
    timeout(PATIENCE, exchange(upstream)).await.ok().flatten()
}

async fn exchange(upstream: &Upstream) -> Option<Listed> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = Uri::from_static("/api/ps");
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let (response, lease) = upstream.send(request).await.ok()?;
    let success = response.status().is_success();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.ok()?.to_bytes();
    upstream.give_back(lease);
    serde_json::from_slice(&body).ok().filter(|_| success)
}

impl Listed {
    /// Until when a model stays, if it is listed once.
    fn expiry(&self, model: &ModelName) -> Option<&str> {
        let same = |entry: &&Entry| ModelName::parse(&entry.name).is_ok_and(|name| name == *model);
        let mut found = self.models.iter().filter(same);
        let expiry = found.next()?.expires_at.as_str();
        found.next().is_none().then_some(expiry)
    }

    /// Whether a model was loaded and settled from an earlier moment until this one.
    pub(crate) fn settled_since(&self, earlier: &Self, model: &ModelName) -> bool {
        self.expiry(model).is_some_and(|expiry| earlier.expiry(model) == Some(expiry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(models: &[(&str, &str)]) -> Listed {
        let entry =
            |(name, at): &(&str, &str)| serde_json::json!({ "name": name, "expires_at": at, "size": 1 });
        let models: Vec<_> = models.iter().map(entry).collect();
        serde_json::from_value(serde_json::json!({ "models": models })).unwrap()
    }

    #[test]
    fn only_a_model_listed_twice_with_one_expiry_was_settled() {
        let model = ModelName::parse("tiny").unwrap();
        let fixed = listed(&[("other:latest", "3"), ("Tiny:latest", "1")]);
        assert!(fixed.settled_since(&listed(&[("tiny:latest", "1")]), &model));
        for before in [
            listed(&[]),
            listed(&[("tiny:latest", "2")]),
            listed(&[("other:latest", "1")]),
            listed(&[("tiny:latest", "1"), ("tiny", "1")]),
        ] {
            assert!(!fixed.settled_since(&before, &model), "{before:?}");
            assert!(!before.settled_since(&fixed, &model), "{before:?}");
        }
    }
}
