//! What a request asks for: read from its body as Ollama reads it, and checked in Ollama's order.

use http::StatusCode;

use super::go_fields::Fields;
use super::go_json::GoValue;
use super::name::{self, Named};
use super::route::Endpoint;
use super::sched::RunnerOptions;
use super::settings::{ModelSpec, Settings};

/// Options that a running model cannot change: another value loads it anew.
const RUNNER_OPTIONS: [&str; 7] =
    ["num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"];

/// One inference.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) endpoint: Endpoint,
    /// The client's spelling, which answers echo.
    pub(crate) spelling: String,
    pub(crate) model: ModelSpec,
    pub(crate) options: RunnerOptions,
    pub(crate) stream: bool,
    pub(crate) work: Work,
}

/// What is to be done once a slot is held.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// No prompt: only load the model.
    Load,
    /// No prompt and `keep_alive` 0: unload it.
    Unload,
    /// Embed so many inputs.
    Embed { inputs: usize, base64: bool, prompt_tokens: i64 },
    /// Say so many tokens at most.
    Say { bound: Option<i64>, most: i64, prompt_tokens: i64, usage: bool },
}

/// Why a request is not worked on.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// Said before the family's middleware takes over: other content type, no closing line feed.
    pub(crate) early: bool,
    pub(crate) stream: bool,
}

impl Refusal {
    pub(crate) fn late(status: StatusCode, message: impl Into<String>, stream: bool) -> Self {
        Self { status, message: message.into(), early: false, stream }
    }

    fn early(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), early: true, stream: false }
    }
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self::early(message)
    }
}

/// Reads and checks a body.
pub(crate) fn read(endpoint: Endpoint, body: &[u8], settings: &Settings) -> Result<Job, Refusal> {
    let (package, type_name) = request_type(endpoint);
    let fields = Fields::read(body, package, type_name)?;
    let spelling = fields.text("model")?;
    let native = matches!(endpoint, Endpoint::Generate | Endpoint::Chat);
    let stream = fields.switch("stream")?.unwrap_or(native) && !embeds(endpoint);
    let (options, context) = runner_options(&fields, settings)?;
    let work = match endpoint {
        Endpoint::Embed | Endpoint::Embeddings | Endpoint::OpenAiEmbeddings => embedding(endpoint, &fields)?,
        _ => saying(endpoint, &fields, context)?,
    };
    let model = known_model(endpoint, &spelling, settings, stream)?;
    fits_model(&work, endpoint, &fields, &model, stream)?;
    let work = within_context(work, &fields, context, stream)?;
    Ok(Job { endpoint, spelling, model, options, stream, work })
}

fn embeds(endpoint: Endpoint) -> bool {
    matches!(endpoint, Endpoint::Embed | Endpoint::Embeddings | Endpoint::OpenAiEmbeddings)
}

fn request_type(endpoint: Endpoint) -> (&'static str, &'static str) {
    match endpoint {
        Endpoint::Chat => ("api", "ChatRequest"),
        Endpoint::ChatCompletions => ("openai", "ChatCompletionRequest"),
        Endpoint::Completions => ("openai", "CompletionRequest"),
        Endpoint::Messages => ("anthropic", "MessagesRequest"),
        Endpoint::Responses => ("openai", "ResponsesRequest"),
        Endpoint::Embed => ("api", "EmbedRequest"),
        Endpoint::Embeddings => ("api", "EmbeddingRequest"),
        Endpoint::OpenAiEmbeddings => ("openai", "EmbedRequest"),
        _ => ("api", "GenerateRequest"),
    }
}

/// The options that make a runner, and the context that follows from them.
fn runner_options(fields: &Fields, settings: &Settings) -> Result<(RunnerOptions, i64), Refusal> {
    let mut options = RunnerOptions::new();
    let mut context = settings.context_length;
    for (key, value) in fields.map("options")? {
        let Some(name) = RUNNER_OPTIONS.iter().find(|name| **name == key) else { continue };
        options.retain(|(known, _)| known != name);
        options.push((name, format!("{value:?}")));
    }
    if let Some(wanted) = fields.option("num_ctx")? {
        context = wanted.max(1);
        if wanted == settings.context_length {
            options.retain(|(name, _)| *name != "num_ctx");
        }
    }
    if fields.switch("shift")? == Some(false) {
        options.push(("shift", "false".to_owned()));
    }
    options.sort();
    Ok((options, context))
}

