//! How tokens are counted.

use serde::{Deserialize, Serialize};

/// How tokens are counted, for all limits of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokensDoc {
    /// The most tokens of one answer: requests that ask for more, or say nothing, are sent on with this cap. None:
    /// requests are sent on as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_cap: Option<u32>,
    /// What a prompt token counts that Ollama had in its cache, in thousandths; 0 to 1000.
    pub cached_weight_milli: u32,
    /// Tokens of the context that models run with where a request does not say; it bounds estimates. None: Ollama's own
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u32>,
}

impl Default for TokensDoc {
    fn default() -> Self {
        Self { output_cap: None, cached_weight_milli: 1000, context_length: None }
    }
}

impl TokensDoc {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
