//! The generated definitions: every case, the rules run as the API server runs them, and what holds for all schemas.
#![cfg(feature = "cel")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of tests may panic as a test may"
)]

mod case;
#[path = "case/structural.rs"]
mod structural;

use case::{Case, Cause};
use corral_crds::{crd, yaml};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::cel::{ValidationErrors, Validator, compile_schema, estimate_rule_cost};
use serde_json::{Map, Value};

fn schema_of(definition: &CustomResourceDefinition) -> Value {
    let schema = definition.spec.versions[0].schema.as_ref().unwrap();
    serde_json::to_value(schema.open_api_v3_schema.as_ref().unwrap()).unwrap()
}

fn schema_for(case: &Case) -> Value {
    let definitions = crd::all().unwrap();
    let kind = case.object["kind"].as_str().unwrap();
    schema_of(definitions.iter().find(|definition| definition.spec.names.kind == kind).unwrap())
}

/// As an API server does: the schema first, and the rules only for what the schema lets through.
fn causes(case: &Case) -> Vec<Cause> {
    let schema = schema_for(case);
    let causes = structural::check(&schema, &case.object);
    if !causes.is_empty() {
        return causes;
    }
    let found = Validator::new().validate(&schema, &case.object, None);
    let errors = found.err().map(ValidationErrors::into_vec).unwrap_or_default();
    errors.into_iter().map(|error| Cause { field: error.field_path, message: error.message }).collect()
}

#[test]
fn every_case_is_judged_by_schema_and_rules() {
    for case in case::all() {
        let found = causes(&case);
        assert!(case.is_met_by(&found), "{} ({}): {found:?}", case.name, case.about);
    }
}

#[test]
fn generated_files_are_as_they_would_be_generated_now() {
    for file in yaml::files().unwrap() {
        let path = format!("{}/../{}", env!("CARGO_MANIFEST_DIR"), file.path);
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == file.content, "{} has drifted: run the command in its first line", file.path);
        assert!(found.len() < yaml::MAX_DEFINITION_BYTES, "{} is too large for kubectl apply", file.path);
        // The chart's copy begins and ends with one directive; nothing of a description may be taken for another.
        let directives = if file.path.starts_with("charts/") { 2 } else { 0 };
        assert_eq!(found.matches("{{").count(), directives, "{} would be read as a template", file.path);
    }
}

/// Calls `look` with the path and each node of a schema.
fn walk(node: &Value, path: &str, look: &mut impl FnMut(&str, &Map<String, Value>)) {
    let Some(fields) = node.as_object() else { return };
    look(path, fields);
    for (name, field) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(field, &format!("{path}.{name}"), look);
    }
    for part in ["items", "additionalProperties"] {
        walk(&fields.get(part).cloned().unwrap_or_default(), &format!("{path}[]"), look);
    }
}

fn each_node(mut look: impl FnMut(&str, &Map<String, Value>)) {
    for definition in crd::all().unwrap() {
        walk(&schema_of(&definition), "", &mut look);
    }
}

#[test]
fn every_text_and_every_list_has_a_bound() {
    each_node(|path, node| {
        let bounded = |keyword| node.contains_key(keyword) || node.contains_key("enum");
        let has_bound = match node.get("type").and_then(Value::as_str) {
            Some("array") => bounded("maxItems"),
            Some("string") => bounded("maxLength") || node.get("format") == Some(&"date-time".into()),
            Some("object") => !node.contains_key("additionalProperties") || bounded("maxProperties"),
            _ => true,
        };
        assert!(
            has_bound || ["", ".apiVersion", ".kind", ".metadata"].contains(&path),
            "{path} has no bound"
        );
    });
}

#[test]
fn every_number_of_a_spec_has_both_bounds_and_a_format_that_kubectl_knows() {
    each_node(|path, node| {
        if node.get("type") == Some(&"integer".into()) {
            assert!(["int32", "int64"].map(Value::from).contains(&node["format"]), "{path}");
            let bounded = node.contains_key("minimum") && node.contains_key("maximum");
            assert!(bounded || path.starts_with(".status"), "{path}");
        }
    });
}

#[test]
fn every_list_says_how_it_merges_and_every_field_what_it_is() {
    each_node(|path, node| {
        let is_list = node.get("type") == Some(&"array".into());
        assert!(!is_list || node.contains_key("x-kubernetes-list-type"), "{path} merges somehow");
        let is_field = !path.is_empty() && !path.ends_with("[]");
        assert!(!is_field || node.contains_key("description"), "{path} is not described");
        assert!(!node.contains_key("nullable"), "{path} takes null for a value");
    });
}

#[test]
fn a_pool_can_be_scaled_by_others() {
    let pool = &crd::all().unwrap()[0];
    let scale = pool.spec.versions[0].subresources.as_ref().unwrap().scale.clone().unwrap();
    assert_eq!(scale.spec_replicas_path, ".spec.replicas");
    assert_eq!(scale.status_replicas_path, ".status.replicas");
    assert_eq!(scale.label_selector_path.as_deref(), Some(".status.selector"));
}

#[test]
fn every_rule_compiles_and_stays_within_the_cost_that_an_api_server_allows() {
    each_node(|path, node| {
        for rule in node.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
            let text = rule["rule"].as_str().unwrap();
            let compiled = compile_schema(&Value::Object(node.clone()));
            assert!(compiled.validations.iter().all(Result::is_ok), "{path}: {text}");
            assert_eq!(estimate_rule_cost(text, &compiled), [], "{path}");
        }
    });
}

/// A number as a person writes it, with commas or without.
fn spellings(number: u64) -> [String; 2] {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    [digits, grouped]
}

/// The bounds above which a field is refused, its own and those of what it holds.
fn upper_bounds(node: &Value) -> Vec<u64> {
    let own = ["maxLength", "maximum", "maxItems", "maxProperties"].map(|keyword| node[keyword].as_u64());
    let held = ["items", "additionalProperties"].map(|part| &node[part]);
    let held = held.into_iter().filter(|held| held["type"] == "string" && held.get("enum").is_none());
    own.into_iter().flatten().chain(held.flat_map(upper_bounds)).collect()
}

#[test]
fn every_field_of_a_spec_states_its_bounds() {
    // A number of pods is bounded as pods are, a share by what it is.
    let pods_or_share = [".spec.rollout.maxUnavailable", ".spec.rollout.maxSurge"];
    each_node(|path, node| {
        let is_field = path.starts_with(".spec.") && !path.ends_with("[]");
        if !is_field || node.contains_key("enum") || pods_or_share.contains(&path) {
            return;
        }
        let text = node["description"].as_str().unwrap_or_default();
        for bound in upper_bounds(&Value::Object(node.clone())) {
            assert!(
                spellings(bound).iter().any(|bound| text.contains(bound)),
                "{path} does not say {bound}: {text}"
            );
        }
    });
}
