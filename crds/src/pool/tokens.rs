//! How tokens are counted.

use serde::{Deserialize, Serialize};

#[cfg(feature = "kube")]
use crate::bounds;

/// How tokens are counted, for every limit on the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Tokens {
    /// The most tokens of one answer; 1 to 1,000,000. A request that asks for more, or does not say, is sent to Ollama with
    /// this cap. Default: none, requests are sent on as they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_OUTPUT_CAP)))]
    pub output_cap: Option<u32>,
    /// What a prompt token counts that Ollama still had in its cache, in percent of a whole one; 0 to 100, default 100. 0:
    /// such tokens are free.
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 100)))]
    pub cached_token_percent: u32,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { output_cap: None, cached_token_percent: 100 }
    }
}
