//! What a scanned body says: the outermost members that are looked at, and what becomes of each.

use std::borrow::Cow;

use super::knobs::{Knobs, Raw};
use super::prompt::{Gauge, Part, Prompt};
use super::scan::BadJson;
use super::shape::Tuning;
use super::text;

/// What the outermost object says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts<'a> {
    /// The string under `model`; none if it is absent or null.
    pub(crate) model: Option<Cow<'a, str>>,
    /// The string under `name`, by which `/api/show` also knows a model.
    pub(crate) name: Option<Cow<'a, str>>,
    /// The boolean under `stream`; none if it is absent or null.
    pub(crate) stream: Option<bool>,
    /// What is asked of the runner.
    pub(crate) tuning: Tuning<'a>,
    /// How much there is for the model to read.
    pub(crate) prompt: Prompt,
    /// What is asked of the answer.
    pub(crate) knobs: Knobs<'a>,
}

/// What the outermost keys mean that are looked at.
#[derive(Clone, Copy)]
pub(super) enum Field {
    Model,
    Name,
    Stream,
    Shift,
    Options,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    KeepAlive,
    Read(Part),
}

const FIELDS: [(&str, Field); 20] = [
    ("model", Field::Model),
    ("name", Field::Name),
    ("stream", Field::Stream),
    ("shift", Field::Shift),
    ("options", Field::Options),
    ("stream_options", Field::StreamOptions),
    ("max_tokens", Field::MaxTokens),
    ("max_completion_tokens", Field::MaxCompletionTokens),
    ("max_output_tokens", Field::MaxOutputTokens),
    ("keep_alive", Field::KeepAlive),
    ("messages", Field::Read(Part::Messages)),
    ("prompt", Field::Read(Part::Prompt)),
    ("input", Field::Read(Part::Input)),
    ("system", Field::Read(Part::System)),
    ("instructions", Field::Read(Part::Instructions)),
    ("suffix", Field::Read(Part::Suffix)),
    ("template", Field::Read(Part::Template)),
    ("tools", Field::Read(Part::Tools)),
    ("images", Field::Read(Part::Images)),
    ("context", Field::Read(Part::Context)),
];

impl Field {
    /// What a key means as Go matches it; none for one that nobody looks at.
    pub(super) fn of(key: &str) -> Option<Self> {
        FIELDS.iter().find(|(name, _)| text::folds_to(key, name)).map(|(_, field)| *field)
    }
}

impl<'a> Facts<'a> {
    /// One member of `options`.
    pub(super) fn option(&mut self, key: &str, raw: &'a str) {
        self.tuning.option(key, raw);
        if text::unescape(key) == "num_predict" {
            self.knobs.num_predict = Some(raw).filter(|raw| *raw != "null");
        }
    }

    /// One member of `stream_options`; Go leaves a field as it is at null.
    pub(super) fn stream_option(&mut self, key: &str, raw: &str) {
        if text::folds_to(key, "include_usage") && raw != "null" {
            self.knobs.include_usage = raw == "true";
        }
    }

    /// An outermost value that the model reads.
    pub(super) fn read(&mut self, part: Part, raw: Raw<'a>, gauge: &Gauge) {
        let mut size = gauge.size();
        if part.is_shown_as_json() && raw.text != "null" {
            size.text = raw.text.len() as u64;
        }
        if part == Part::Input {
            self.knobs.input = Some(raw);
        }
        self.prompt.set(part, size);
    }

    /// Any other outermost value.
    pub(super) fn take(&mut self, field: Field, raw: Raw<'a>) -> Result<(), BadJson> {
        match field {
            Field::Model => self.model = string_of("model", raw.text)?,
            Field::Name => self.name = string_of("name", raw.text)?,
            Field::Stream => self.stream = boolean_of("stream", raw.text)?,
            Field::Shift => self.tuning.shift(raw.text),
            Field::MaxTokens => self.knobs.max_tokens = Some(raw),
            Field::MaxCompletionTokens => self.knobs.max_completion_tokens = Some(raw),
            Field::MaxOutputTokens => self.knobs.max_output_tokens = Some(raw),
            Field::KeepAlive => self.knobs.keep_alive = Some(raw),
            Field::Options | Field::StreamOptions | Field::Read(_) => {}
        }
        Ok(())
    }
}

fn string_of<'a>(key: &'static str, raw: &'a str) -> Result<Option<Cow<'a, str>>, BadJson> {
    if raw == "null" {
        return Ok(None);
    }
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.map(|inner| Some(text::unescape(inner))).ok_or(BadJson::WrongType { key, wanted: "a string" })
}

fn boolean_of(key: &'static str, raw: &str) -> Result<Option<bool>, BadJson> {
    match raw {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        "null" => Ok(None),
        _ => Err(BadJson::WrongType { key, wanted: "true or false" }),
    }
}
