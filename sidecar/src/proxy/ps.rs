//! Asks Ollama which models are loaded, and until when each of them stays.
//!
//! `/api/ps` lists a runner that is still loading, too. But the expiry of a runner is fixed only when it first becomes
//! idle; until then each answer counts it anew, from its own moment. Requests do not move a fixed one, only the next
//! idleness does. So a model listed twice with the same expiry was loaded and settled all the time between.

use std::time::Duration;

use corral_limiter::ModelName;
use corral_wire::OffGpu;
use http::header::HOST;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::timeout;

use super::upstream::{Pieces, Upstream};

/// The longest that is waited for the answer: it takes a millisecond, or as long as Ollama loads. Asking again instead
/// would leave behind in Ollama whoever asked before.
const PATIENCE: Duration = Duration::from_secs(30);
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
    /// Of its manifest; empty where Ollama does not say.
    #[serde(default)]
    digest: String,
    /// In bytes; 0 where Ollama does not know it.
    #[serde(default)]
    size: u64,
    /// How much of it is on a GPU.
    #[serde(default)]
    size_vram: u64,
}

/// Asks once. None if there is no answer that can be read, in time.
pub(crate) async fn ask(upstream: &Upstream) -> Option<Listed> {
    timeout(PATIENCE, exchange(upstream)).await.ok().flatten()
}

async fn exchange(upstream: &Upstream) -> Option<Listed> {
    let mut request = Request::new(Pieces::default());
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

    /// Every model that is listed, by its normal name, with its digest, and until when it stays if nobody uses it; none
    /// if that cannot be read.
    pub(crate) fn models(&self) -> impl Iterator<Item = (ModelName, &str, Option<Timestamp>)> {
        self.models.iter().filter_map(|entry| {
            let name = ModelName::parse(&entry.name).ok()?;
            Some((name, entry.digest.as_str(), entry.expires_at.parse().ok()))
        })
    }

    /// The models that are not wholly on a GPU. A size of 0 says nothing.
    pub(crate) fn off_gpu(&self) -> Vec<OffGpu> {
        self.models.iter().filter_map(Entry::off_gpu).collect()
    }

    /// Whether a model was loaded and settled from an earlier moment until this one.
    pub(crate) fn settled_since(&self, earlier: &Self, model: &ModelName) -> bool {
        self.expiry(model).is_some_and(|expiry| earlier.expiry(model) == Some(expiry))
    }
}

/// The longest name that is told, in bytes.
const MAX_NAME: usize = 128;

impl Entry {
    fn off_gpu(&self) -> Option<OffGpu> {
        if self.size_vram >= self.size {
            return None;
        }
        let percent = u128::from(self.size_vram) * 100 / u128::from(self.size);
        let end = (0..=MAX_NAME).rev().find(|end| self.name.is_char_boundary(*end)).unwrap_or_default();
        let model = self.name.get(..end).unwrap_or(&self.name).to_owned();
        Some(OffGpu { model, gpu_percent: u8::try_from(percent).unwrap_or(99) })
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

    #[test]
    fn models_are_told_with_what_can_be_read_of_them() {
        let text = r#"{"models":[
            {"name":"Tiny","expires_at":"2026-11-21T21:37:29.077976503+01:00","digest":"abc"},
            {"name":"?","expires_at":"2026-11-21T21:37:29Z"},
            {"name":"b:1","expires_at":"never"}
        ]}"#;
        let listed: Listed = serde_json::from_str(text).unwrap();
        let models: Vec<_> =
            listed.models().map(|(name, digest, until)| (name.to_string(), digest, until)).collect();
        let until = "2026-11-21T20:37:29.077976503Z".parse().ok();
        assert_eq!(models, [("tiny:latest".to_owned(), "abc", until), ("b:1".to_owned(), "", None)]);
    }

    #[test]
    fn a_model_is_off_the_gpu_by_what_is_missing_there_if_its_size_is_known() {
        let told = |size: u64, size_vram: u64| {
            let text = serde_json::json!({ "models": [
                { "name": "tiny:latest", "expires_at": "1", "size": size, "size_vram": size_vram },
            ] });
            let listed: Listed = serde_json::from_value(text).unwrap();
            listed.off_gpu().first().map(|off| off.gpu_percent)
        };
        for (size, vram, percent) in [
            (0, 0, None),
            (100, 100, None),
            (100, 101, None),
            (100, 99, Some(99)),
            (1000, 999, Some(99)),
            (1000, 0, Some(0)),
            (u64::MAX, u64::MAX / 2, Some(49)),
        ] {
            assert_eq!(told(size, vram), percent, "{vram} of {size}");
        }
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        let cut = |name: &str| {
            let entry = serde_json::json!({ "name": name, "expires_at": "1", "size": 2 });
            serde_json::from_value::<Entry>(entry).unwrap().off_gpu().unwrap().model
        };
        assert_eq!(cut("tiny"), "tiny");
        assert_eq!(cut(&"x".repeat(200)), "x".repeat(128));
        assert_eq!(cut(&"\u{20ac}".repeat(100)), "\u{20ac}".repeat(42));
    }
}