fn embedding(endpoint: Endpoint, fields: &Fields) -> Result<Work, Refusal> {
    let format = fields.text("encoding_format")?;
    if !matches!(format.as_str(), "" | "float" | "base64") {
        return Err(Refusal::early(format!(
            "Invalid value for 'encoding_format' = {format}. Supported values: ['float', 'base64']."
        )));
    }
    let field = if endpoint == Endpoint::Embeddings { "prompt" } else { "input" };
    let input = fields.any(field);
    let inputs = match input {
        Some(GoValue::Array(items)) => items.len(),
        Some(_) => 1,
        None => 0,
    };
    Ok(Work::Embed { inputs, base64: format == "base64", prompt_tokens: guess_tokens(input) })
}

fn saying(endpoint: Endpoint, fields: &Fields, context: i64) -> Result<Work, Refusal> {
    let prompt = match endpoint {
        Endpoint::Generate | Endpoint::Completions => {
            fields.text("prompt")?;
            fields.any("prompt")
        }
        Endpoint::Responses => fields.any("input"),
        _ => fields.any("messages"),
    };
    let empty = prompt.is_none_or(|value| matches!(value, GoValue::Array(items) if items.is_empty()))
        || matches!(prompt, Some(GoValue::String(text)) if text.is_empty());
    if empty && matches!(endpoint, Endpoint::Generate | Endpoint::Chat) {
        let unload = matches!(fields.any("keep_alive"), Some(GoValue::Number(zero)) if zero == "0");
        return Ok(if unload { Work::Unload } else { Work::Load });
    }
    let bound = output_bound(endpoint, fields)?;
    let usage = match fields.any("stream_options") {
        Some(GoValue::Object(pairs)) => {
            pairs.iter().any(|(key, value)| key == "include_usage" && *value == GoValue::Bool(true))
        }
        _ => false,
    };
    let open = context.saturating_mul(10);
    let most = bound.filter(|wanted| *wanted > 0).map_or(open, |wanted| wanted.min(open));
    Ok(Work::Say { bound, most, prompt_tokens: 12 + guess_tokens(prompt), usage })
}

fn output_bound(endpoint: Endpoint, fields: &Fields) -> Result<Option<i64>, Refusal> {
    match endpoint {
        Endpoint::Generate | Endpoint::Chat => Ok(fields.option("num_predict")?),
        Endpoint::Responses => Ok(fields.whole("max_output_tokens")?),
        Endpoint::Messages => {
            let bound = fields.whole("max_tokens")?.filter(|bound| *bound > 0);
            bound.map(Some).ok_or_else(|| Refusal::early("max_tokens is required and must be positive"))
        }
        // `max_completion_tokens` is ignored, as the real one ignores it.
        _ => Ok(fields.whole("max_tokens")?),
    }
}

fn guess_tokens(prompt: Option<&GoValue>) -> i64 {
    let letters = prompt.map_or(0, GoValue::text_len);
    i64::try_from(letters.div_ceil(5)).unwrap_or(i64::MAX)
}

fn known_model(
    endpoint: Endpoint,
    spelling: &str,
    settings: &Settings,
    stream: bool,
) -> Result<ModelSpec, Refusal> {
    let late = |status, message: String| Err(Refusal::late(status, message, stream));
    let missing = match endpoint {
        Endpoint::Embed | Endpoint::Embeddings | Endpoint::OpenAiEmbeddings => {
            format!("model \"{spelling}\" not found, try pulling it first")
        }
        _ => format!("model '{spelling}' not found"),
    };
    let normal = match name::read(spelling) {
        Named::Model(normal) => normal,
        Named::Nothing => return late(StatusCode::NOT_FOUND, missing),
        Named::Invalid => return late(StatusCode::BAD_REQUEST, "invalid model name".to_owned()),
        Named::Cloud => {
            let message = "ollama cloud is disabled: remote model is unavailable".to_owned();
            return late(StatusCode::FORBIDDEN, message);
        }
    };
    let minds_case = endpoint == Endpoint::Embeddings;
    let found = settings
        .models
        .iter()
        .find(|model| model.name == normal && (!minds_case || spelling.contains(model.written.as_str())));
    found.cloned().map_or_else(|| late(StatusCode::NOT_FOUND, missing), Ok)
}

