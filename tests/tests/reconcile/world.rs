//! A small cluster: the fake API server, scripted pods, and the reconcilers, called pass by pass.

use std::sync::Arc;
use std::time::Duration;

use corral_crds::OllamaPool;
use corral_operator::activation::Activations;
use corral_operator::apply::Writer;
use corral_operator::backoff::Backoff;
use corral_operator::clock::{SharedClock, SystemClock};
use corral_operator::context::{Context, GuardedPolicy, GuardedPool, Stores};
use corral_operator::error::Error;
use corral_operator::events::Events;
use corral_operator::exchange::Exchange;
use corral_operator::lease::{Lease, LeaseSettings};
use corral_operator::metrics::Metrics;
use corral_operator::policy::record::Records;
use corral_operator::pool::build::{Defaults, secrets};
use corral_operator::pool::shortage::Shortages;
use corral_operator::scaling::Scalings;
use corral_operator::{policy, pool};
use corral_tests::fake_api::FakeApi;
use corral_tests::fake_api::store::Key;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Resource;
use kube::runtime::reflector::{self, store::Writer as StoreWriter};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::pods::{Sidecar, Sidecars};

pub(crate) const NS: &str = "llm";

struct Feeds {
    pools: StoreWriter<GuardedPool>,
    policies: StoreWriter<GuardedPolicy>,
    pods: StoreWriter<Pod>,
    activators: StoreWriter<Pod>,
}

pub(crate) struct World {
    pub(crate) api: FakeApi,
    pub(crate) ctx: Arc<Context>,
    pub(crate) sidecars: Sidecars,
    pub(crate) lease: Arc<Lease>,
    feeds: Feeds,
}

impl World {
    /// A world whose operator leads, with nothing in it.
    pub(crate) async fn new() -> Self {
        Self::on(FakeApi::new(), Sidecars::default(), "one").await
    }

    /// Another operator on a server that is there already.
    pub(crate) async fn on(api: FakeApi, sidecars: Sidecars, who: &str) -> Self {
        let clock: SharedClock = SystemClock::shared();
        let settings = LeaseSettings::new("corral", "operator", who);
        let lease = Arc::new(Lease::new(api.client(), settings, Arc::clone(&clock)));
        lease.acquire().await;
        let keeper = Arc::clone(&lease);
        tokio::spawn(async move { keeper.keep().await });
        let (pools, pool_feed) = reflector::store();
        let (policies, policy_feed) = reflector::store();
        let (pods, pod_feed) = reflector::store();
        let (activators, activator_feed) = reflector::store();
        let exchange = Exchange::new(Arc::new(sidecars.clone()), Arc::clone(&lease), Arc::clone(&clock));
        let runner = exchange.clone();
        tokio::spawn(async move { runner.run().await });
        let ctx = Context {
            writer: Writer::new(api.client(), Arc::clone(&lease)),
            stores: Stores { pools, policies, pods, activators },
            exchange,
            records: Records::default(),
            shortages: Shortages::default(),
            activations: Activations::new(Arc::new(sidecars.clone()), Arc::clone(&lease), Arc::clone(&clock)),
            scalings: Scalings::default(),
            events: Events::new(api.client(), who.to_owned()),
            clock,
            defaults: Defaults { sidecar_image: "corral/sidecar:1".to_owned() },
            metrics: Arc::new(Metrics::new()),
            pool_failures: Backoff::default(),
            policy_failures: Backoff::default(),
        };
        let feeds =
            Feeds { pools: pool_feed, policies: policy_feed, pods: pod_feed, activators: activator_feed };
        Self { api, ctx: Arc::new(ctx), sidecars, lease, feeds }
    }

    /// From now on it is an operator of a release with another sidecar.
    pub(crate) fn upgrade(&mut self, sidecar_image: &str) {
        Arc::get_mut(&mut self.ctx).unwrap().defaults.sidecar_image = sidecar_image.to_owned();
    }

    pub(crate) fn put_pool(&self, name: &str, spec: &Value) {
        self.put_labelled_pool(name, &json!({}), spec);
    }

