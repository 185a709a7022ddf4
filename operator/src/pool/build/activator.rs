//! The activator of a pool that goes to zero: two small pods that have the Service's traffic while the pool has none, and the
//! `EndpointSlice` that brings it to them.
//!
//! Their pods have not the pool's label, or the Service would take them for pods of the pool. The slice stands beside the
//! one that Kubernetes makes from the Service's selector; kube-proxy serves both.

use std::net::IpAddr;

use corral_crds::pool::ScaleToZero;
use corral_wire::activation::memory_bytes;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    Container, ObjectReference, PodSpec, PodTemplateSpec, ResourceRequirements, TopologySpreadConstraint,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Defaults;
use super::pod::{secret, security};
use super::sidecar::{self, BINARY, KEYS_DIR, PLAN_DIR};
use super::values::{mount, probe, restricted};
use crate::names;
use crate::pool::validate::ValidPool;

/// One may go at any time: the other one holds what comes.
const REPLICAS: i32 = 2;
/// How long one that ends still takes what comes by endpoint lists that do not know it yet.
const DRAIN_DELAY_SECONDS: i64 = 5;
/// How long it gets above its drain, for its process to end.
const AFTER_DRAIN_SECONDS: i64 = 20;
/// Who writes the slice: Kubernetes' own controllers leave it alone.
const MANAGED_BY: &str = "corral.dev";

/// An activator that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The name of its pod.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its address.
    pub ip: IpAddr,
}

/// The Deployment. Without `zero` it has no pods: the pool does not go to zero any more.
pub fn deployment(pool: &ValidPool, zero: Option<&ScaleToZero>, defaults: &Defaults) -> Deployment {
    let usual = ScaleToZero::default();
    Deployment {
        metadata: pool.object_meta(&names::activator(&pool.name)),
        spec: Some(DeploymentSpec {
            replicas: Some(if zero.is_some() { REPLICAS } else { 0 }),
            selector: selects(pool),
            template: template(pool, zero.unwrap_or(&usual), defaults),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// Node drains take one at a time.
pub fn budget(pool: &ValidPool) -> PodDisruptionBudget {
    let spec = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(1)),
        selector: Some(selects(pool)),
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..PodDisruptionBudgetSpec::default()
    };
    PodDisruptionBudget {
        metadata: pool.object_meta(&names::activator(&pool.name)),
        spec: Some(spec),
        status: None,
    }
}

/// The slice that brings the Service's traffic to these activators; with none of them it brings none. All of it is of
/// one family of addresses, that of the first.
pub fn slice(pool: &ValidPool, ready: &[Ready]) -> EndpointSlice {
    let mut metadata = pool.object_meta(&names::activator(&pool.name));
    let labels = metadata.labels.get_or_insert_default();
    labels.insert("kubernetes.io/service-name".to_owned(), pool.name.clone());
    labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned());
    let six = ready.first().is_some_and(|ready| ready.ip.is_ipv6());
    let one_family = ready.iter().filter(|ready| ready.ip.is_ipv6() == six);
    EndpointSlice {
        metadata,
        address_type: if six { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: one_family.map(|ready| endpoint(pool, ready)).collect(),
        ports: Some(vec![EndpointPort {
            // As the Service names it: by the name the two are matched.
            name: Some("http".to_owned()),
            port: Some(i32::from(corral_wire::ports::CLIENT)),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        }]),
    }
}

fn endpoint(pool: &ValidPool, ready: &Ready) -> Endpoint {
    Endpoint {
        addresses: vec![ready.ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        }),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(pool.namespace.clone()),
            name: Some(ready.name.clone()),
            uid: Some(ready.uid.clone()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn selects(pool: &ValidPool) -> LabelSelector {
    LabelSelector { match_labels: Some(names::activator_selector(&pool.name)), ..LabelSelector::default() }
}

fn template(pool: &ValidPool, zero: &ScaleToZero, defaults: &Defaults) -> PodTemplateSpec {
    let mut labels = names::activator_selector(&pool.name);
    labels.insert("app.kubernetes.io/name".to_owned(), "corral-activator".to_owned());
    labels.insert("app.kubernetes.io/instance".to_owned(), pool.name.clone());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "corral".to_owned());
    labels.insert("sidecar.istio.io/inject".to_owned(), "false".to_owned());
    let annotations = [("linkerd.io/inject".to_owned(), "disabled".to_owned())];
    let metadata =
        ObjectMeta { labels: Some(labels), annotations: Some(annotations.into()), ..ObjectMeta::default() };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec(pool, zero, defaults)) }
}

fn spec(pool: &ValidPool, zero: &ScaleToZero, defaults: &Defaults) -> PodSpec {
    let grace = drain_seconds(pool, zero) + AFTER_DRAIN_SECONDS;
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        containers: vec![container(pool, zero, defaults)],
        security_context: Some(security()),
        termination_grace_period_seconds: Some(grace),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(selects(pool)),
            ..TopologySpreadConstraint::default()
        }]),
        volumes: Some(vec![
            secret("corral-plan", &names::plan_secret(&pool.name)),
            secret("corral-keys", &names::key_secret(&pool.name)),
        ]),
        ..PodSpec::default()
    }
}

fn container(pool: &ValidPool, zero: &ScaleToZero, defaults: &Defaults) -> Container {
    let image = pool.spec.sidecar.image.as_ref().unwrap_or(&defaults.sidecar_image);
    Container {
        name: names::ACTIVATOR.to_owned(),
        image: Some(image.clone()),
        command: Some(vec![BINARY.to_owned()]),
        args: Some(args(pool, zero)),
        env: Some(sidecar::identity()),
        ports: Some(sidecar::ports()),
        resources: Some(resources(zero)),
        startup_probe: Some(probe("/startupz", 1, 60)),
        readiness_probe: Some(probe("/readyz", 1, 1)),
        liveness_probe: Some(probe("/livez", 10, 3)),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![mount("corral-plan", PLAN_DIR, true), mount("corral-keys", KEYS_DIR, true)]),
        ..Container::default()
    }
}

