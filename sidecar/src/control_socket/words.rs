//! What is asked and answered over the socket, each as one line of JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clients::{Heavy, SPAN};
use crate::core::Core;
use crate::explain::{Ask, Explained};

/// The most clients that are told of.
const MOST_CLIENTS: usize = 256;

/// What a sidecar can be asked.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Question {
    /// What would become of a request now.
    Explain(Box<Ask>),
    /// Who takes most.
    Top {
        /// How many clients to tell of.
        most: usize,
    },
}

/// What is asked may hold a key.
impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explain(_) => "Explain",
            Self::Top { .. } => "Top",
        })
    }
}

/// What a sidecar says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// To [`Question::Explain`].
    Explain(Explained),
    /// To [`Question::Top`].
    Top(Top),
    /// Why there is no answer.
    Error(String),
}

/// The heaviest clients of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Top {
    /// How far back is looked, in seconds.
    pub span_seconds: u64,
    /// Heaviest first.
    pub clients: Vec<Heavy>,
}

impl Top {
    pub(super) fn of(core: &Core, most: usize) -> Self {
        let clients = core.clients.heaviest(most.min(MOST_CLIENTS), core.clock().now());
        Self { span_seconds: SPAN.secs_ceil(), clients }
    }
}
