//! Objects as JSON whose lists are maps: merging one over another, and telling whether one holds all of another.
//!
//! Kubernetes tells the items of many lists apart by a key (a container by its name). What is merged or compared by
//! place instead would change the wrong item as soon as somebody adds one.

use serde_json::{Map, Value};

/// How the items of a list are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Items {
    /// By these fields.
    Keyed(&'static [&'static str]),
    /// By value: a merge adds what is not there.
    Values,
    /// Not at all: the list is one value.
    Whole,
}

fn items(path: &[String]) -> Items {
    let in_container = path.iter().any(|step| step == "containers" || step == "initContainers");
    match path.last().map_or("", String::as_str) {
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" | "resourceClaims"
        | "claims" => Items::Keyed(&["name"]),
        "ports" if in_container => Items::Keyed(&["containerPort", "protocol"]),
        "ports" => Items::Keyed(&["port", "protocol"]),
        "volumeMounts" => Items::Keyed(&["mountPath"]),
        "conditions" => Items::Keyed(&["type"]),
        "ownerReferences" => Items::Keyed(&["uid"]),
        "hostAliases" => Items::Keyed(&["ip"]),
        "topologySpreadConstraints" => Items::Keyed(&["topologyKey", "whenUnsatisfiable"]),
        "tolerations" => Items::Values,
        _ => Items::Whole,
    }
}

/// Maps that are one value: whoever adds a key to one has changed all of it, and an apply puts all of it back.
fn is_whole(path: &[String]) -> bool {
    matches!(path.last().map_or("", String::as_str), "selector" | "labelSelector" | "nodeSelector")
}

fn same_item(one: &Value, other: &Value, keys: &[&str]) -> bool {
    keys.iter().all(|field| key_part(one, field) == key_part(other, field))
}

/// A field by which items of a list are told apart; the protocol is TCP where nothing else is said.
pub fn key_part(item: &Value, field: &str) -> Value {
    match item.get(field) {
        None if field == "protocol" => Value::from("TCP"),
        found => found.cloned().unwrap_or(Value::Null),
    }
}

/// Merges `over` into `base`. A null says nothing: what is there stays.
pub fn merge(base: &mut Value, over: &Value) {
    merge_at(base, over, &mut Vec::new());
}

fn merge_at(base: &mut Value, over: &Value, path: &mut Vec<String>) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over.iter().filter(|(_, value)| !value.is_null()) {
                path.push(name.clone());
                merge_at(base.entry(name.clone()).or_insert_with(|| blank(value)), value, path);
                path.pop();
            }
        }
        (Value::Array(base), Value::Array(over)) => merge_list(base, over, path),
        (base, over) => base.clone_from(over),
    }
}

