//! Which lists are maps: the keys by which server-side apply tells their items apart.

use serde_json::Value;

/// How a list is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    /// Items are told apart by these fields.
    Map(&'static [&'static str]),
    /// Items are values.
    Set,
    /// One value as a whole.
    Atomic,
}

/// How the list in field `field` is merged, below the fields `above` (outermost first, list items left out).
pub fn kind(above: &[&str], field: &str) -> ListKind {
    let in_container = above.iter().any(|part| matches!(*part, "containers" | "initContainers"));
    match field {
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" | "resourceClaims"
        | "limits" | "claims" => ListKind::Map(&["name"]),
        "ports" if in_container => ListKind::Map(&["containerPort", "protocol"]),
        "ports" => ListKind::Map(&["port", "protocol"]),
        "volumeMounts" => ListKind::Map(&["mountPath"]),
        "conditions" => ListKind::Map(&["type"]),
        "ownerReferences" => ListKind::Map(&["uid"]),
        "hostAliases" => ListKind::Map(&["ip"]),
        "topologySpreadConstraints" => ListKind::Map(&["topologyKey", "whenUnsatisfiable"]),
        "finalizers" => ListKind::Set,
        _ => ListKind::Atomic,
    }
}

/// Whether the map in the last of these fields is one value.
pub fn is_whole(fields: &[&str]) -> bool {
    matches!(fields.last(), Some(&("selector" | "labelSelector" | "nodeSelector")))
}

/// The key of an item, as text; a missing `protocol` is TCP, as the API server defaults it.
pub fn key_of(item: &Value, fields: &[&str]) -> String {
    let part = |field: &&str| match item.get(*field) {
        Some(value) => value.to_string(),
        None if *field == "protocol" => "\"TCP\"".to_owned(),
        None => "null".to_owned(),
    };
    fields.iter().map(part).collect::<Vec<_>>().join(",")
}