fn args(pool: &ValidPool, zero: &ScaleToZero) -> Vec<String> {
    let bytes = u64::from(mebibytes(zero)) << 20;
    vec![
        "activator".to_owned(),
        format!("--pool={}/{}", pool.namespace, pool.name),
        format!("--plan-file={PLAN_DIR}/{}", names::plan_key()),
        format!("--keys-dir={KEYS_DIR}"),
        format!("--max-held-requests={}", zero.max_held_requests),
        format!("--max-held-bytes={bytes}"),
        format!("--max-hold={}s", zero.max_hold_seconds),
        format!("--drain-delay={DRAIN_DELAY_SECONDS}s"),
        format!("--drain-timeout={}s", drain_seconds(pool, zero)),
    ]
}

/// As long as anything is held, and as long as a pod of the pool would let an answer go on that passes through here.
fn drain_seconds(pool: &ValidPool, zero: &ScaleToZero) -> i64 {
    let held = i64::from(zero.max_hold_seconds) + DRAIN_DELAY_SECONDS;
    held.max(i64::from(pool.spec.drain.timeout_seconds))
}

fn mebibytes(zero: &ScaleToZero) -> u32 {
    zero.held_mebibytes().unwrap_or(64)
}

/// What the sidecar reckons with for what it may hold.
fn resources(zero: &ScaleToZero) -> ResourceRequirements {
    let bytes = u64::from(mebibytes(zero)) << 20;
    let most = memory_bytes(zero.max_held_requests, bytes).div_ceil(1 << 20);
    let of = |pairs: &[(&str, String)]| {
        Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), Quantity(value.clone()))).collect())
    };
    ResourceRequirements {
        requests: of(&[("cpu", "20m".to_owned()), ("memory", "32Mi".to_owned())]),
        limits: of(&[("memory", format!("{most}Mi"))]),
        ..ResourceRequirements::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pool() -> ValidPool {
        let spec = serde_json::from_str(r#"{"sidecar": {"image": "own/sidecar:2"}}"#).unwrap();
        ValidPool {
            name: "chat".to_owned(),
            namespace: "llm".to_owned(),
            uid: "u-1".to_owned(),
            labels: BTreeMap::new(),
            spec,
            update: None,
        }
    }

    fn built(zero: Option<&ScaleToZero>) -> serde_json::Value {
        let defaults = Defaults { sidecar_image: "corral/sidecar:1".to_owned() };
        serde_json::to_value(deployment(&pool(), zero, &defaults)).unwrap()
    }

    #[test]
    fn an_activator_is_no_pod_of_the_pool_and_has_no_token() {
        let built = built(Some(&ScaleToZero::default()));
        let labels = &built["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels["corral.dev/activator"], "chat");
        assert!(labels.get(names::POOL_LABEL).is_none(), "{labels}");
        assert_eq!(built["metadata"]["labels"][names::POOL_LABEL], "chat", "the Deployment is the pool's");
        let spec = &built["spec"]["template"]["spec"];
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(built["spec"]["replicas"], 2);
        assert_eq!(spec["containers"][0]["image"], "own/sidecar:2");
    }

    #[test]
    fn every_field_of_scale_to_zero_that_is_about_holding_reaches_the_activator() {
        let zero = ScaleToZero {
            idle_after_seconds: 60,
            max_hold_seconds: 30,
            max_held_requests: 500,
            max_held_bytes: "8Mi".to_owned(),
        };
        let built = built(Some(&zero));
        let spec = &built["spec"]["template"]["spec"];
        let args = spec["containers"][0]["args"].as_array().unwrap();
        for arg in [
            "activator",
            "--pool=llm/chat",
            "--max-held-requests=500",
            "--max-held-bytes=8388608",
            "--max-hold=30s",
        ] {
            assert!(args.iter().any(|given| given == arg), "{arg}: {args:?}");
        }
        assert!(args.iter().any(|given| given == "--drain-timeout=300s"), "as long as a pod's: {args:?}");
        assert_eq!(spec["terminationGracePeriodSeconds"], 320);
        assert_eq!(spec["containers"][0]["resources"]["limits"]["memory"], "277Mi");
    }

    #[test]
    fn a_pool_that_goes_to_zero_no_more_has_no_activator() {
        assert_eq!(built(None)["spec"]["replicas"], 0);
        assert_eq!(slice(&pool(), &[]).endpoints, []);
    }

    #[test]
    fn the_slice_stands_beside_the_selectors_under_the_service_and_is_of_one_family() {
        let ready = |name: &str, ip: &str| Ready {
            name: name.to_owned(),
            uid: format!("u-{name}"),
            ip: ip.parse().unwrap(),
        };
        let slice = slice(&pool(), &[ready("a", "10.0.0.7"), ready("b", "10.0.0.8"), ready("c", "fd00::9")]);
        let labels = slice.metadata.labels.unwrap();
        assert_eq!(labels["kubernetes.io/service-name"], "chat");
        assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "corral.dev");
        assert_eq!(slice.address_type, "IPv4");
        let addresses: Vec<&str> =
            slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses).map(String::as_str).collect();
        assert_eq!(addresses, ["10.0.0.7", "10.0.0.8"]);
        let port = &slice.ports.unwrap()[0];
        assert_eq!((port.name.as_deref(), port.port), (Some("http"), Some(11434)));
    }
}
