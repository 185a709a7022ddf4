//! The custom resource definitions, as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{policy::RateLimitPolicy, pool::OllamaPool};

/// Both definitions. Install these, not what the derives return: a derive writes number formats that `kubectl` warns
/// of, lets `null` count as a value where it should count as absent, and breaks lines as the source does.
pub fn all() -> serde_json::Result<Vec<CustomResourceDefinition>> {
    [OllamaPool::crd(), RateLimitPolicy::crd()].iter().map(installable).collect()
}

fn installable(derived: &CustomResourceDefinition) -> serde_json::Result<CustomResourceDefinition> {
    let mut definition = serde_json::to_value(derived)?;
    clean(&mut definition);
    serde_json::from_value(definition)
}

fn clean(node: &mut Value) {
    match node {
        Value::Object(fields) => {
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
            }
            if let Some(format) = fields.get_mut("format") {
                signed(format);
            }
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = unwrapped(text);
            }
            fields.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

/// Without the line breaks of the source, which `kubectl explain` would break again; paragraphs stay.
fn unwrapped(text: &str) -> String {
    let paragraphs: Vec<_> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
    paragraphs.join("\n\n")
}

fn signed(format: &mut Value) {
    match format.as_str() {
        Some("uint16" | "uint32") => *format = "int32".into(),
        Some("uint64") => *format = "int64".into(),
        _ => {}
    }
}
