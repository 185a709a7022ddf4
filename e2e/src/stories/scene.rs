//! Where a story plays: a cluster, a namespace of its own, and a deadline.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Story;
use crate::artifacts::images;
use crate::cluster::Cluster;
use crate::cluster::http::{Answer, Request};
use crate::machine::clock::Deadline;
use crate::machine::console::say;

/// A story's surroundings.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The cluster.
    pub cluster: Cluster,
    /// The story's own namespace.
    pub namespace: String,
    /// When the story fails.
    pub deadline: Deadline,
}

impl Scene {
    /// The surroundings of a story, without a namespace yet.
    pub fn new(cluster: &Cluster, story: &Story) -> Self {
        Self {
            cluster: cluster.clone(),
            namespace: format!("story-{}", story.name.replace('_', "-")),
            deadline: Deadline::after(story.budget * 2),
        }
    }

    /// Applies a manifest to the namespace. `${busybox}`, `${ollama}` and `${sidecar}` become the images' names, `${models}`
    /// the model store's folder, `${namespace}` and `${resource}` what is the story's own.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.cluster.apply(&self.namespace, &self.fill_in(manifest))
    }

    /// A manifest with the names filled in.
    pub fn fill_in(&self, manifest: &str) -> String {
        manifest
            .replace("${busybox}", images::BUSYBOX)
            .replace("${ollama}", images::OLLAMA)
            .replace("${sidecar}", &self.cluster.own_image("corral-sidecar").unwrap_or_default())
            .replace("${namespace}", &self.namespace)
            .replace("${resource}", &self.resource())
            .replace("${models}", &self.cluster.parts.models.display().to_string())
    }

    /// Waits until a pod is Ready.
    pub fn pod_is_ready(&self, pod: &str) -> Result<()> {
        self.wait_for("condition=Ready", &format!("pod/{pod}"))
    }

    /// Waits until `kubectl wait --for=condition` is content with an object.
    pub fn wait_for(&self, condition: &str, object: &str) -> Result<()> {
        let waited =
            self.cluster.wait_for(self.deadline.left(), condition, &[object, "--namespace", &self.namespace]);
        waited.with_context(|| self.describe(object))
    }

    /// What Kubernetes knows of an object: added to an error.
    pub fn describe(&self, object: &str) -> String {
        let describe = self.cluster.kubectl(["describe", object, "--namespace", &self.namespace]);
        describe.attempt().map_or_else(|error| error.to_string(), |output| output.tail())
    }

    /// The namespace's pods, last events and last lines of logs: what to look at when a story has failed.
    pub fn aftermath(&self) -> String {
        let asked = [
            vec!["get", "pods", "--output=wide"],
            vec!["get", "events", "--sort-by=.lastTimestamp"],
            vec!["logs", "--selector=corral.test/aftermath!=no", "--all-containers", "--prefix", "--tail=8"],
        ];
        let told = asked.map(|words| {
            let said = self.cluster.kubectl(words).args(["--namespace", &self.namespace]).attempt();
            said.map_or_else(|error| error.to_string(), |output| output.tail())
        });
        told.join("\n--\n")
    }

    /// An object of the namespace.
    pub fn get(&self, object: &str) -> Result<Value> {
        self.cluster.get(&[object, "--namespace", &self.namespace])
    }

    /// A string in an object of the namespace, by JSON pointer; empty when it is not there.
    pub fn field(&self, object: &str, pointer: &str) -> Result<String> {
        Ok(self.get(object)?.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Where a Service of the namespace answers. Waits until it does: a node learns a little later than the pod is Ready
    /// that the Service leads to it.
    pub fn service(&self, name: &str, port: u16) -> Result<SocketAddr> {
        let address: IpAddr = self.field(&format!("service/{name}"), "/spec/clusterIP")?.parse()?;
        let to = SocketAddr::new(address, port);
        self.until(&format!("the Service {name} leads somewhere"), || {
            Ok(self.cluster.connect(0, to, Duration::from_secs(1)).map_err(|error| format!("{error:#}")))
        })?;
        Ok(to)
    }

    /// A pod's own address, with a port.
    pub fn pod(&self, name: &str, port: u16) -> Result<SocketAddr> {
        let address: IpAddr = self.field(&format!("pod/{name}"), "/status/podIP")?.parse()?;
        Ok(SocketAddr::new(address, port))
    }

    /// A request from the first node.
    pub fn http(&self, to: SocketAddr, request: &Request) -> Result<Answer> {
        self.cluster.http(0, to, request, self.deadline.left().min(Duration::from_mins(1)))
    }

    /// Prints a figure or a finding of the story.
    pub fn tell(&self, line: &str) {
        say(format!("         {}: {line}", self.namespace.trim_start_matches("story-")));
    }

    /// Asks every 200 ms until `ready` gives a value, within the story's deadline.
    pub fn until<T>(&self, what: &str, ready: impl FnMut() -> Result<Result<T, String>>) -> Result<T> {
        Deadline::after(self.deadline.left()).wait(what, Duration::from_millis(200), ready)
    }
}
