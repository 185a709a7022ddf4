//! Reads Ollama's own counts from an answer as it goes by, and counts chunks for when there are none.
//!
//! A chunk with content is about one token: Ollama flushes each, though its parsers of thoughts and of tool calls may keep
//! some back and tell them at once.

use std::time::Duration;

use super::dialect::{Dialect, Voice};
use super::walk::{Framing, Listener, Name, Walker};
use crate::proxy::models::Times;

/// Follows one answer.
#[derive(Debug)]
pub(super) struct Meter {
    walker: Walker,
    heard: Heard,
}

/// What an answer has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    voice: Voice,
    /// The value at hand has content.
    speaks: bool,
    /// Values with content.
    pub(super) chunks: u64,
    /// Tokens of the prompt, by Ollama's count.
    pub(super) input: Option<u64>,
    /// Tokens of the answer, by Ollama's count.
    pub(super) output: Option<u64>,
    /// Tokens of the prompt that Ollama had in its cache.
    pub(super) cached: u64,
    /// Nanoseconds for which Ollama read the prompt, and for which it made the answer; only its own API tells.
    pub(super) read_in: Option<u64>,
    pub(super) made_in: Option<u64>,
    /// Nanoseconds that all of it took, and until there was a runner; told with those.
    pub(super) took_in_all: Option<u64>,
    pub(super) loaded_in: Option<u64>,
    /// It told of an error.
    pub(super) failed: bool,
}

impl Meter {
    /// Of an answer that is a stream, or not.
    pub(super) fn new(dialect: Dialect, stream: bool) -> Self {
        let voice = dialect.voice();
        let framing = match (stream, voice) {
            (false, _) => Framing::Whole,
            (true, Voice::Native) => Framing::Lines,
            (true, _) => Framing::Events,
        };
        let heard = Heard {
            voice,
            speaks: false,
            chunks: 0,
            input: None,
            output: None,
            cached: 0,
            read_in: None,
            made_in: None,
            took_in_all: None,
            loaded_in: None,
            failed: false,
        };
        Self { walker: Walker::new(framing), heard }
    }

    /// Bytes go by.
    pub(super) fn see(&mut self, data: &[u8]) {
        self.walker.walk(data, &mut self.heard);
    }

    pub(super) fn heard(&self) -> &Heard {
        &self.heard
    }
}

impl Heard {
    /// Tokens of the answer so far.
    pub(super) fn so_far(&self) -> u64 {
        self.output.unwrap_or(self.chunks)
    }

    /// It told Ollama's own counts.
    pub(super) fn has_counts(&self) -> bool {
        self.input.is_some() || self.output.is_some()
    }

    /// How long it took, and what of that was spent on what. None if that was not told, or not of all.
    pub(super) fn times(&self) -> Option<Times> {
        let all = Duration::from_nanos(self.took_in_all?);
        let work = Duration::from_nanos(self.made_in?.saturating_add(self.read_in.unwrap_or(0)));
        Some(Times { total: all, load: Duration::from_nanos(self.loaded_in.unwrap_or(0)), work })
    }

    /// Nothing has come of it yet.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks == 0 && !self.has_counts()
    }
}

impl Listener for Heard {
    fn something(&mut self, path: &[Name]) {
        self.speaks |= is_content(self.voice, path);
        self.failed |= path == [Name::Error];
    }

    /// The last count that is not zero holds: chunks of `/v1/completions` all carry zeros but the last.
    fn number(&mut self, path: &[Name], number: u64) {
        let Some(count) = count_at(self.voice, path).filter(|_| number > 0) else {
            return;
        };
        match count {
            Count::Input => self.input = Some(number),
            Count::Output => self.output = Some(number),
            Count::Cached => self.cached = number,
            Count::ReadIn => self.read_in = Some(number),
            Count::MadeIn => self.made_in = Some(number),
            Count::TookInAll => self.took_in_all = Some(number),
            Count::LoadedIn => self.loaded_in = Some(number),
        }
    }

    fn over(&mut self) {
        self.chunks += u64::from(std::mem::take(&mut self.speaks));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Input,
    Output,
    Cached,
    ReadIn,
    MadeIn,
    TookInAll,
    LoadedIn,
}

/// Whether what stands there is a part of the answer: words, thoughts, or a call of a tool.
fn is_content(voice: Voice, path: &[Name]) -> bool {
    use Name::{
        Choices, Content, Delta, Item, Message, PartialJson, Reasoning, Response, Text, Thinking, ToolCalls,
    };
    match voice {
        Voice::Native => matches!(
            path,
            [Response | Thinking]
                | [Message, Content | Thinking]
                | [ToolCalls, Item]
                | [Message, ToolCalls, Item]
        ),
        Voice::OpenAi => matches!(
            path,
            [Choices, Item, Text]
                | [Choices, Item, Delta | Message, Content | Reasoning | Thinking]
                | [Choices, Item, Delta | Message, ToolCalls, Item]
        ),
        Voice::Responses => matches!(path, [Delta]),
        Voice::Anthropic => {
            matches!(path, [Delta, Text | Thinking | PartialJson] | [Content, Item, Text | Thinking])
        }
    }
}

/// Which count stands there.
fn count_at(voice: Voice, path: &[Name]) -> Option<Count> {
    use Name::{
        Cached, CachedPrompt, Completion, Evaluated, EvaluatedIn, Input, InputDetails, LoadedIn, Output,
        Prompt, PromptDetails, PromptEvaluated, PromptEvaluatedIn, Response, TookInAll, Usage,
    };
    match (voice, path) {
        (Voice::Native, [PromptEvaluated])
        | (Voice::OpenAi, [Usage, Prompt])
        | (Voice::Anthropic, [Usage, Input])
        | (Voice::Responses, [Usage, Input] | [Response, Usage, Input]) => Some(Count::Input),
        (Voice::Native, [Evaluated])
        | (Voice::OpenAi, [Usage, Completion])
        | (Voice::Anthropic, [Usage, Output])
        | (Voice::Responses, [Usage, Output] | [Response, Usage, Output]) => Some(Count::Output),
        (Voice::Native, [PromptEvaluatedIn]) => Some(Count::ReadIn),
        (Voice::Native, [EvaluatedIn]) => Some(Count::MadeIn),
        (Voice::Native, [TookInAll]) => Some(Count::TookInAll),
        (Voice::Native, [LoadedIn]) => Some(Count::LoadedIn),
        (Voice::Native, [CachedPrompt])
        | (Voice::OpenAi, [Usage, PromptDetails, Cached])
        | (Voice::Responses, [Usage, InputDetails, Cached] | [Response, Usage, InputDetails, Cached]) => {
            Some(Count::Cached)
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