    pub(crate) fn put_labelled_pool(&self, name: &str, labels: &Value, spec: &Value) {
        self.put_object("OllamaPool", "ollamapools", &json!({"name": name, "labels": labels}), spec);
    }

    pub(crate) fn put_policy(&self, name: &str, spec: &Value) {
        self.put_object("RateLimitPolicy", "ratelimitpolicies", &json!({"name": name}), spec);
    }

    /// A Secret of a user, with entries as text.
    pub(crate) fn put_secret(&self, name: &str, entries: &[(&str, &str)]) {
        let data =
            entries.iter().map(|(entry, value)| ((*entry).to_owned(), ByteString(value.as_bytes().to_vec())));
        let secret = Secret {
            metadata: serde_json::from_value(json!({"name": name, "namespace": NS})).unwrap(),
            data: Some(data.collect()),
            ..Secret::default()
        };
        self.api.put(&serde_json::to_value(secret).unwrap(), "secrets");
    }

    pub(crate) fn remove(&self, group: &str, plural: &str, name: &str) {
        self.api.store(|store| store.remove(&Key::new(group, plural, Some(NS), name)));
    }

    fn put_object(&self, kind: &str, plural: &str, metadata: &Value, spec: &Value) {
        let (name, mut metadata) = (metadata["name"].as_str().unwrap(), metadata.clone());
        metadata["namespace"] = json!(NS);
        let status = self.api.find("corral.dev", plural, NS, name).and_then(|old| old.get("status").cloned());
        let mut object = json!({"apiVersion": "corral.dev/v1alpha1", "kind": kind,
            "metadata": metadata, "spec": spec});
        if let Some(status) = status {
            object["status"] = status;
        }
        self.api.put(&object, plural);
    }