/// Whether the model can do what is asked.
fn fits_model(
    work: &Work,
    endpoint: Endpoint,
    fields: &Fields,
    model: &ModelSpec,
    stream: bool,
) -> Result<(), Refusal> {
    let late = |status, message: String| Err(Refusal::late(status, message, stream));
    let short = name::short(&model.name);
    let bare = short.strip_suffix(":latest").unwrap_or(&short);
    // Only a runner can say that it embeds nothing, and without input it is not asked.
    let has_input = !matches!(work, Work::Embed { inputs: 0, .. });
    if embeds(endpoint) && !model.embeds && has_input {
        let message = "This server does not support embeddings. Start it with `--embeddings`";
        return late(StatusCode::NOT_IMPLEMENTED, message.to_owned());
    }
    if !embeds(endpoint) && model.embeds {
        let verb = if endpoint == Endpoint::Generate { "generate" } else { "chat" };
        return late(StatusCode::BAD_REQUEST, format!("\"{bare}\" does not support {verb}"));
    }
    if matches!(fields.any("think"), Some(GoValue::Bool(true))) {
        return late(StatusCode::BAD_REQUEST, format!("\"{bare}\" does not support thinking"));
    }
    if matches!(fields.any("tools"), Some(GoValue::Array(tools)) if !tools.is_empty()) {
        return late(StatusCode::BAD_REQUEST, format!("{} does not support tools", model.name));
    }
    if matches!(fields.any("keep_alive"), Some(GoValue::String(text)) if !text.starts_with(|first: char| first.is_ascii_digit() || first == '-'))
    {
        return late(StatusCode::BAD_REQUEST, "time: invalid duration".to_owned());
    }
    Ok(())
}

/// A prompt longer than the context loses its front half, unless the client forbids it.
fn within_context(work: Work, fields: &Fields, context: i64, stream: bool) -> Result<Work, Refusal> {
    match work {
        Work::Say { bound, most, prompt_tokens, usage } if prompt_tokens > context => {
            if fields.switch("truncate")? == Some(false) {
                let message = format!(
                    "{{\"error\":{{\"code\":400,\"message\":\"request ({prompt_tokens} tokens) exceeds the available context size ({context} tokens), try increasing it\",\"type\":\"exceed_context_size_error\",\"n_prompt_tokens\":{prompt_tokens},\"n_ctx\":{context}}}}}"
                );
                return Err(Refusal::late(StatusCode::BAD_REQUEST, message, stream));
            }
            Ok(Work::Say { bound, most, prompt_tokens: context / 2 + 2, usage })
        }
        other => Ok(other),
    }
}

/// The model that `/api/show` is asked about, by `model` or the older `name`.
pub(crate) fn named(body: &[u8], settings: &Settings) -> Result<ModelSpec, Refusal> {
    let fields = Fields::read(body, "api", "ShowRequest")?;
    let model = fields.text("model")?;
    let spelling = if model.is_empty() { fields.text("name")? } else { model };
    known_model(Endpoint::Show, &spelling, settings, false)
}

/// The model that `/v1/models/{name}` names; a missing one is named with its tag.
pub(crate) fn listed(spelling: &str, settings: &Settings) -> Result<ModelSpec, Refusal> {
    known_model(Endpoint::Model, spelling, settings, false).map_err(|refusal| match name::read(spelling) {
        Named::Model(normal) if refusal.status == StatusCode::NOT_FOUND => {
            Refusal { message: format!("model '{}' not found", name::short(&normal)), ..refusal }
        }
        _ => refusal,
    })
}
