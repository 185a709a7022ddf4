//! Pools and policies of a story.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::condition;
use super::scene::Scene;
use crate::artifacts::images::OLLAMA;
use crate::cluster::addresses::node_name;

/// Where the sidecar takes clients.
pub const CLIENT_PORT: u16 = 11434;
/// Where Ollama listens, on the pod's loopback only.
pub const OLLAMA_PORT: u16 = 11435;
/// Where the sidecar takes probes and the exchange.
pub const ADMIN_PORT: u16 = 11436;

/// A pod of a pool.
#[derive(Debug, Clone)]
pub struct PoolPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Another pod of the same name would have another one.
    pub uid: String,
    /// The node it runs on; empty while it waits for one.
    pub node: String,
    /// Its own address, if it has one yet.
    pub ip: Option<IpAddr>,
    /// Whether Kubernetes counts it as ready.
    pub ready: bool,
    /// Whether it is on its way out.
    pub leaving: bool,
    /// How often each of its containers was started again, by name.
    pub restarts: Vec<(String, u64)>,
}

impl PoolPod {
    fn new(pod: &Value) -> Self {
        let text =
            |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        let ready =
            |c: &Value| c.get("type") == Some(&json!("Ready")) && c.get("status") == Some(&json!("True"));
        Self {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
            node: text("/spec/nodeName"),
            ip: text("/status/podIP").parse().ok(),
            ready: conditions.into_iter().flatten().any(ready),
            leaving: pod.pointer("/metadata/deletionTimestamp").is_some(),
            restarts: statuses(pod)
                .filter_map(|(name, status)| Some((name, status.get("restartCount")?.as_u64()?)))
                .collect(),
        }
    }

    /// How often this container was started again.
    pub fn restarts_of(&self, container: &str) -> u64 {
        self.restarts.iter().find(|(name, _)| name == container).map_or(0, |(_, count)| *count)
    }

    /// The number of its node.
    pub fn node_number(&self) -> usize {
        usize::from(self.node == node_name(1))
    }

    /// Where its sidecar takes clients.
    pub fn client_port(&self) -> Result<SocketAddr> {
        self.port(CLIENT_PORT)
    }

    /// One of its ports.
    pub fn port(&self, port: u16) -> Result<SocketAddr> {
        let ip = self.ip.with_context(|| format!("{} has no address yet", self.name))?;
        Ok(SocketAddr::new(ip, port))
    }
}

/// The statuses of all containers of a pod, sidecars included, by name.
fn statuses(pod: &Value) -> impl Iterator<Item = (String, &Value)> {
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let all = lists.into_iter().filter_map(|list| pod.pointer(list)?.as_array()).flatten();
    all.filter_map(|status| Some((status.get("name")?.as_str()?.to_owned(), status)))
}

impl Scene {
    /// The extended resource that is this story's alone.
    pub fn resource(&self) -> String {
        format!("corral.test/{}", self.namespace)
    }

    /// Gives a node this many of the story's GPUs.
    pub fn gpus(&self, node: usize, count: u32) -> Result<()> {
        self.cluster.set_capacity(&node_name(node), &self.resource(), count)
    }

    /// Puts the tiny models within reach of the namespace's pods.
    pub fn models(&self) -> Result<()> {
        // A volume that an earlier run's claim was bound to binds to no other.
        let volume = format!("models-{}", self.namespace);
        self.cluster.kubectl(["delete", "persistentvolume", &volume, "--ignore-not-found"]).run()?;
        self.apply(include_str!("../../manifests/models.yaml"))?;
        // The scheduler comes back only after some seconds to a pod whose claim was not bound yet.
        self.wait_for("jsonpath={.status.phase}=Bound", "persistentvolumeclaim/models")
    }

    /// A pool of this many replicas with one of the story's GPUs each, quick in all it does.
    pub fn pool(&self, name: &str, replicas: u32) -> Value {
        json!({
            "apiVersion": "corral.dev/v1alpha1",
            "kind": "OllamaPool",
            "metadata": { "name": name },
            "spec": {
                "replicas": replicas,
                "image": OLLAMA,
                "gpu": { "vendor": "nvidia", "count": 1, "resourceName": self.resource() },
                "ollama": { "numParallel": 2, "contextLength": 2048, "keepAlive": "-1" },
                "storage": { "persistentVolumeClaim": { "claimName": "models", "readOnly": true } },
                "drain": { "delaySeconds": 0, "timeoutSeconds": 10 },
            },
        })
    }

    /// Applies such a pool on GPUs of the first node, with the models, and waits until it serves.
    pub fn serving_pool(&self, name: &str, replicas: u32) -> Result<Vec<PoolPod>> {
        self.serving(&self.pool(name, replicas))
    }

    /// The same with a pool that was changed.
    pub fn serving(&self, pool: &Value) -> Result<Vec<PoolPod>> {
        let name = pool.pointer("/metadata/name").and_then(Value::as_str).context("a pool has a name")?;
        let replicas =
            pool.pointer("/spec/replicas").and_then(Value::as_u64).context("a pool has replicas")?;
        self.models()?;
        self.gpus(0, u32::try_from(replicas)?)?;
        self.apply(&pool.to_string())?;
        self.pool_serves(name, usize::try_from(replicas)?)
    }

    /// Waits until a pool is Ready with this many pods, and gives them.
    pub fn pool_serves(&self, name: &str, replicas: usize) -> Result<Vec<PoolPod>> {
        let object = format!("ollamapool/{name}");
        self.until(&format!("the pool {name} is Ready with {replicas} pods"), || {
            let pool = self.get(&object)?;
            let ready = pool.pointer("/status/readyReplicas").and_then(Value::as_u64).unwrap_or(0);
            let pods = self.pods_of(name)?;
            let serving = condition::holds(&pool, "Ready", "True")
                && ready == replicas as u64
                && pods.len() == replicas
                && pods.iter().all(|pod| pod.ready);
            let why = || format!("{}; {}", condition::summary(&pool), describe(&pods));
            Ok(if serving { Ok(pods) } else { Err(why()) })
        })
    }

