//! What the operator may do: one list, from which the chart's roles are made, and which a test holds against the calls
//! that are really made.

use serde_json::{Value, json};

/// One resource and the verbs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The resource, with its subresource.
    pub resource: &'static str,
    /// The verbs.
    pub verbs: &'static [&'static str],
}

const fn grant(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Grant {
    Grant { group, resource, verbs }
}

/// In every namespace with pools. Secrets are read one by one, never listed: RBAC cannot know their names, so the rule
/// covers the namespace's Secrets.
pub const POOLS: [Grant; 9] = [
    grant("", "pods", &["list", "watch"]),
    grant("", "secrets", &["create", "get", "patch"]),
    grant("", "services", &["create", "get", "list", "patch", "watch"]),
    grant("apps", "deployments", &["create", "get", "list", "patch", "watch"]),
    grant("corral.dev", "ollamapools", &["get", "list", "watch"]),
    grant("corral.dev", "ollamapools/status", &["patch"]),
    grant("corral.dev", "ratelimitpolicies", &["get", "list", "watch"]),
    grant("corral.dev", "ratelimitpolicies/status", &["patch"]),
    grant("events.k8s.io", "events", &["create", "patch"]),
];

/// In the operator's own namespace.
pub const OWN: [Grant; 1] = [grant("coordination.k8s.io", "leases", &["create", "get", "update"])];

/// The rules of a Role or `ClusterRole`, as Kubernetes writes them.
pub fn rules(grants: &[Grant]) -> Vec<Value> {
    let rule = |grant: &Grant| json!({"apiGroups": [grant.group], "resources": [grant.resource], "verbs": grant.verbs});
    grants.iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_has_a_wildcard_and_secrets_are_never_listed() {
        for grant in POOLS.iter().chain(&OWN) {
            assert!(!grant.verbs.contains(&"*") && grant.resource != "*", "{grant:?}");
            let lists = grant.verbs.iter().any(|verb| matches!(*verb, "list" | "watch" | "delete"));
            assert!(grant.resource != "secrets" || !lists, "{grant:?}");
        }
    }
}
