//! `metadata.managedFields`, as the API server spells who owns what.

use serde_json::{Map, Value, json};

use super::apply::{Leaf, Owners, Step};
use super::lists::{self, ListKind};

/// One entry for each manager.
pub fn fields(owners: &Owners) -> Value {
    let entry = |(manager, leaves): (&super::apply::Manager, &std::collections::BTreeSet<Leaf>)| {
        let mut set = Map::new();
        for leaf in leaves {
            add(&mut set, leaf, &mut Vec::new());
        }
        let operation = if manager.applies { "Apply" } else { "Update" };
        let mut entry = Map::from_iter([
            ("manager".to_owned(), json!(manager.name)),
            ("operation".to_owned(), json!(operation)),
            ("fieldsType".to_owned(), json!("FieldsV1")),
            ("fieldsV1".to_owned(), Value::Object(set)),
        ]);
        if !manager.subresource.is_empty() {
            entry.insert("subresource".to_owned(), json!(manager.subresource));
        }
        Value::Object(entry)
    };
    owners.iter().map(entry).collect()
}

fn add<'a>(set: &mut Map<String, Value>, leaf: &'a [Step], fields: &mut Vec<&'a str>) {
    let Some((step, below)) = leaf.split_first() else { return };
    let name = spelt(step, fields);
    if let Step::Field(name) = step {
        fields.push(name);
    }
    let next = set.entry(name).or_insert_with(|| json!({}));
    if let Some(next) = next.as_object_mut() {
        add(next, below, fields);
    }
}

fn spelt(step: &Step, fields: &[&str]) -> String {
    match step {
        Step::Field(name) => format!("f:{name}"),
        Step::Member(value) => format!("v:{value}"),
        Step::Item(values) => {
            let kind =
                fields.split_last().map_or(ListKind::Atomic, |(field, above)| lists::kind(above, field));
            let ListKind::Map(keys) = kind else { return format!("k:{values}") };
            let values = values.split(',').map(|value| serde_json::from_str(value).unwrap_or(Value::Null));
            let key: Map<String, Value> = keys.iter().map(ToString::to_string).zip(values).collect();
            format!("k:{}", Value::Object(key))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::apply::{Manager, update};
    use super::*;

    #[test]
    fn owners_are_spelt_as_the_api_server_spells_them() {
        let object = json!({"spec": {"selector": {"app": "x"}, "template": {"spec":
            {"containers": [{"name": "spy", "ports": [{"containerPort": 1}]}]}}}});
        let mut owners = Owners::new();
        let manager = Manager { name: "kubectl-edit".to_owned(), applies: false, subresource: String::new() };
        update(&Value::Null, &object, &mut owners, &manager);
        let ports = json!({"k:{\"containerPort\":1,\"protocol\":\"TCP\"}": {"f:containerPort": {}}});
        let container = json!({"f:name": {}, "f:ports": ports});
        let spec = json!({"f:selector": {},
            "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"spy\"}": container}}}});
        let entry = json!({"manager": "kubectl-edit", "operation": "Update", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": spec}});
        assert_eq!(fields(&owners), json!([entry]));
    }
}
