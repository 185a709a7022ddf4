//! What is there in the end, without what differs between two runs by nature: times, versions, keys, terms and sequences.

use corral_operator::pool::build::secrets;
use corral_tests::fake_api::FakeApi;
use corral_wire::PlanDoc;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

/// Every object by its resource and name, but for leases, events and pods.
pub(crate) fn shape(api: &FakeApi) -> Vec<(String, Value)> {
    let objects = api.store(|store| {
        let ours =
            store.all().filter(|(key, _)| !matches!(key.plural.as_str(), "leases" | "events" | "pods"));
        ours.map(|(key, object)| (format!("{}/{}", key.plural, key.name), object.clone())).collect::<Vec<_>>()
    });
    objects.into_iter().map(|(name, object)| (name.clone(), stripped(&name, object))).collect()
}

fn stripped(name: &str, mut object: Value) -> Value {
    for owner in object["metadata"]["ownerReferences"].as_array_mut().into_iter().flatten() {
        owner["uid"] = json!("");
    }
    for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        object["metadata"].as_object_mut().unwrap().remove(field);
    }
    if name.ends_with("-key") {
        object["data"] = Value::Null;
        object["metadata"]["annotations"] = Value::Null;
    }
    if name.ends_with("-plan") {
        read_plan(&mut object);
    }
    blank_times(&mut object);
    object
}

/// The plan as it reads, without its sequence: how often it was made anew differs with what was seen in one look.
fn read_plan(object: &mut Value) {
    let secret: Secret = serde_json::from_value(object.clone()).unwrap();
    let plan = PlanDoc { sequence: 0, ..secrets::plan(&secret).unwrap() };
    object["data"] = json!({"plan": plan, "divisor": secrets::divisor(&secret)});
}

fn blank_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| name != "lastTransitionTime" && name != "corral.dev/applied");
            map.values_mut().for_each(blank_times);
        }
        Value::Array(items) => {
            items.iter_mut().for_each(blank_times);
            // The order of conditions is the order in which they were first told.
            if items.iter().all(|item| item.get("reason").is_some()) {
                items.sort_by_key(|item| item["type"].to_string());
            }
        }
        _ => {}
    }
}
