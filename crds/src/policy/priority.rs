//! How urgent requests are.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Endpoint;
#[cfg(feature = "kube")]
use crate::rules;

/// How urgent requests are: what goes first where requests wait for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// As `high`, and it alone may use the slots that are kept free for it, and is pushed out last.
    Critical,
    /// Somebody waits for the answer. With `critical` it has 76 % of the slots' time where all wait.
    High,
    /// Whatever has no other; 19 % where all wait.
    Medium,
    /// Nobody waits for the answer; 5 % where all wait.
    Low,
}

/// The priority of requests to a class of endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EndpointPriority {
    /// The class: `Chat`, `Generate` or `Embed`. `Metadata` never waits.
    #[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::ENDPOINT_WAITS]))))]
    pub endpoint: Endpoint,
    /// How urgent requests to it are, whose client has no priority by a header or by its tier.
    pub priority: Priority,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(corral_wire::PriorityDoc::from(*self).as_str())
    }
}

impl From<Priority> for corral_wire::PriorityDoc {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Critical => Self::Critical,
            Priority::High => Self::High,
            Priority::Medium => Self::Medium,
            Priority::Low => Self::Low,
        }
    }
}
