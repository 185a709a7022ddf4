//! Pieces of schema that no derive writes.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

use crate::{bounds, patterns, rules};

/// An object whose content is checked elsewhere.
pub(crate) fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// Quantities by resource name.
pub(crate) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": bounds::MAX_RESOURCES,
        "additionalProperties": int_or_string(&json!({
            "maxLength": bounds::MAX_QUANTITY,
            "pattern": patterns::QUANTITY,
        })),
    })
}

/// A number of pods, or a share of them.
pub(crate) fn pods_or_percent(_: &mut SchemaGenerator) -> Schema {
    let schema = int_or_string(&json!({
        "maxLength": 4,
        "pattern": patterns::PERCENT,
        "minimum": 0,
        "maximum": bounds::MAX_REPLICAS,
    }));
    Schema::try_from(schema).unwrap_or_default()
}

/// Networks that are trusted, in CIDR notation.
pub(crate) fn trusted_networks(_: &mut SchemaGenerator) -> Schema {
    texts(bounds::MAX_CIDR, &[rules::CIDR, rules::NOT_EVERYBODY])
}

/// Networks in CIDR notation.
pub(crate) fn networks(_: &mut SchemaGenerator) -> Schema {
    texts(bounds::MAX_CIDR, &[rules::CIDR])
}

/// Names of headers that are trusted.
pub(crate) fn header_names(_: &mut SchemaGenerator) -> Schema {
    let mut schema = texts(bounds::MAX_HEADER_NAME, &rules::TRUSTED_HEADER);
    schema.insert("maxItems".to_owned(), bounds::MAX_HEADERS.into());
    schema
}

/// Names of clients.
pub(crate) fn client_names(_: &mut SchemaGenerator) -> Schema {
    texts(bounds::MAX_CLIENT_NAME, &[rules::CLIENT_NAME])
}

/// The parts of a key.
pub(crate) fn key_parts(_: &mut SchemaGenerator) -> Schema {
    let mut schema = texts(bounds::MAX_KEY_PART, &[rules::KEY_PART]);
    schema.insert("minItems".to_owned(), 1.into());
    schema.insert("maxItems".to_owned(), bounds::MAX_PER.into());
    schema.insert("x-kubernetes-validations".to_owned(), rules::cel(&[rules::GLOBAL_ALONE]));
    schema
}

/// Labels, some of them.
pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": bounds::MAX_SELECTOR,
        "additionalProperties": { "type": "string", "maxLength": bounds::MAX_LABEL_VALUE },
    })
}

/// A set of texts that keep rules, as many as there may be networks.
fn texts(longest: usize, rules: &[rules::Rule]) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": bounds::MAX_NETWORKS,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "maxLength": longest,
            "x-kubernetes-validations": rules::cel(rules),
        },
    })
}

/// Texts by name.
pub(crate) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": bounds::MAX_ANNOTATIONS,
        "additionalProperties": { "type": "string", "maxLength": bounds::MAX_ANNOTATION },
    })
}

/// Conditions: one of each type, with the bounds that Kubernetes gives its own.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": bounds::MAX_CONDITIONS,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": condition_fields(),
        },
    })
}

/// A moment.
pub(crate) fn moment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

fn condition_fields() -> serde_json::Value {
    json!({
        "lastTransitionTime": {
            "type": "string",
            "format": "date-time",
            "description": "When the status last flipped.",
        },
        "message": { "type": "string", "maxLength": 32768, "description": "Why, in words; may be empty." },
        "observedGeneration": {
            "type": "integer",
            "format": "int64",
            "minimum": 0,
            "description": "The generation of the spec that this is about.",
        },
        "reason": {
            "type": "string",
            "minLength": 1,
            "maxLength": 1024,
            "description": "Why, in one word that tools can match.",
        },
        "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it is so." },
        "type": { "type": "string", "maxLength": 316, "description": "What it is about." },
    })
}

fn int_or_string(more: &serde_json::Value) -> serde_json::Value {
    let mut schema = json!({ "x-kubernetes-int-or-string": true });
    if let (Some(schema), Some(more)) = (schema.as_object_mut(), more.as_object()) {
        schema.extend(more.clone());
    }
    schema
}
