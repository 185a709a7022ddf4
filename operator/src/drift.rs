//! What others add where nobody may add anything.
//!
//! Server-side apply puts back what we set, and leaves alone what others add to it. Mostly that is right. But one more
//! container in a pod sits behind the limits, and one more port of a Service leads past them. What is there and whose it
//! is stands in `managedFields`; it is taken away with a merge patch, which removes and owns nothing. Selectors need none of
//! this: each is one value, which an apply puts back whole.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::listmap::key_part;
use crate::names::MANAGER;

/// Where in an object of a kind only what we set may be.
fn ground(kind: &str) -> &'static [&'static str] {
    match kind {
        "Deployment" => &["spec", "template", "spec"],
        "Service" => &["spec", "ports"],
        _ => &[],
    }
}

/// The merge patch that takes what others added to an object of this kind; none where nobody has.
pub fn healing(
    kind: &str,
    meta: &ObjectMeta,
    live: &impl Serialize,
    wanted: &Value,
) -> Result<Option<Value>, serde_json::Error> {
    let ground = ground(kind);
    let Some(ours) = wanted.pointer(&pointer(ground)).filter(|_| !ground.is_empty()) else { return Ok(None) };
    let all = meta.managed_fields.iter().flatten();
    if !all.filter(|entry| is_other(entry)).any(|entry| adds(entry, ground, ours)) {
        return Ok(None);
    }
    let live = serde_json::to_value(live)?;
    let Some(theirs) = live.pointer(&pointer(ground)) else { return Ok(None) };
    let mut patch = without_additions(theirs, ours);
    for field in ground.iter().rev() {
        patch = json!({ *field: patch });
    }
    if let Some(map) = patch.as_object_mut() {
        map.insert("metadata".to_owned(), json!({"uid": meta.uid, "resourceVersion": meta.resource_version}));
    }
    Ok(Some(patch))
}

fn pointer(ground: &[&str]) -> String {
    ground.iter().flat_map(|field| ["/", field]).collect()
}

/// Whether it is not us, and wrote the object itself: subresources reach none of the places.
fn is_other(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() != Some(MANAGER) && entry.subresource.as_deref().unwrap_or_default().is_empty()
}

fn adds(entry: &ManagedFieldsEntry, ground: &[&str], ours: &Value) -> bool {
    let path: String = ground.iter().flat_map(|field| ["/f:", field]).collect();
    let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.pointer(&path));
    fields.is_some_and(|fields| names_more(fields, ours))
}

/// Whether a set of fields, as `managedFields` spells it, names something that a value does not have.
fn names_more(fields: &Value, value: &Value) -> bool {
    let steps = fields.as_object().into_iter().flatten().filter(|(step, _)| *step != ".");
    steps.into_iter().any(|(step, below)| named(step, value).is_none_or(|value| names_more(below, value)))
}

/// What a step leads to: `f:` a field, `k:` an item of a list by its key, `v:` one by its value.
fn named<'a>(step: &str, value: &'a Value) -> Option<&'a Value> {
    let (kind, name) = step.split_once(':')?;
    let items = || value.as_array().into_iter().flatten();
    match kind {
        "f" => value.get(name),
        "k" => {
            let key: Map<String, Value> = serde_json::from_str(name).ok()?;
            items().find(|item| key.iter().all(|(field, wanted)| key_part(item, field) == *wanted))
        }
        "v" => {
            let wanted: Value = serde_json::from_str(name).ok()?;
            items().find(|item| **item == wanted)
        }
        _ => None,
    }
}

/// `wanted`, with a null for whatever else `live` holds. The server fills its own defaults in again.
fn without_additions(live: &Value, wanted: &Value) -> Value {
    let (Some(live), Some(map)) = (live.as_object(), wanted.as_object()) else { return wanted.clone() };
    let gone = live.keys().filter(|name| !map.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let kept = map.iter().map(|(name, wanted)| {
        (name.clone(), live.get(name).map_or_else(|| wanted.clone(), |live| without_additions(live, wanted)))
    });
    gone.chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(manager: &str, fields: &Value) -> ObjectMeta {
        let entry =
            json!({"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields});
        serde_json::from_value(json!({"uid": "u", "resourceVersion": "7", "managedFields": [entry]})).unwrap()
    }

    fn service(ports: &[i32]) -> Value {
        let ports: Vec<Value> = ports.iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
        json!({"spec": {"ports": ports}})
    }

    #[test]
    fn a_port_that_somebody_added_to_a_service_is_taken_away() {
        let port = json!({"k:{\"port\":11436,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}});
        let meta = meta("kubectl-edit", &json!({"f:spec": {"f:ports": port}}));
        let ours = service(&[11434]);
        let patch = healing("Service", &meta, &service(&[11434, 11436]), &ours).unwrap().unwrap();
        assert_eq!(patch["spec"]["ports"], ours["spec"]["ports"]);
        assert_eq!(patch["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
    }

    #[test]
    fn what_others_own_beside_us_or_elsewhere_is_left_alone() {
        let ours = service(&[11434]);
        let port = |port: u16| format!("k:{{\"port\":{port},\"protocol\":\"TCP\"}}");
        for (manager, fields) in [
            ("kubectl", json!({"f:spec": {"f:ports": {port(11434): {"f:port": {}}}}})),
            ("cloud", json!({"f:spec": {"f:externalIPs": {}}, "f:metadata": {"f:labels": {"f:x": {}}}})),
            (MANAGER, json!({"f:spec": {"f:ports": {port(1): {"f:port": {}}}}})),
        ] {
            let healing = healing("Service", &meta(manager, &fields), &ours, &ours).unwrap();
            assert_eq!(healing, None, "{manager}");
        }
        let restart =
            json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:restartedAt": {}}}}}});
        let deployment = json!({"spec": {"template": {"spec": {"containers": []}}}});
        let meta = meta("kubectl-rollout", &restart);
        assert_eq!(healing("Deployment", &meta, &deployment, &deployment).unwrap(), None);
    }

    #[test]
    fn a_container_or_a_field_of_a_pod_that_somebody_added_is_taken_away() {
        let of = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
        let ours = of(json!({"containers": [{"name": "ollama", "image": "o"}], "securityContext": {}}));
        let container = json!({"f:containers": {"k:{\"name\":\"spy\"}": {".": {}, "f:image": {}}}});
        for (fields, live) in [
            (
                container,
                json!({"containers": [{"name": "ollama"}, {"name": "spy"}], "dnsPolicy": "ClusterFirst"}),
            ),
            (json!({"f:hostNetwork": {}}), json!({"containers": [{"name": "ollama"}], "hostNetwork": true})),
            (
                json!({"f:containers": {"k:{\"name\":\"ollama\"}": {"f:command": {}}}}),
                json!({"containers": [{"name": "ollama", "command": ["sh"]}]}),
            ),
        ] {
            let fields = json!({"f:spec": {"f:template": {"f:spec": fields}}});
            let patch = healing("Deployment", &meta("kubectl-edit", &fields), &of(live), &ours);
            let patch = patch.unwrap().unwrap();
            let spec = &patch["spec"]["template"]["spec"];
            assert_eq!(spec["containers"], json!([{"name": "ollama", "image": "o"}]));
            assert!(spec.get("hostNetwork").is_none_or(Value::is_null));
        }
    }
}
