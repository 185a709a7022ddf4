//! The rules that go beyond types and bounds, each with the words that a person reads when it is broken.
//!
//! One list serves both sides: the schema carries them as CEL, and [`crate::valid`] checks the same in plain Rust for
//! a sidecar without an API server, with the same message at the same field.

mod autoscaling;
mod limit;
mod policy;
mod pool;

pub use self::{autoscaling::*, limit::*, policy::*, pool::*};

/// One rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// What must hold, in CEL, seen from the node that carries the rule.
    pub cel: &'static str,
    /// What is wrong when it does not.
    pub message: &'static str,
    /// The field to blame, relative to the node; empty for the node itself.
    pub field: &'static str,
}

const fn rule(cel: &'static str, message: &'static str) -> Rule {
    Rule { cel, message, field: "" }
}

const fn rule_at(field: &'static str, cel: &'static str, message: &'static str) -> Rule {
    Rule { cel, message, field }
}

/// All of them, for tests that each has its cases.
pub fn all() -> Vec<Rule> {
    [&OTHERS[..], &LIMIT[..], &AUTOSCALING[..]].concat()
}

const OTHERS: [Rule; 45] = [
    POOL_NAME,
    DEADLINE_ABOVE_DRAIN,
    NO_COUNT_WITHOUT_GPU,
    NO_RESOURCE_WITHOUT_GPU,
    REQUIREMENT_VALUES,
    CACHE_NEEDS_FLASH,
    KEEP_ALIVE,
    ENV_NAME,
    ENV_OWNED,
    ONE_STORAGE,
    HOST_PATH,
    CIDR,
    NOT_EVERYBODY,
    DELAY_WITHIN_DRAIN,
    CLIENT_WITHIN_QUEUE,
    POD_MEANWHILE,
    HELD_BYTES,
    SCHEDULE_NAME,
    SCHEDULE_SAYS,
    SCHEDULE_LASTS,
    FROM,
    TO,
    ROLLOUT_MOVES,
    TARGET_KIND,
    TARGET_GROUP,
    ONE_AIM,
    SELECTOR_VALUES,
    TIERS_KNOWN,
    DEFAULT_TIER_KNOWN,
    TIER_NAME,
    SCALE,
    ENDPOINT_WAITS,
    CLIENT_NAME,
    HEADER_NAME,
    HEADER_NO_CREDENTIAL,
    HEADER_OF_ITS_OWN,
    REQUEST_PATH,
    KEY_PART,
    TIME_OF_DAY,
    TIME_ZONE,
    MAX_WAIT_WHERE_WAITING,
    MAX_WAIT,
    LIMIT_NAME,
    GLOBAL_ALONE,
    RATE,
];

/// The rules as a schema carries them.
#[cfg(feature = "kube")]
pub(crate) fn cel(rules: &[Rule]) -> serde_json::Value {
    rules.iter().map(one).collect()
}

#[cfg(feature = "kube")]
fn one(rule: &Rule) -> serde_json::Value {
    let mut written = serde_json::json!({ "rule": rule.cel, "message": rule.message });
    if !rule.field.is_empty()
        && let Some(fields) = written.as_object_mut()
    {
        fields.insert("fieldPath".to_owned(), rule.field.into());
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owned_variables_are_the_same_in_cel_and_in_rust() {
        for name in OWNED_ENV {
            assert!(ENV_OWNED.cel.contains(&format!("'{name}'")), "{name}");
        }
        assert_eq!(ENV_OWNED.cel.matches('\'').count(), OWNED_ENV.len() * 2);
    }

    #[test]
    fn the_headers_of_connections_are_the_same_in_cel_and_in_rust() {
        for name in TRANSPORT_HEADERS {
            assert!(HEADER_OF_ITS_OWN.cel.contains(&format!("'{name}'")), "{name}");
        }
        assert_eq!(HEADER_OF_ITS_OWN.cel.matches('\'').count(), TRANSPORT_HEADERS.len() * 2);
    }
}
