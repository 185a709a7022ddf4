//! The words that each endpoint has for prompts and for counts.

use crate::proxy::inspect::Part;
use crate::proxy::route::Endpoint;

/// An endpoint that infers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `/api/chat`
    Chat,
    /// `/api/generate`
    Generate,
    /// `/api/embed`
    Embed,
    /// `/api/embeddings`
    Embeddings,
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    OpenAiEmbeddings,
    /// `/v1/responses`
    Responses,
    /// `/v1/messages`
    Messages,
}

/// How counts are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// `/api/*`: NDJSON; counts stand in the last line.
    Native,
    /// SSE; counts stand in the `usage` of the last chunk.
    OpenAi,
    /// SSE; counts stand in `response.completed`.
    Responses,
    /// SSE; counts stand in `message_delta`. Those of `message_start` are guesses.
    Anthropic,
}

impl Dialect {
    /// None for an endpoint that infers nothing.
    pub(super) fn of(endpoint: &Endpoint) -> Option<Self> {
        Some(match endpoint.path {
            "/api/chat" => Self::Chat,
            "/api/generate" => Self::Generate,
            "/api/embed" => Self::Embed,
            "/api/embeddings" => Self::Embeddings,
            "/v1/chat/completions" => Self::ChatCompletions,
            "/v1/completions" => Self::Completions,
            "/v1/embeddings" => Self::OpenAiEmbeddings,
            "/v1/responses" => Self::Responses,
            "/v1/messages" => Self::Messages,
            _ => return None,
        })
    }

    /// What of a body the model reads. What it does not read must not be learned from.
    pub(super) fn reads(self) -> &'static [Part] {
        match self {
            Self::Chat | Self::ChatCompletions => &[Part::Messages, Part::Tools],
            Self::Generate => {
                &[Part::Prompt, Part::System, Part::Suffix, Part::Template, Part::Images, Part::Context]
            }
            Self::Embed | Self::OpenAiEmbeddings => &[Part::Input],
            Self::Embeddings => &[Part::Prompt],
            Self::Completions => &[Part::Prompt, Part::Suffix],
            Self::Responses => &[Part::Input, Part::Instructions, Part::Tools],
            Self::Messages => &[Part::System, Part::Messages, Part::Tools],
        }
    }

    /// Whether numbers of the prompt are tokens already.
    pub(super) fn reads_tokens(self) -> bool {
        matches!(self, Self::Embed | Self::OpenAiEmbeddings | Self::Generate)
    }

    /// Whether it answers in vectors, not in tokens.
    pub(super) fn embeds(self) -> bool {
        matches!(self, Self::Embed | Self::Embeddings | Self::OpenAiEmbeddings)
    }

    /// Whether a body can say with which context the model is to run.
    pub(super) fn sets_context(self) -> bool {
        self.voice() == Voice::Native
    }

    /// Whether a stream tells its counts only to those who ask.
    pub(super) fn counts_on_demand(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }

    pub(super) fn voice(self) -> Voice {
        match self {
            Self::Chat | Self::Generate | Self::Embed | Self::Embeddings => Voice::Native,
            Self::ChatCompletions | Self::Completions | Self::OpenAiEmbeddings => Voice::OpenAi,
            Self::Responses => Voice::Responses,
            Self::Messages => Voice::Anthropic,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::proxy::route::{self, Action};

    #[test]
    fn every_endpoint_that_infers_has_a_dialect_and_no_other_has() {
        for (path, method) in [
            ("/api/chat", Method::POST),
            ("/api/generate", Method::POST),
            ("/api/embed", Method::POST),
            ("/api/embeddings", Method::POST),
            ("/v1/chat/completions", Method::POST),
            ("/v1/completions", Method::POST),
            ("/v1/embeddings", Method::POST),
            ("/v1/responses", Method::POST),
            ("/v1/messages", Method::POST),
            ("/api/show", Method::POST),
            ("/api/tags", Method::GET),
            ("/v1/models", Method::GET),
        ] {
            let uri = path.parse().unwrap();
            let endpoint = route::find(&method, &uri).unwrap().endpoint;
            assert_eq!(Dialect::of(endpoint).is_some(), endpoint.action == Action::Infer, "{path}");
        }
    }
}
