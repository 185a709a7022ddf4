//! A second writer: an HPA or a KEDA `ScaledObject` that is aimed at a pool which scales itself. Two that scale one pool
//! undo each other's work, so the operator says so and leaves the pool as it is while that stands.
//!
//! Neither is watched: both are listed once a minute, and only where a pool scales itself. A cluster without KEDA has none of
//! its objects, and is asked all the same: that needs no discovery, and notices when KEDA comes.

use std::collections::HashMap;
use std::time::Duration;

use corral_crds::GROUP;
use corral_wire::PoolRef;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;

/// How often they are looked for.
pub const EVERY: Duration = Duration::from_mins(1);
/// The most of a kind that one page lists.
const PAGE: u32 = 500;

/// Who else scales each pool, in words.
pub type SecondWriters = HashMap<PoolRef, String>;

/// A kind that scales others.
struct Kind {
    group: &'static str,
    version: &'static str,
    name: &'static str,
    plural: &'static str,
    /// The kind of its target where it names none.
    usual_target: &'static str,
}

/// A `ScaledObject` makes an HPA of its own; being last, it is the one that is named.
const KINDS: [Kind; 2] = [
    Kind {
        group: "autoscaling",
        version: "v2",
        name: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        usual_target: "",
    },
    Kind {
        group: "keda.sh",
        version: "v1alpha1",
        name: "ScaledObject",
        plural: "scaledobjects",
        usual_target: "Deployment",
    },
];

/// Looks for all of them in a namespace, or in all.
pub async fn look(client: &Client, namespace: Option<&str>) -> Result<SecondWriters, kube::Error> {
    let mut found = SecondWriters::new();
    for kind in &KINDS {
        for object in list(client, namespace, kind).await? {
            found.extend(aimed(kind, &object));
        }
    }
    Ok(found)
}

async fn list(
    client: &Client,
    namespace: Option<&str>,
    kind: &Kind,
) -> Result<Vec<DynamicObject>, kube::Error> {
    let gvk = GroupVersionKind::gvk(kind.group, kind.version, kind.name);
    let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let (mut all, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = match api.list(&params).await {
            // The cluster does not know the kind.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(all),
            page => page?,
        };
        all.extend(page.items);
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(all),
        }
    }
}

/// The pool that an object is aimed at, by itself or by its Deployment, which has the pool's name.
fn aimed(kind: &Kind, object: &DynamicObject) -> Option<(PoolRef, String)> {
    let target = object.data.pointer("/spec/scaleTargetRef")?;
    let word = |field: &str| target.get(field).and_then(Value::as_str);
    let (group, _) = word("apiVersion").unwrap_or_default().split_once('/').unwrap_or_default();
    let concerns = match word("kind").unwrap_or(kind.usual_target) {
        "OllamaPool" => group == GROUP,
        "Deployment" => matches!(group, "apps" | ""),
        _ => false,
    };
    let pool = PoolRef { namespace: object.metadata.namespace.clone()?, name: word("name")?.to_owned() };
    let name = object.metadata.name.as_deref()?;
    concerns.then(|| (pool, format!("{} {name}", kind.name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(kind: &Kind, target: &Value) -> Option<String> {
        let object = serde_json::from_value(json!({
            "metadata": {"name": "x", "namespace": "llm"}, "spec": {"scaleTargetRef": target}}));
        let (pool, who) = aimed(kind, &object.unwrap())?;
        assert_eq!(pool.namespace, "llm");
        Some(format!("{who} on {}", pool.name))
    }

    #[test]
    fn what_scales_the_pool_or_its_deployment_is_found_and_nothing_else() {
        let [hpa, keda] = &KINDS;
        let pool = json!({"apiVersion": "corral.dev/v1alpha1", "kind": "OllamaPool", "name": "chat"});
        assert_eq!(found(hpa, &pool).as_deref(), Some("HorizontalPodAutoscaler x on chat"));
        assert_eq!(found(keda, &pool).as_deref(), Some("ScaledObject x on chat"));
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"});
        assert_eq!(found(hpa, &deployment).as_deref(), Some("HorizontalPodAutoscaler x on chat"));
        assert_eq!(found(keda, &json!({"name": "chat"})).as_deref(), Some("ScaledObject x on chat"));
        assert_eq!(
            found(hpa, &json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "chat"})),
            None
        );
        let other = json!({"apiVersion": "example.org/v1", "kind": "OllamaPool", "name": "chat"});
        assert_eq!(found(hpa, &other), None);
        assert_eq!(found(hpa, &json!({})), None);
    }
}