    /// The pods of a pool that are not on their way out, by name.
    pub fn pods_of(&self, pool: &str) -> Result<Vec<PoolPod>> {
        let selector = self.field(&format!("ollamapool/{pool}"), "/status/selector")?;
        if selector.is_empty() {
            return Ok(Vec::new());
        }
        self.pods_with(&self.namespace, &selector)
    }

    /// The pods of a namespace with these labels that are not on their way out, by name.
    pub fn pods_with(&self, namespace: &str, selector: &str) -> Result<Vec<PoolPod>> {
        let pods = self.every_pod_with(namespace, selector)?;
        Ok(pods.into_iter().filter(|pod| !pod.leaving).collect())
    }

    /// The same with those that are on their way out.
    pub fn every_pod_with(&self, namespace: &str, selector: &str) -> Result<Vec<PoolPod>> {
        let list = self.cluster.get(&["pods", "--namespace", namespace, "--selector", selector])?;
        let items = list.get("items").and_then(Value::as_array);
        Ok(items.into_iter().flatten().map(PoolPod::new).collect())
    }

    /// Sets how many replicas a pool has, through its scale subresource.
    pub fn scale(&self, pool: &str, replicas: u32) -> Result<()> {
        let (object, count) = (format!("ollamapool/{pool}"), format!("--replicas={replicas}"));
        self.cluster.kubectl(["scale", &object, &count, "--namespace", &self.namespace]).run().map(drop)
    }

    /// Applies a policy and waits until every pod enforces it. Gives the policy with its status.
    pub fn enforced_policy(&self, policy: &Value) -> Result<Value> {
        self.apply(&policy.to_string())?;
        let name = policy.pointer("/metadata/name").and_then(Value::as_str).context("a policy has a name")?;
        let object = format!("ratelimitpolicy/{name}");
        self.until_condition(&object, "Programmed", "True")?;
        let now = self.get(&object)?;
        ensure!(condition::holds(&now, "Accepted", "True"), "Programmed, but {}", condition::summary(&now));
        Ok(now)
    }

    /// What the first limit of a policy lets through, as its status says it.
    pub fn stated_bound(&self, policy: &Value) -> String {
        policy.pointer("/status/limits/0/bound").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The name that containerd has for a container of a pod.
    pub fn container_id(&self, pod: &PoolPod, container: &str) -> Result<String> {
        let object = self.cluster.get(&["pod", &pod.name, "--namespace", &pod.namespace])?;
        let status = statuses(&object).find(|(name, _)| name == container);
        let id = status.and_then(|(_, status)| status.get("containerID")?.as_str()?.rsplit('/').next());
        id.map(str::to_owned).with_context(|| format!("{} has no container {container}", pod.name))
    }

    /// The process that a container of a pod was started as, on this machine.
    pub fn pid_of(&self, pod: &PoolPod, container: &str) -> Result<u32> {
        let id = self.container_id(pod, container)?;
        let tasks = self.cluster.ctr(pod.node_number()).args(["tasks", "list"]).read()?;
        let line =
            tasks.lines().find(|line| line.starts_with(&id)).with_context(|| format!("no task {id}"))?;
        Ok(line.split_whitespace().nth(1).context("a task has a pid")?.parse()?)
    }

    /// Where a container of a pod has its network: what is asked from there comes from the pod's address.
    pub fn network_of(&self, pod: &PoolPod, container: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/ns/net", self.pid_of(pod, container)?)))
    }

    /// Ends a container with SIGKILL, as the kernel does when memory is short.
    pub fn kill_container(&self, pod: &PoolPod, container: &str) -> Result<()> {
        self.kill_task(pod.node_number(), &self.container_id(pod, container)?)
    }

    /// The same by containerd's name: that needs no API server.
    pub fn kill_task(&self, node: usize, id: &str) -> Result<()> {
        let kill = self.cluster.ctr(node).args(["tasks", "kill", "--signal", "SIGKILL", id]);
        kill.run().map(drop)
    }
}

/// Holds that these are still the same pods, none of which was restarted.
pub fn live_on(before: &[PoolPod], now: &[PoolPod]) -> Result<()> {
    let lives = |pods: &[PoolPod]| -> Vec<_> {
        pods.iter().map(|pod| (pod.uid.clone(), pod.restarts.clone())).collect()
    };
    ensure!(lives(now) == lives(before), "pods were replaced or restarted: {before:?}, now {now:?}");
    Ok(())
}

/// Pods in one line.
pub fn describe(pods: &[PoolPod]) -> String {
    let words = pods.iter().map(|pod| {
        let ready = if pod.ready { "ready" } else { "not ready" };
        let node = if pod.node.is_empty() { "no node" } else { &pod.node };
        let restarted = pod.restarts.iter().filter(|(_, count)| *count > 0);
        let restarts: Vec<_> =
            restarted.map(|(name, count)| format!(", {name} restarted {count}x")).collect();
        format!("{} {ready} on {node}{}", pod.name, restarts.concat())
    });
    words.collect::<Vec<_>>().join(", ")
}

/// A policy for one pool.
pub fn policy(name: &str, pool: &str, limits: &Value) -> Value {
    json!({
        "apiVersion": "corral.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": { "name": name },
        "spec": { "targetRefs": [{ "kind": "OllamaPool", "name": pool }], "limits": limits },
    })
}
