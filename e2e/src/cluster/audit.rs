//! What the API server noted of the operator's writes: which of its pods, what, and what came of it.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Cluster;
use super::instance::Instance;

/// The API server's list of writes, one JSON object a line.
pub const LOG: &str = "audit.log";
/// What tells the API server to keep it.
pub const POLICY: &str = "audit-policy.yaml";

/// One write that a pod of the operator asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The pod that sent it.
    pub pod: String,
    /// `patch leases corral` and so on.
    pub what: String,
    /// The answer.
    pub status: u64,
}

impl Write {
    /// Whether it changed something.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Cluster {
    /// Every answered write of the operator's pods since the cluster was started, in the order of the answers.
    pub fn operator_writes(&self) -> Result<Vec<Write>> {
        writes(&self.instance)
    }
}

fn writes(instance: &Instance) -> Result<Vec<Write>> {
    let path = instance.path(LOG);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    // The last line may still be being written.
    let events = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    Ok(events.filter_map(|event| parse(&event)).collect())
}

fn parse(event: &Value) -> Option<Write> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let object =
        [text("/verb"), text("/objectRef/resource"), text("/objectRef/subresource"), text("/objectRef/name")];
    let words: Vec<&str> = object.into_iter().filter(|word| !word.is_empty()).collect();
    Some(Write {
        pod: event.pointer("/user/extra/authentication.kubernetes.io~1pod-name/0")?.as_str()?.to_owned(),
        what: words.join(" "),
        status: event.pointer("/responseStatus/code")?.as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_write_is_known_by_its_pod_and_what_came_of_it() {
        let mut event = json!({
            "verb": "patch",
            "user": { "extra": { "authentication.kubernetes.io/pod-name": ["corral-1"] } },
            "objectRef": { "resource": "ollamapools", "subresource": "status", "name": "chat" },
            "responseStatus": { "code": 409 },
        });
        let write = parse(&event).unwrap();
        assert_eq!((write.pod.as_str(), write.what.as_str()), ("corral-1", "patch ollamapools status chat"));
        assert!(!write.succeeded());
        event["responseStatus"]["code"] = json!(200);
        assert!(parse(&event).unwrap().succeeded());
        event["user"] = json!({});
        assert_eq!(parse(&event), None);
    }
}
