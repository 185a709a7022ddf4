//! What an API server checks of a structural schema before it runs the rules, for the keywords that our schemas use.
//!
//! A keyword that it does not know fails the test: nothing in a schema goes unchecked by accident.

use regex::Regex;
use serde_json::{Map, Value};

use super::Cause;

/// Says of nothing: it describes, or another part of the API server reads it.
const SILENT: [&str; 10] = [
    "default",
    "description",
    "format",
    "title",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
    "additionalProperties",
    "items",
];

/// Everything that the schema refuses.
pub(crate) fn check(schema: &Value, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    node(schema.as_object().unwrap(), value, "", &mut causes);
    causes
}

fn node(schema: &Map<String, Value>, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (keyword, argument) in schema {
        if let Some(message) = broken(keyword, argument, value) {
            causes.push(Cause { field: path.to_owned(), message });
        }
    }
    match value {
        Value::Object(fields) => object(schema, fields, path, causes),
        Value::Array(items) => list(schema, items, path, causes),
        _ => {}
    }
}

fn object(schema: &Map<String, Value>, fields: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        let name = name.as_str().unwrap();
        if !fields.contains_key(name) {
            causes.push(Cause { field: at(name), message: "Required value".to_owned() });
        }
    }
    let others = schema.get("additionalProperties");
    for (name, value) in fields {
        if let Some(schema) = schema.get("properties").and_then(|known| known.get(name)).or(others) {
            node(schema.as_object().unwrap(), value, &at(name), causes);
        }
    }
}

fn list(schema: &Map<String, Value>, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    for (place, item) in items.iter().enumerate() {
        let at = format!("{path}[{place}]");
        if items.iter().take(place).any(|earlier| same(schema, earlier, item)) {
            causes.push(Cause { field: at.clone(), message: "Duplicate value".to_owned() });
        }
        node(schema["items"].as_object().unwrap(), item, &at, causes);
    }
}

/// Whether two items of a list are one, by the list's type.
fn same(schema: &Map<String, Value>, a: &Value, b: &Value) -> bool {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => a == b,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().unwrap();
            keys.iter().all(|key| a.get(key.as_str().unwrap()) == b.get(key.as_str().unwrap()))
        }
        _ => false,
    }
}

fn broken(keyword: &str, argument: &Value, value: &Value) -> Option<String> {
    let number = argument.as_f64().unwrap_or_default();
    let (text, length) = (value.as_str(), |text: &str| count(text.chars().count()));
    let items = value.as_array().map(|items| count(items.len()));
    let said = |broken: bool, message: String| broken.then_some(message);
    match keyword {
        "type" => said(!is_a(argument.as_str()?, value), format!("must be of type {argument}")),
        "enum" => said(
            !argument.as_array()?.contains(value),
            format!("Unsupported value: {value}: supported values: {argument}"),
        ),
        "pattern" => said(
            !Regex::new(argument.as_str()?).unwrap().is_match(text?),
            format!("should match '{argument}'"),
        ),
        "minLength" => said(length(text?) < number, format!("should be at least {number} chars long")),
        "maxLength" => said(length(text?) > number, format!("Too long: may not be more than {number} bytes")),
        "minimum" => said(value.as_f64()? < number, format!("should be greater than or equal to {number}")),
        "maximum" => said(value.as_f64()? > number, format!("should be less than or equal to {number}")),
        "minItems" => said(items? < number, format!("should have at least {number} items")),
        "maxItems" => said(items? > number, format!("must have at most {number} items")),
        "maxProperties" => {
            said(count(value.as_object()?.len()) > number, format!("must have at most {number} items"))
        }
        "properties" | "required" | "x-kubernetes-list-type" => None,
        _ => {
            assert!(SILENT.contains(&keyword), "a keyword that nobody checks: {keyword}");
            None
        }
    }
}

fn count(length: usize) -> f64 {
    f64::from(u32::try_from(length).unwrap())
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    }
}
