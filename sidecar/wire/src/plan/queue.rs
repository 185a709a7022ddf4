//! The queue in front of Ollama: its bounds, what a request costs in it, and who goes before whom.

use serde::{Deserialize, Serialize};

use super::EndpointClass;

/// How long requests of the lowest priorities wait where a plan does not say, in milliseconds: five minutes.
const BATCH_MAX_WAIT_MS: u64 = 300_000;

/// The bounds of the queue in front of Ollama. It is per pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueueDoc {
    /// The most requests that wait, all models together. 0: none waits, a busy pod refuses at once.
    pub max_depth: u32,
    /// The longest that one of priority critical, high or medium waits, in milliseconds; at least 1.
    pub max_wait_ms: u64,
    /// The longest that one waits which is of low priority or deprioritized, in milliseconds; at least 1, and five minutes
    /// where it is not said.
    #[serde(default = "batch_max_wait_ms", skip_serializing_if = "is_batch_max_wait_ms")]
    pub batch_max_wait_ms: u64,
    /// The most requests of one client that wait; at least 1. None: a quarter of [`Self::max_depth`], and at least 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_depth_per_client: Option<u32>,
    /// What a request costs.
    #[serde(default, skip_serializing_if = "CostModel::is_default")]
    pub cost_model: CostModel,
}

impl Default for QueueDoc {
    fn default() -> Self {
        Self {
            max_depth: 0,
            max_wait_ms: 0,
            batch_max_wait_ms: BATCH_MAX_WAIT_MS,
            max_depth_per_client: None,
            cost_model: CostModel::default(),
        }
    }
}

fn batch_max_wait_ms() -> u64 {
    BATCH_MAX_WAIT_MS
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_batch_max_wait_ms(milliseconds: &u64) -> bool {
    *milliseconds == BATCH_MAX_WAIT_MS
}

/// What a request costs its client in the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CostModel {
    /// The time for which it has a slot.
    #[default]
    SlotTime,
    /// Its prompt's tokens, and its answer's twice.
    Tokens,
}

impl CostModel {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How urgent requests are; of two the lesser goes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PriorityDoc {
    /// Somebody waits, and it must not be kept out by what is merely high.
    Critical,
    /// Somebody waits.
    High,
    /// Nothing is known of it.
    Medium,
    /// Nobody waits: it gets what is left, but always something.
    Low,
}

impl PriorityDoc {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    /// The word for it, in policies and in headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }

    /// What a header says, in capitals or not; none where it says anything else.
    pub fn from_header(value: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str().eq_ignore_ascii_case(value))
    }
}

/// The priority of requests to a class of endpoints whose client has none of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointPriorityDoc {
    /// `namespace/name` of the policy that says so.
    pub policy: String,
    /// The class; not [`EndpointClass::Metadata`], which never waits.
    pub endpoint: EndpointClass,
    /// The priority.
    pub priority: PriorityDoc,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_as_it_was_written_before_has_the_defaults_and_is_written_as_before() {
        let text = r#"{"maxDepth":64,"maxWaitMs":60000}"#;
        let read: QueueDoc = serde_json::from_str(text).unwrap();
        assert_eq!(read, QueueDoc { max_depth: 64, max_wait_ms: 60_000, ..QueueDoc::default() });
        assert_eq!((read.batch_max_wait_ms, read.max_depth_per_client), (300_000, None));
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }

    #[test]
    fn a_header_names_a_priority_in_one_word_and_nothing_else_is_one() {
        for priority in PriorityDoc::ALL {
            assert_eq!(PriorityDoc::from_header(priority.as_str()), Some(priority));
            let json = serde_json::to_value(priority).unwrap();
            assert_eq!(json, priority.as_str());
        }
        assert_eq!(PriorityDoc::from_header("HIGH"), Some(PriorityDoc::High));
        for other in ["", "urgent", "0", "high,low", " high", "spare", "crítical"] {
            assert_eq!(PriorityDoc::from_header(other), None, "{other}");
        }
    }
}
