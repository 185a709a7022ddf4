//! Where new connections to a Service are sent, and where they are not.

use anyhow::Result;
use serde_json::Value;

use super::pool::PoolPod;
use super::scene::Scene;

impl Scene {
    /// Addresses in the `EndpointSlices` of a Service that new connections are not sent to.
    pub fn out_of_service(&self, service: &str) -> Result<Vec<String>> {
        let label = label(service);
        let words = ["endpointslices", "--namespace", &self.namespace, "--selector", &label];
        Ok(out(&self.cluster.get(&words)?))
    }

    /// Where the API server has the `EndpointSlices` of a Service.
    pub fn slices_path(&self, service: &str) -> String {
        let label = label(service).replace('/', "%2F").replace('=', "%3D");
        format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector={label}",
            self.namespace
        )
    }
}

fn label(service: &str) -> String {
    format!("kubernetes.io/service-name={service}")
}

/// Addresses in a list of `EndpointSlices` that new connections are not sent to.
pub fn out(slices: &Value) -> Vec<String> {
    let slices = slices.get("items").and_then(Value::as_array);
    let endpoints = slices.into_iter().flatten().filter_map(|slice| slice.get("endpoints")?.as_array());
    let unready = |e: &&Value| e.pointer("/conditions/ready").and_then(Value::as_bool) != Some(true);
    let addresses = endpoints.flatten().filter(unready).filter_map(|e| e.pointer("/addresses/0")?.as_str());
    addresses.map(str::to_owned).collect()
}

/// Whether an address is this pod's.
pub fn is(pod: &PoolPod, address: &str) -> bool {
    pod.ip.is_some_and(|own| own.to_string() == address)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_endpoint_that_does_not_say_that_it_is_ready_is_out() {
        let endpoint =
            |ip: &str, ready: Value| json!({ "addresses": [ip], "conditions": { "ready": ready } });
        let list = json!({ "items": [
            { "endpoints": [endpoint("10.0.0.1", json!(true)), endpoint("10.0.0.2", json!(false))] },
            { "endpoints": [endpoint("10.0.0.3", Value::Null)] },
            { "endpoints": null },
        ] });
        assert_eq!(out(&list), ["10.0.0.2", "10.0.0.3"]);
        assert!(out(&json!({})).is_empty());
    }
}
