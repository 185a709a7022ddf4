//! The chart: what its values may be is what its templates read.
#![cfg(test)]

use std::path::{Path, PathBuf};

use serde_json::Value;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/corral")
}

/// Every template and helper, as one text.
fn templates(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| if path.is_dir() { templates(&path) } else { std::fs::read_to_string(path).unwrap() })
        .collect()
}

/// Every value that the schema takes, by its path, such as `image.tag`.
fn values(schema: &Value, node: &Value, path: &str, found: &mut Vec<String>) {
    let node = match node["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => node,
    };
    let fields = node["properties"].as_object().into_iter().flatten();
    for (name, field) in fields {
        values(schema, field, format!("{path}.{name}").trim_start_matches('.'), found);
    }
    if node["properties"].is_null() {
        found.push(path.to_owned());
    }
}

#[test]
fn every_value_that_the_chart_takes_is_read_by_a_template() {
    let schema = std::fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let templates = templates(&chart().join("templates"));
    let mut found = Vec::new();
    values(&schema, &schema, "", &mut found);
    assert!(found.len() > 20, "{found:?}");
    // One helper reads these of each image, and Helm itself hands `global` down.
    let of_an_image = |leaf: &str| ["repository", "tag", "digest"].contains(&leaf);
    for value in found.iter().filter(|value| *value != "global") {
        let (parent, leaf) = value.rsplit_once('.').unwrap_or(("", value));
        let whole = !parent.is_empty() && templates.contains(&format!(".Values.{parent} "));
        let by_helper = whole && of_an_image(leaf) && templates.contains(&format!("$image.{leaf}"));
        let handed_on = templates.contains(&format!("toYaml .Values.{parent} "));
        assert!(
            by_helper || handed_on || templates.contains(&format!(".Values.{value} ")),
            "no template reads {value}"
        );
    }
}
