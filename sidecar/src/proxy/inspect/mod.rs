//! Reads a request body whole, within its bounds, and says which model it asks for.
//!
//! Nothing goes on before the whole body is valid: Ollama is never shown a body that ends in the middle, and what it
//! gets are the same bytes that were read here.

mod budget;
mod facts;
mod inputs;
mod knobs;
mod prompt;
mod scan;
mod shape;
mod text;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use corral_limiter::{BadModelName, ModelName};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

pub(crate) use budget::{BodyBudget, Held};
pub(crate) use inputs::{Inputs, Stretch};
pub(crate) use knobs::{Knobs, Raw, Room};
pub(crate) use prompt::{Part, Prompt, Size};
pub(crate) use scan::{BadJson, items, members};
pub(crate) use shape::{Reads, Shape, Tuning};

use super::ProxySettings;
use super::route::Action;

/// A sender slower than this, after [`ProxySettings::stall_timeout`], is not worth waiting for.
const MIN_BYTES_PER_SECOND: u64 = 1024;

/// Why a body is not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("the request body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the request body came too slowly")]
    TooSlow,
    #[error("the request body is malformed or was cut short")]
    Broken,
    #[error(
        "The requests that this pod holds at this moment leave no room for the body of this one. Send less at one time. \
         Retry in about 1s."
    )]
    NoRoom,
}

/// What is wrong with the model that a body names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ModelFault {
    #[error("model is required")]
    Missing,
    #[error(transparent)]
    Name(#[from] BadModelName),
    #[error("models of Ollama's cloud are not served by this pool")]
    Cloud,
}

/// Why a whole body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadBody {
    #[error(transparent)]
    Json(#[from] BadJson),
    #[error(transparent)]
    Model(#[from] ModelFault),
}

/// What a body asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    pub(crate) model: ModelName,
    /// What it says about streaming, if it does.
    pub(crate) stream: Option<bool>,
    /// What it asks of the runner.
    pub(crate) tuning: Tuning<'a>,
    /// How much the model has to read.
    pub(crate) prompt: Prompt,
    /// What it asks of the answer.
    pub(crate) knobs: Knobs<'a>,
}

/// Reads a body into memory. The budget is held for as long as the result lives.
pub(crate) async fn read<B>(
    mut body: B,
    budget: &BodyBudget,
    settings: &ProxySettings,
) -> Result<Held, BodyFault>
where
    B: Body<Data = Bytes> + Unpin,
{
    let limit = settings.max_body_bytes;
    let too_large = BodyFault::TooLarge { limit };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(too_large);
    }
    let mut held = budget.open();
    let mut bytes = BytesMut::new();
    let start = Instant::now();
    while let Some(frame) = timeout_at(deadline(start, bytes.len(), settings), body.frame())
        .await
        .map_err(|_| BodyFault::TooSlow)?
    {
        let Ok(data) = frame.map_err(|_| BodyFault::Broken)?.into_data() else {
            continue;
        };
        let total = bytes.len().saturating_add(data.len());
        if total > limit {
            return Err(too_large);
        }
        held.grow_to(total).ok_or(BodyFault::NoRoom)?;
        append(&mut bytes, data, announced);
    }
    held.fill(bytes.freeze());
    Ok(held)
}

/// The most room made for a body before it has come: what it announces costs its sender nothing.
const MAX_ROOM_AHEAD: usize = 256 * 1024;

/// A body that comes in one piece is not copied.
fn append(bytes: &mut BytesMut, data: Bytes, announced: usize) {
    if bytes.is_empty() && data.len() == announced {
        *bytes = data.into();
        return;
    }
    let ahead = announced.saturating_sub(bytes.len()).min(MAX_ROOM_AHEAD);
    bytes.reserve(ahead.max(data.len()));
    bytes.extend_from_slice(&data);
}

/// By when the next piece must come: a stall's length, plus what the bytes so far have earned, within the whole.
pub(crate) fn deadline(start: Instant, received: usize, settings: &ProxySettings) -> Instant {
    let earned = Duration::from_millis(received as u64 * 1000 / MIN_BYTES_PER_SECOND);
    start + (settings.stall_timeout + earned).min(settings.body_timeout)
}

/// Scans a whole body for what an endpoint asks of it.
pub(crate) fn scan_body(body: &[u8], action: Action) -> Result<Asked<'_>, BadBody> {
    let facts = scan::scan(body)?;
    let model = facts.model.filter(|model| !model.is_empty());
    let model = if action == Action::Show { model.or(facts.name) } else { model };
    let model = parse_model(&model.ok_or(ModelFault::Missing)?)?;
    let facts::Facts { stream, tuning, prompt, knobs, .. } = facts;
    Ok(Asked { model, stream, tuning, prompt, knobs })
}

