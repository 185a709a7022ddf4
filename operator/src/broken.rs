//! Objects that cannot be read as what they are: they are told so, and stall nobody.

use corral_crds::condition::cut;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::error_boundary::InvalidObject;
use serde_json::json;

use crate::apply::{ApplyError, Kind, Writer};
use crate::listmap;

/// Tells an object of kind `K` that it cannot be read, in a condition of the type `condition`. Nothing is written when it
/// says so already.
pub async fn tell<K: Kind>(
    writer: &Writer,
    broken: &InvalidObject,
    (condition, reason): (&str, &str),
) -> Result<(), ApplyError> {
    let meta = &broken.metadata;
    let (namespace, name) =
        (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let condition = json!({
        "type": condition, "status": "False", "reason": reason,
        "message": cut(format!("this object cannot be read: {}", broken.error)),
        "observedGeneration": meta.generation, "lastTransitionTime": meta.creation_timestamp,
    });
    let status = json!({"observedGeneration": meta.generation, "conditions": [condition]});
    let api: Api<DynamicObject> =
        Api::namespaced_with(writer.client(), namespace, &ApiResource::erase::<K>(&()));
    let Some(held) = api.get_opt(name).await? else { return Ok(()) };
    if held.data.get("status").is_some_and(|held| listmap::holds(held, &status)) {
        return Ok(());
    }
    writer.apply_status::<K>(namespace, name, &status).await
}