    /// A pod of a pool whose sidecar runs at `ip`.
    pub(crate) fn start_pod(&self, pool: &str, name: &str, ip: &str) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NS, "labels": {"corral.dev/pool": pool}},
            "spec": {"containers": [{"name": "ollama"}]},
            "status": {"phase": "Running", "podIP": ip,
                "initContainerStatuses": [{"name": "limiter", "ready": true, "restartCount": 0, "image": "x",
                    "imageID": "x", "state": {"running": {}}}]}});
        let stored = self.api.put(&pod, "pods");
        let mut sidecar = Sidecar::new(stored["metadata"]["uid"].as_str().unwrap());
        sidecar.keys = self.keys(pool);
        self.sidecars.0.lock().insert(ip.parse().unwrap(), sidecar);
    }

    /// Kubernetes calls a pod ready, or no longer.
    pub(crate) fn call_ready(&self, name: &str, ready: bool) {
        let mut pod = self.api.find("", "pods", NS, name).unwrap();
        let status = if ready { "True" } else { "False" };
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
        self.api.put(&pod, "pods");
    }

    pub(crate) fn end_pod(&self, name: &str, ip: &str) {
        self.api.store(|store| store.remove(&Key::new("", "pods", Some(NS), name)));
        self.sidecars.0.lock().remove(&ip.parse().unwrap());
    }

    pub(crate) fn keys(&self, pool: &str) -> Option<corral_wire::PoolKeys> {
        let secret: Secret = serde_json::from_value(self.secret(pool, "key")?).unwrap();
        secrets::keys(&secret).ok()
    }

    pub(crate) fn secret(&self, pool: &str, which: &str) -> Option<Value> {
        self.api.find("", "secrets", NS, &format!("{pool}-{which}"))
    }

    pub(crate) fn plan(&self, pool: &str) -> corral_wire::PlanDoc {
        let secret: Secret = serde_json::from_value(self.secret(pool, "plan").unwrap()).unwrap();
        secrets::plan(&secret).unwrap()
    }

    pub(crate) fn divisor(&self, pool: &str) -> u32 {
        let secret: Secret = serde_json::from_value(self.secret(pool, "plan").unwrap()).unwrap();
        secrets::divisor(&secret)
    }

    pub(crate) fn deployment(&self, pool: &str) -> Option<Value> {
        self.api.find("apps", "deployments", NS, pool)
    }

    /// Says of a Deployment that all its pods are there and ready.
    pub(crate) fn complete(&self, pool: &str) {
        let mut object = self.deployment(pool).unwrap();
        let replicas = object["spec"]["replicas"].clone();
        object["status"] = json!({"observedGeneration": object["metadata"]["generation"], "replicas": replicas,
            "updatedReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas});
        self.api.put(&object, "deployments");
    }

    pub(crate) fn condition(&self, plural: &str, name: &str, kind: &str) -> (String, String, String) {
        let object = self.api.find("corral.dev", plural, NS, name).unwrap();
        let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    pub(crate) fn ready(&self, pool: &str) -> (String, String) {
        let (status, reason, _) = self.condition("ollamapools", pool, "Ready");
        (status, reason)
    }

    pub(crate) fn programmed(&self, policy: &str) -> (String, String) {
        let (status, reason, _) = self.condition("ratelimitpolicies", policy, "Programmed");
        (status, reason)
    }

    /// Looks at everything once, and reconciles it once.
    pub(crate) async fn pass(&mut self) -> Vec<Error> {
        self.look();
        let mut errors = Vec::new();
        for object in self.ctx.stores.pools.state() {
            errors.extend(pool::reconcile(object, Arc::clone(&self.ctx)).await.err());
        }
        errors.extend(self.pass_policies().await);
        errors
    }

    /// Looks at everything once, and reconciles the policies alone.
    pub(crate) async fn pass_policies(&mut self) -> Vec<Error> {
        self.look();
        let mut errors = Vec::new();
        for object in self.ctx.stores.policies.state() {
            errors.extend(policy::reconcile(object, Arc::clone(&self.ctx)).await.err());
        }
        errors
    }

    /// Passes until one writes nothing; how many it took. The exchange gets its time in between.
    pub(crate) async fn settle(&mut self) -> usize {
        for pass in 1..60 {
            let before = self.writes();
            self.pass().await;
            if self.writes() == before && pass > 8 {
                return pass;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let writes = self.api.writes();
        let last: Vec<_> = writes.iter().rev().filter(|write| write.resource != "leases").take(3).collect();
        panic!("it does not come to rest: {last:?}");
    }

    /// Writes so far, but for those of the lease.
    pub(crate) fn writes(&self) -> usize {
        self.api.write_count()
    }

    fn look(&mut self) {
        feed(&mut self.feeds.pools, objects(&self.api, "ollamapools"));
        feed(&mut self.feeds.policies, objects(&self.api, "ratelimitpolicies"));
        feed(&mut self.feeds.pods, objects(&self.api, "pods"));
        feed(&mut self.feeds.activators, objects(&self.api, "pods"));
    }
}

fn objects<K: DeserializeOwned>(api: &FakeApi, plural: &str) -> Vec<K> {
    let all = api.store(|store| {
        let found = store.all().filter(|(key, _)| key.plural == plural);
        found.map(|(_, object)| object.clone()).collect::<Vec<_>>()
    });
    all.into_iter().map(|object| serde_json::from_value(object).unwrap()).collect()
}

fn feed<K>(writer: &mut StoreWriter<K>, objects: Vec<K>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
}

pub(crate) fn pool_spec(replicas: u32) -> Value {
    json!({"replicas": replicas, "gpu": {"vendor": "nvidia", "count": 1}})
}

pub(crate) fn policy_spec(pool: &str, requests: &str) -> Value {
    json!({"targetRefs": [{"kind": "OllamaPool", "name": pool}],
        "limits": [{"name": "per-client", "per": ["Client"], "requests": requests, "concurrency": 4}]})
}

/// A pool as the API server hands it out.
pub(crate) fn pool_of(spec: &Value) -> OllamaPool {
    serde_json::from_value(json!({"apiVersion": "corral.dev/v1alpha1", "kind": "OllamaPool",
        "metadata": {"name": "chat", "namespace": NS, "uid": "11111111-2222-4333-8444-555555555555",
            "generation": 1}, "spec": spec}))
    .unwrap()
}
