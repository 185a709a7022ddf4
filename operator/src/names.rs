//! Every name that Corral writes into a cluster: objects, labels, annotations, keys, the field manager.

use std::collections::BTreeMap;

use corral_wire::PLAN_VERSION;

/// The field manager of everything the operator applies; the name it gives in statuses and events.
pub const MANAGER: &str = "corral.dev/operator";
/// On every object of a pool and its pods: the pool's name. It alone selects the pods.
pub const POOL_LABEL: &str = "corral.dev/pool";
/// On every applied object: a digest of what was applied, so that what is no longer wanted is noticed.
pub const APPLIED: &str = "corral.dev/applied";
/// On the key Secret: the highest term that a leader took for the pool.
pub const TERM: &str = "corral.dev/term";
/// On a pool, written by users: with a value that it never had, its pods are rendered anew by the operator that runs.
pub const UPDATE: &str = "corral.dev/update";
/// On a pod: which of them the ReplicaSet's controller deletes first, the lowest; Kubernetes' own annotation.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// On a Deployment: the revision that its pod template is of.
pub const REVISION_LABEL: &str = "corral.dev/revision";
/// On the pods of activators: the name of their pool.
pub const ACTIVATOR_LABEL: &str = "corral.dev/activator";
/// The container that clients reach.
pub const SIDECAR: &str = "limiter";
/// The container that runs models.
pub const OLLAMA: &str = "ollama";
/// The container of an activator's pod.
pub const ACTIVATOR: &str = "activator";
/// The key of the plan Secret that holds D.
pub const DIVISOR_KEY: &str = "divisor";
/// The key of the key Secret that is made first. The greatest name signs, so that a rotation adds a greater one.
pub const FIRST_KEY: &str = "key-0001";

/// The key of the plan Secret that holds the plan of this build's version.
pub fn plan_key() -> String {
    format!("plan.v{PLAN_VERSION}.json")
}

/// The Secret that holds a pool's plan and D.
pub fn plan_secret(pool: &str) -> String {
    format!("{pool}-plan")
}

/// The Secret that holds a pool's keys.
pub fn key_secret(pool: &str) -> String {
    format!("{pool}-key")
}

/// The activator's objects.
pub fn activator(pool: &str) -> String {
    format!("{pool}-activator")
}

/// What selects the pods of a pool's activator.
pub fn activator_selector(pool: &str) -> BTreeMap<String, String> {
    [(ACTIVATOR_LABEL.to_owned(), pool.to_owned())].into()
}

/// What selects a pool's pods.
pub fn selector(pool: &str) -> BTreeMap<String, String> {
    [(POOL_LABEL.to_owned(), pool.to_owned())].into()
}

/// The labels of a pool's objects and pods.
pub fn labels(pool: &str) -> BTreeMap<String, String> {
    let mut labels = selector(pool);
    labels.insert("app.kubernetes.io/name".to_owned(), "ollama".to_owned());
    labels.insert("app.kubernetes.io/instance".to_owned(), pool.to_owned());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "corral".to_owned());
    labels
}
