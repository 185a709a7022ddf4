//! What was asked and what was written, so that tests can hold both against roles and laws.

use http::{Method, request::Parts};
use serde_json::Value;

use super::path::Target;
use super::store::{Key, Store};

/// What a role must allow for a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource, with its subresource as RBAC writes it: `ollamapools/status`.
    pub resource: String,
    /// The RBAC verb.
    pub verb: String,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What it needs to be allowed.
    pub permission: Permission,
    /// The namespace; none where the whole cluster is asked.
    pub namespace: Option<String>,
    /// The object's name, also where a field selector gives it; none for a collection.
    pub name: Option<String>,
    /// Whether it removes something whatever that has become since it was last looked at: a deletion that does not
    /// name the UID and the version it is about.
    pub removes_blindly: bool,
}

/// One write that was carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The RBAC verb.
    pub verb: String,
    /// The resource, with its subresource.
    pub resource: String,
    /// The object's name.
    pub name: String,
    /// Whether anything changed.
    pub changed: bool,
    /// The object afterwards; null when it is gone.
    pub object: Value,
}

/// The RBAC verb of a request.
pub(crate) fn verb(method: &Method, target: &Target) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if target.name.is_none() => "deletecollection",
        Method::DELETE => "delete",
        _ if target.asks("watch") => "watch",
        _ if target.name.is_some() => "get",
        _ => "list",
    }
}

pub(crate) fn is_write(verb: &str) -> bool {
    !matches!(verb, "get" | "list" | "watch")
}

/// The calls a request counts for: applying what does not exist needs `create` beside `patch`.
pub(crate) fn calls(verb: &str, target: &Target, head: &Parts, body: &[u8], store: &Store) -> Vec<Call> {
    let call = |verb: &str| Call {
        permission: Permission {
            group: target.group.clone(),
            resource: resource(target),
            verb: verb.to_owned(),
        },
        namespace: target.namespace.clone(),
        name: target.name.clone().or_else(|| selected_name(target)),
        removes_blindly: verb == "deletecollection" || (verb == "delete" && !names_version(body)),
    };
    let creates = super::serve::is_apply(head) && store.get(&Key::of(target)).is_none();
    if creates { vec![call(verb), call("create")] } else { vec![call(verb)] }
}

/// A list or a watch of one object by its name needs the right to that object alone.
fn selected_name(target: &Target) -> Option<String> {
    target.parameter("fieldSelector")?.strip_prefix("metadata.name=").map(str::to_owned)
}

fn names_version(options: &[u8]) -> bool {
    let options: Value = serde_json::from_slice(options).unwrap_or_default();
    let named =
        |field: &str| options.pointer(&format!("/preconditions/{field}")).is_some_and(Value::is_string);
    named("uid") && named("resourceVersion")
}

pub(crate) fn resource(target: &Target) -> String {
    target
        .subresource
        .as_ref()
        .map_or_else(|| target.plural.clone(), |sub| format!("{}/{sub}", target.plural))
}
