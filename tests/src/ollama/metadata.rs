//! What a scripted Ollama says about itself and its models.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::name;
use super::sched::Listed;
use super::settings::{ModelSpec, Settings};
use super::voice::{json, rfc3339_in};

#[derive(Serialize)]
struct Models<T> {
    models: Vec<T>,
}

#[derive(Serialize)]
struct Tag {
    name: String,
    model: String,
    modified_at: String,
    size: u64,
    digest: String,
    details: Details,
}

#[derive(Serialize)]
struct Loaded {
    name: String,
    model: String,
    size: u64,
    digest: String,
    details: Details,
    expires_at: String,
    size_vram: u64,
    context_length: i64,
}

#[derive(Serialize)]
struct Details {
    parent_model: &'static str,
    format: &'static str,
    family: &'static str,
    families: [&'static str; 1],
    parameter_size: &'static str,
    quantization_level: &'static str,
}

#[derive(Serialize)]
struct ModelList {
    object: &'static str,
    data: Vec<ModelItem>,
}

#[derive(Serialize)]
struct ModelItem {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
}

#[derive(Serialize)]
struct Shown {
    template: &'static str,
    details: Details,
    capabilities: Vec<&'static str>,
    modified_at: String,
}

fn details(model: &ModelSpec) -> Details {
    let family = model.family;
    Details {
        parent_model: "",
        format: "gguf",
        family,
        families: [family],
        parameter_size: "tiny",
        quantization_level: "F16",
    }
}

fn digest(model: &ModelSpec) -> String {
    let sum: u64 = model.name.bytes().map(u64::from).sum();
    format!("{sum:064x}")
}

/// `/api/tags`
pub(crate) fn tags(settings: &Settings) -> Bytes {
    let tag = |model: &ModelSpec| Tag {
        name: name::short(&model.name),
        model: name::short(&model.name),
        modified_at: rfc3339_in(SignedDuration::ZERO),
        size: 740_000,
        digest: digest(model),
        details: details(model),
    };
    json(&Models { models: settings.models.iter().map(tag).collect() }).into()
}

/// How long an idle runner stays.
const KEEP_ALIVE: SignedDuration = SignedDuration::from_mins(5);

/// `/api/ps`. The expiry of a runner that was never idle is counted anew each time.
pub(crate) fn ps(settings: &Settings, listed: &[Listed]) -> Bytes {
    let entry = |(model, idle_since): (&ModelSpec, Option<Timestamp>)| Loaded {
        name: name::short(&model.name),
        model: name::short(&model.name),
        size: 0,
        digest: digest(model),
        details: details(model),
        expires_at: (idle_since.unwrap_or_else(Timestamp::now) + KEEP_ALIVE).to_string(),
        size_vram: 0,
        context_length: settings.context_length,
    };
    let running = settings.models.iter().filter_map(|model| {
        let one = listed.iter().find(|one| one.model == model.name)?;
        Some((model, one.idle_since))
    });
    json(&Models { models: running.map(entry).collect() }).into()
}

/// `/v1/models`
pub(crate) fn models(settings: &Settings) -> Bytes {
    let data = settings.models.iter().map(|model| item(&name::short(&model.name))).collect();
    let mut body = json(&ModelList { object: "list", data });
    body.push(b'\n');
    body.into()
}

/// `/v1/models/{name}`
pub(crate) fn model(spelling: &str) -> Bytes {
    let mut body = json(&item(spelling));
    body.push(b'\n');
    body.into()
}

fn item(id: &str) -> ModelItem {
    ModelItem { id: id.to_owned(), object: "model", created: 1_795_296_527, owned_by: "library" }
}

/// `/api/show`
pub(crate) fn show(model: &ModelSpec) -> Bytes {
    let capability = if model.embeds { "embedding" } else { "completion" };
    let body = Shown {
        template: "{{ .Prompt }}",
        details: details(model),
        capabilities: vec![capability],
        modified_at: rfc3339_in(SignedDuration::ZERO),
    };
    json(&body).into()
}
