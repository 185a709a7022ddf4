//! Deletion costs: what the ReplicaSet's controller goes by when it takes pods away, written on those that shall go, and
//! taken off those that shall not any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use corral_scaler::VICTIM_COST;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::observe::deletion_cost;
use crate::apply::{ApplyError, Writer};
use crate::names::DELETION_COST;

/// A pod whose deletion cost is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a pod of the same name that came in its place is left alone.
    pub uid: String,
    /// What it is, as far as was seen.
    pub held: i32,
    /// What it must be; none to take it off.
    pub cost: Option<i32>,
}

/// The pods whose cost has to change. A cost that is not ours is another's business as long as its pod may stay.
pub fn due(pods: &[Arc<Pod>], costs: &BTreeMap<String, i32>) -> Vec<Due> {
    pods.iter().filter_map(|pod| due_of(pod, costs)).collect()
}

fn due_of(pod: &Pod, costs: &BTreeMap<String, i32>) -> Option<Due> {
    let meta = &pod.metadata;
    let (uid, held) = (meta.uid.clone()?, deletion_cost(pod));
    let wanted = costs.get(&uid).copied();
    let stands = wanted.map_or(held != VICTIM_COST, |cost| cost == held);
    if stands || meta.deletion_timestamp.is_some() {
        return None;
    }
    Some(Due { namespace: meta.namespace.clone()?, name: meta.name.clone()?, uid, held, cost: wanted })
}

/// Writes one.
pub async fn write(writer: &Writer, due: &Due) -> Result<(), ApplyError> {
    let cost = due.cost.map(|cost| cost.to_string());
    writer.annotate::<Pod>((&due.namespace, &due.name), &due.uid, &json!({DELETION_COST: cost})).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, cost: Option<&str>) -> Arc<Pod> {
        let annotations = cost.map(|cost| json!({DELETION_COST: cost})).unwrap_or_default();
        let meta = json!({"name": uid, "namespace": "llm", "uid": uid, "annotations": annotations});
        Arc::new(serde_json::from_value(json!({"metadata": meta})).unwrap())
    }

    fn told(pods: &[Arc<Pod>], victims: &[&str]) -> Vec<(String, Option<i32>)> {
        let costs = victims.iter().map(|uid| ((*uid).to_owned(), VICTIM_COST)).collect();
        due(pods, &costs).into_iter().map(|due| (due.uid, due.cost)).collect()
    }

    #[test]
    fn a_cost_is_written_once_and_taken_off_when_its_pod_may_stay() {
        let ours = VICTIM_COST.to_string();
        let pods = [pod("a", None), pod("b", Some(&ours)), pod("c", Some("7")), pod("d", Some("x"))];
        assert_eq!(told(&pods, &["a", "b"]), [("a".to_owned(), Some(VICTIM_COST))]);
        assert_eq!(told(&pods, &[]), [("b".to_owned(), None)], "what another wrote stays");
        assert_eq!(told(&pods, &["b", "c"]), [("c".to_owned(), Some(VICTIM_COST))]);
    }
}
