//! The members of a body that say how long an answer may be and how it is told, and where they stand, so that one of them
//! can be changed without touching another byte.

/// A value, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw<'a> {
    /// Where it begins, in bytes.
    pub(crate) at: usize,
    /// As it is written.
    pub(crate) text: &'a str,
}

/// A member that is an object, where another member can be put.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is none.
    #[default]
    Absent,
    /// `null`, which begins there.
    Null { at: usize },
    /// An object.
    Object { close: usize, empty: bool },
    /// Something that is no object: Ollama refuses it.
    Other,
}

impl Room {
    pub(super) fn of(raw: Raw<'_>) -> Self {
        if raw.text == "null" { Self::Null { at: raw.at } } else { Self::Other }
    }
}

/// What of a body bounds or shapes the answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Knobs<'a> {
    /// Where the outermost object closes. It has members: a model at least.
    pub(crate) close: usize,
    pub(crate) options: Room,
    pub(crate) stream_options: Room,
    /// `options.num_predict`, as it is written; null is absent.
    pub(crate) num_predict: Option<&'a str>,
    /// `stream_options.include_usage`, as Go reads it.
    pub(crate) include_usage: bool,
    pub(crate) max_tokens: Option<Raw<'a>>,
    pub(crate) max_completion_tokens: Option<Raw<'a>>,
    pub(crate) max_output_tokens: Option<Raw<'a>>,
    /// What is to be embedded.
    pub(crate) input: Option<Raw<'a>>,
    pub(crate) keep_alive: Option<Raw<'a>>,
}