/// The shape that a body asks for, read as an endpoint reads it.
#[cfg(test)]
pub(crate) fn shape_of(body: &str, reads: Reads) -> Shape {
    scan::scan(body.as_bytes()).unwrap_or_default().tuning.shape(reads)
}

/// What a body asks of its answer.
#[cfg(test)]
pub(crate) fn knobs_of(body: &str) -> Knobs<'_> {
    scan::scan(body.as_bytes()).unwrap_or_default().knobs
}

/// The normal form of a model that this pool may run.
pub(crate) fn parse_model(raw: &str) -> Result<ModelName, ModelFault> {
    let model = ModelName::parse(raw).map_err(|error| match error {
        BadModelName::Empty => ModelFault::Missing,
        other => ModelFault::Name(other),
    })?;
    if model.is_cloud() { Err(ModelFault::Cloud) } else { Ok(model) }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    fn settings() -> ProxySettings {
        let mut settings = ProxySettings::new(([127, 0, 0, 1], 1).into());
        settings.max_body_bytes = 100;
        settings
    }

    fn pieces(count: usize, every: Duration) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin {
        let stream = futures::stream::unfold(0, move |sent| async move {
            tokio::time::sleep(every).await;
            (sent < count).then(|| (Ok(Frame::data(Bytes::from_static(b"0123456789"))), sent + 1))
        });
        StreamBody::new(Box::pin(stream))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_up_to_the_bound_is_read_and_its_budget_comes_back() {
        let budget = BodyBudget::new(150);
        let held = read(pieces(10, Duration::ZERO), &budget, &settings()).await.unwrap();
        assert_eq!((held.bytes().len(), budget.free()), (100, 50));
        assert_eq!(read(Full::from(vec![0; 60]), &budget, &settings()).await.unwrap_err(), BodyFault::NoRoom);
        drop(held);
        assert_eq!(budget.free(), 150);
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_more_is_too_large_announced_or_not() {
        let budget = BodyBudget::new(1000);
        let too_large = BodyFault::TooLarge { limit: 100 };
        assert_eq!(read(Full::from(vec![0; 101]), &budget, &settings()).await.unwrap_err(), too_large);
        assert_eq!(read(pieces(11, Duration::ZERO), &budget, &settings()).await.unwrap_err(), too_large);
        assert_eq!(budget.free(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_or_trickles_is_given_up() {
        let budget = BodyBudget::new(1000);
        for every in [Duration::from_hours(1), Duration::from_secs(10)] {
            let started = Instant::now();
            assert_eq!(read(pieces(10, every), &budget, &settings()).await.unwrap_err(), BodyFault::TooSlow);
            assert!(Instant::now() - started < Duration::from_secs(32));
        }
        assert_eq!(budget.free(), 1000);
    }

    #[test]
    fn every_spelling_of_a_model_is_one_and_no_cloud_model_passes() {
        for name in [
            "tiny",
            " TINY ",
            "library/tiny",
            "tiny:LATEST",
            "tiny:local",
            "http://registry.ollama.ai/library/tiny",
        ] {
            let body = format!(r#"{{"model":"{name}"}}"#);
            assert_eq!(
                scan_body(body.as_bytes(), Action::Infer).unwrap().model.as_str(),
                "tiny:latest",
                "{name}"
            );
        }
        for name in ["x:cloud", "x:7b-cloud"] {
            let body = format!(r#"{{"model":"{name}"}}"#);
            assert_eq!(scan_body(body.as_bytes(), Action::Infer), Err(ModelFault::Cloud.into()), "{name}");
        }
        for name in ["../../etc", "a/b/c/d/e", "@sha256:00", "!x!", "x:cloud:local"] {
            let body = format!(r#"{{"model":"{name}"}}"#);
            assert!(
                matches!(scan_body(body.as_bytes(), Action::Infer), Err(BadBody::Model(ModelFault::Name(_)))),
                "{name}"
            );
        }
        for body in ["{}", r#"{"model":""}"#, r#"{"model":null}"#, r#"{"model":"  "}"#, r#"{"name":"tiny"}"#]
        {
            assert_eq!(scan_body(body.as_bytes(), Action::Infer), Err(ModelFault::Missing.into()), "{body}");
        }
    }

    #[test]
    fn show_knows_a_model_by_either_key() {
        for body in [
            r#"{"name":"tiny"}"#,
            r#"{"model":"tiny"}"#,
            r#"{"model":"","name":"tiny"}"#,
            r#"{"model":"tiny","name":"x"}"#,
        ] {
            assert_eq!(
                scan_body(body.as_bytes(), Action::Show).unwrap().model.as_str(),
                "tiny:latest",
                "{body}"
            );
        }
    }
}
