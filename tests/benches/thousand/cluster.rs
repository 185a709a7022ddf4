//! What the operator finds: pools, policies and pods at a fake API server, and a Deployment controller that only counts.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use corral_operator::pool::build::secrets;
use corral_tests::fake_api::FakeApi;
use corral_tests::fake_api::socket::Listening;
use corral_tests::fake_api::store::Key;
use corral_wire::{PoolKeys, PoolRef};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::sidecars::Pod;

pub(crate) const NAMESPACE: &str = "llm";
pub(crate) const POOLS: u8 = 10;
pub(crate) const PODS_OF_EACH: u8 = 100;
/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon the Deployments' controller has looked at a change.
const CONTROLLER: Duration = Duration::from_millis(500);

pub(crate) struct Cluster {
    pub(crate) api: FakeApi,
    listening: Listening,
}

impl Cluster {
    /// A cluster with pools that have no pods yet.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let api = FakeApi::new();
        for number in 0..POOLS {
            api.put(&pool(number), "ollamapools");
            api.put(&policy(number), "ratelimitpolicies");
        }
        let listening = Listening::start(&api).await?;
        Ok(Self { api, listening })
    }

    pub(crate) fn kubeconfig(&self) -> String {
        self.listening.kubeconfig()
    }

    /// Gives each pool its pods, as soon as the operator has made what they need.
    pub(crate) async fn populate(&self) -> anyhow::Result<Vec<Arc<Pod>>> {
        let mut pods = Vec::new();
        for number in 0..POOLS {
            let (template, keys) = self.made_for(number).await?;
            for ordinal in 0..PODS_OF_EACH {
                pods.push(self.populate_one((number, ordinal), &template, &keys).await?);
            }
        }
        Ok(pods)
    }

    async fn made_for(&self, number: u8) -> anyhow::Result<(Value, PoolKeys)> {
        let until = Instant::now() + PATIENCE;
        loop {
            let deployment = self.api.find("apps", "deployments", NAMESPACE, &name(number));
            let secret = self.api.find("", "secrets", NAMESPACE, &format!("{}-key", name(number)));
            if let (Some(deployment), Some(secret)) = (deployment, secret) {
                let secret: Secret = serde_json::from_value(secret)?;
                let template = deployment.pointer("/spec/template").context("a Deployment has a template")?;
                return Ok((template.clone(), secrets::keys(&secret)?));
            }
            ensure!(Instant::now() < until, "the operator has made nothing for {}", name(number));
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn populate_one(
        &self,
        (number, ordinal): (u8, u8),
        template: &Value,
        keys: &PoolKeys,
    ) -> anyhow::Result<Arc<Pod>> {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 1, number, ordinal.saturating_add(1)));
        let mut object = pod(&format!("{}-{ordinal}", name(number)), template);
        let stored = self.api.put(&object, "pods");
        let uid = stored.pointer("/metadata/uid").and_then(Value::as_str).context("a pod has a UID")?;
        let pool = PoolRef { namespace: NAMESPACE.to_owned(), name: name(number) };
        let live = Pod::start(ip, uid, pool, keys.clone()).await?;
        let status = running(ip);
        object.as_object_mut().context("a pod is an object")?.insert("status".to_owned(), status);
        self.api.put(&object, "pods");
        Ok(live)
    }

    /// How many pods a pool's Deployment is asked for.
    pub(crate) fn asked(&self, number: u8) -> u64 {
        let key = Key::new("apps", "deployments", Some(NAMESPACE), &name(number));
        self.api.store(|store| store.get(&key)?.pointer("/spec/replicas")?.as_u64()).unwrap_or(0)
    }

    /// Writes to pods since the server was last told to forget.
    pub(crate) fn pod_writes(&self) -> usize {
        let all = self.api.writes().into_iter();
        all.filter(|write| write.resource.split('/').next() == Some("pods")).count()
    }
}

pub(crate) fn name(number: u8) -> String {
    format!("pool-{number}")
}

fn pool(number: u8) -> Value {
    json!({"apiVersion": "corral.dev/v1alpha1", "kind": "OllamaPool",
        "metadata": {"name": name(number), "namespace": NAMESPACE},
        "spec": {"replicas": PODS_OF_EACH, "gpu": {"vendor": "nvidia", "count": 1}, "ollama": {"numParallel": 4},
            "autoscaling": {"minReplicas": PODS_OF_EACH, "maxReplicas": 1000}}})
}

fn policy(number: u8) -> Value {
    json!({"apiVersion": "corral.dev/v1alpha1", "kind": "RateLimitPolicy",
        "metadata": {"name": name(number), "namespace": NAMESPACE},
        "spec": {"targetRefs": [{"kind": "OllamaPool", "name": name(number)}],
            "limits": [{"name": "per-client", "per": ["Client"], "requests": "60/1m", "concurrency": 4}]}})
}

/// A pod as the Deployment would make it.
fn pod(name: &str, template: &Value) -> Value {
    let at = |pointer: &str| template.pointer(pointer).cloned().unwrap_or_default();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": at("/metadata/labels"),
            "annotations": at("/metadata/annotations")},
        "spec": at("/spec")})
}

fn running(ip: IpAddr) -> Value {
    let since = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": since});
    let container = |name: &str| {
        json!({"name": name, "ready": true, "started": true, "restartCount": 0, "image": "x", "imageID": "x",
            "state": {"running": {"startedAt": since}}})
    };
    json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": since,
        "conditions": [condition("PodScheduled"), condition("Initialized"), condition("ContainersReady"), condition("Ready")],
        "initContainerStatuses": [container("limiter")], "containerStatuses": [container("ollama")]})
}

/// Says of each Deployment that its controller has seen it, and that all pods that there are serve; as long as it is polled.
pub(crate) async fn tell_statuses(api: FakeApi) {
    loop {
        for number in 0..POOLS {
            tell_status(&api, &name(number));
        }
        sleep(CONTROLLER).await;
    }
}

fn tell_status(api: &FakeApi, name: &str) {
    let Some(mut object) = api.find("apps", "deployments", NAMESPACE, name) else { return };
    let generation = object.pointer("/metadata/generation").cloned();
    if object.pointer("/status/observedGeneration") == generation.as_ref() {
        return;
    }
    let pods = PODS_OF_EACH;
    let status = json!({"observedGeneration": generation, "replicas": pods, "updatedReplicas": pods,
        "readyReplicas": pods, "availableReplicas": pods});
    if let Some(map) = object.as_object_mut() {
        map.insert("status".to_owned(), status);
        api.put(&object, "deployments");
    }
}
