//! What an object's status says of it.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::scene::Scene;

/// One condition of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Whether it is about the spec as it is now.
    pub current: bool,
    /// Since when it has this status.
    pub since: String,
}

/// The condition of this type, if the object has it.
pub fn of(object: &Value, kind: &str) -> Option<Condition> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|c| c.get("type").and_then(Value::as_str) == Some(kind))?;
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let generation = object.pointer("/metadata/generation");
    Some(Condition {
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
        since: text("lastTransitionTime"),
        current: generation.is_some() && found.get("observedGeneration") == generation,
    })
}

/// Whether the object has this condition with this status, about the spec as it is now.
pub fn holds(object: &Value, kind: &str, status: &str) -> bool {
    of(object, kind).is_some_and(|condition| condition.current && condition.status == status)
}

/// All conditions in one line, for errors and people.
pub fn summary(object: &Value) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let kinds = conditions.into_iter().flatten().filter_map(|c| c.get("type")?.as_str());
    let words = kinds.filter_map(|kind| {
        let c = of(object, kind)?;
        let stale = if c.current { "" } else { " (of an older spec)" };
        Some(format!("{kind}={} {}{stale}: {}", c.status, c.reason, c.message))
    });
    words.collect::<Vec<_>>().join("; ")
}

impl Scene {
    /// Waits until a condition has this status, about the spec as it is now.
    pub fn until_condition(&self, object: &str, kind: &str, status: &str) -> Result<Condition> {
        self.until(&format!("{object} is {kind}={status}"), || {
            let now = self.get(object)?;
            let found = of(&now, kind).filter(|c| c.current && c.status == status);
            Ok(found.ok_or_else(|| summary(&now)))
        })
    }

    /// Waits until a condition has this status, and holds that its reason is this one.
    pub fn until_reason(&self, object: &str, kind: &str, status: &str, reason: &str) -> Result<Condition> {
        let found = self.until(&format!("{object} is {kind}={status} for {reason}"), || {
            let now = self.get(object)?;
            let found = of(&now, kind).filter(|c| c.current && c.status == status && c.reason == reason);
            Ok(found.ok_or_else(|| summary(&now)))
        })?;
        ensure!(!found.message.is_empty(), "{object}: {reason} without a word of explanation");
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_of_an_older_spec_does_not_count() {
        let object = |observed: u64| {
            let ready = json!({ "type": "Ready", "status": "True", "reason": "R", "message": "", "observedGeneration": observed });
            json!({ "metadata": { "generation": 2 }, "status": { "conditions": [ready] } })
        };
        assert!(holds(&object(2), "Ready", "True"));
        assert!(!holds(&object(1), "Ready", "True"));
        assert!(!holds(&object(2), "Accepted", "True"));
        assert!(summary(&object(1)).contains("older spec"));
    }
}