fn blank(like: &Value) -> Value {
    match like {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}

fn merge_list(base: &mut Vec<Value>, over: &[Value], path: &mut Vec<String>) {
    match items(path) {
        Items::Whole => *base = over.to_vec(),
        Items::Values => {
            let fresh: Vec<Value> = over.iter().filter(|item| !base.contains(item)).cloned().collect();
            base.extend(fresh);
        }
        Items::Keyed(keys) => {
            for item in over {
                match base.iter_mut().find(|there| same_item(there, item, keys)) {
                    Some(there) => merge_at(there, item, path),
                    None => base.push(item.clone()),
                }
            }
        }
    }
}

/// Calls `told` with the path of every leaf of `wanted` that `held` does not hold.
pub fn missing(held: &Value, wanted: &Value, told: &mut dyn FnMut(&[String])) {
    missing_at(held, wanted, &mut Vec::new(), told);
}

/// As [`missing`], for two items of the list `list`.
pub fn missing_in(list: &str, held: &Value, wanted: &Value, told: &mut dyn FnMut(&[String])) {
    let mut path = vec![list.to_owned()];
    missing_at(held, wanted, &mut path, &mut |path| told(path.get(1..).unwrap_or_default()));
}

/// Whether `held` holds all of `wanted`, as an API server hands it back: quantities in another spelling and values that
/// it leaves out because they are zero count as held.
pub fn holds(held: &Value, wanted: &Value) -> bool {
    let mut all = true;
    missing(held, wanted, &mut |_| all = false);
    all
}

fn missing_at(held: &Value, wanted: &Value, path: &mut Vec<String>, told: &mut dyn FnMut(&[String])) {
    match (held, wanted) {
        (Value::Object(held), Value::Object(wanted)) if !is_whole(path) => {
            for (name, value) in wanted {
                path.push(name.clone());
                match held.get(name) {
                    Some(held) => missing_at(held, value, path, told),
                    None if may_be_left_out(value, path) => {}
                    None => told(path),
                }
                path.pop();
            }
        }
        (Value::Array(held), Value::Array(wanted)) => missing_items(held, wanted, path, told),
        (held, wanted) if same_value(held, wanted, path) => {}
        _ => told(path),
    }
}

fn missing_items(held: &[Value], wanted: &[Value], path: &mut Vec<String>, told: &mut dyn FnMut(&[String])) {
    match items(path) {
        Items::Whole => {
            let alike = held.len() == wanted.len()
                && held.iter().zip(wanted).all(|(held, wanted)| holds_below(held, wanted, path));
            if !alike {
                told(path);
            }
        }
        Items::Values => {
            let found = |item: &Value| held.iter().any(|there| holds_below(there, item, path));
            if !wanted.iter().all(found) {
                told(path);
            }
        }
        Items::Keyed(keys) => {
            for item in wanted {
                path.push(keys.iter().filter_map(|key| item.get(*key)).map(named).collect());
                match held.iter().find(|there| same_item(there, item, keys)) {
                    Some(there) => missing_at(there, item, path, told),
                    None => told(path),
                }
                path.pop();
            }
        }
    }
}

fn named(key: &Value) -> String {
    key.as_str().map_or_else(|| key.to_string(), str::to_owned)
}

fn holds_below(held: &Value, wanted: &Value, path: &[String]) -> bool {
    let mut all = true;
    missing_at(held, wanted, &mut path.to_vec(), &mut |_| all = false);
    all
}

/// What Go leaves out of JSON when it is zero. In a security context, false is a statement, not a zero.
fn may_be_left_out(value: &Value, path: &[String]) -> bool {
    let strict = |step: &String| step == "securityContext" || step == "automountServiceAccountToken";
    let zero = match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    zero && !path.iter().any(strict)
}

fn same_value(held: &Value, wanted: &Value, path: &[String]) -> bool {
    let is_quantity = path.iter().any(|step| matches!(step.as_str(), "limits" | "requests" | "sizeLimit"));
    held == wanted || (is_quantity && quantity(held).is_some() && quantity(held) == quantity(wanted))
}

/// A quantity in thousandths; none for what is no quantity, or too fine or large to compare.
fn quantity(value: &Value) -> Option<i128> {
    let text = named(value);
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: i128 = match unit {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    let scale = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
    digits.checked_mul(factor)?.checked_div(scale)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_merge_by_key_and_nulls_say_nothing() {
        let mut base =
            json!({"containers": [{"name": "a", "image": "x", "env": [{"name": "K", "value": "1"}]}]});
        merge(
            &mut base,
            &json!({"containers": [{"name": "b"}, {"name": "a", "image": null, "env": [{"name": "L", "value": "2"}]}]}),
        );
        let expected = json!({"containers": [
            {"name": "a", "image": "x", "env": [{"name": "K", "value": "1"}, {"name": "L", "value": "2"}]},
            {"name": "b"}]});
        assert_eq!(base, expected);
    }

    #[test]
    fn an_item_somebody_added_in_front_is_no_drift() {
        let wanted = json!({"containers": [{"name": "a", "image": "x"}]});
        let held = json!({"containers": [{"name": "mesh"}, {"name": "a", "image": "x", "added": 1}]});
        assert!(holds(&held, &wanted));
        assert!(!holds(&json!({"containers": [{"name": "a", "image": "y"}]}), &wanted));
        assert!(!holds(&json!({"containers": [{"name": "mesh"}]}), &wanted));
    }

    #[test]
    fn a_selector_with_one_more_key_is_another_selector() {
        let of = |selector: Value| json!({"spec": {"selector": selector}});
        let wanted = of(json!({"pool": "chat"}));
        assert!(holds(&wanted, &wanted));
        assert!(!holds(&of(json!({"pool": "chat", "app": "x"})), &wanted));
        assert!(!holds(
            &of(json!({"matchLabels": {"a": "b", "c": "d"}})),
            &of(json!({"matchLabels": {"a": "b"}}))
        ));
    }

    #[test]
    fn a_quantity_in_another_spelling_is_the_same() {
        let of = |text: Value| json!({"resources": {"limits": {"cpu": text}}});
        assert!(holds(&of(json!("500m")), &of(json!("0.5"))));
        assert!(holds(&of(json!("1")), &of(json!(1))));
        assert!(holds(&of(json!("1Gi")), &of(json!("1024Mi"))));
        assert!(!holds(&of(json!("1G")), &of(json!("1Gi"))));
        assert!(!holds(&json!({"image": "1"}), &json!({"image": "1.0"})));
    }

    #[test]
    fn a_zero_may_be_left_out_but_not_in_a_security_context() {
        assert!(holds(&json!({}), &json!({"readOnly": false, "value": "", "env": []})));
        assert!(!holds(&json!({"securityContext": {}}), &json!({"securityContext": {"privileged": false}})));
        assert!(!holds(&json!({}), &json!({"replicas": 1})));
    }

    #[test]
    fn what_is_missing_is_named_by_its_path() {
        let mut told = Vec::new();
        let wanted = json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "TCP"}]}]}});
        missing(&json!({"spec": {"containers": [{"name": "a"}]}}), &wanted, &mut |path| {
            told.push(path.join("."));
        });
        assert_eq!(told, ["spec.containers.a.ports"]);
    }
}
