//! Changes of a pool that replace its pods, and what can be seen of them meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::PoolPod;
use super::scene::Scene;
use crate::cluster::addresses::NODES;
use crate::machine::clock::Stopwatch;

/// What was seen while pods were replaced.
#[derive(Debug, Clone)]
pub struct Replaced {
    /// The pods after it.
    pub pods: Vec<PoolPod>,
    /// How long it took until all of them served.
    pub took: Duration,
    /// The fewest pods that were ready at any look, those on their way out apart.
    pub fewest: usize,
}

impl Scene {
    /// A pool like [`Self::pool`], with some fields of its spec set to other values.
    pub fn pool_with(&self, name: &str, replicas: u32, fields: &Value) -> Result<Value> {
        let mut pool = self.pool(name, replicas);
        let spec = pool.get_mut("spec").and_then(Value::as_object_mut).context("a pool has a spec")?;
        let fields = fields.as_object().context("fields are an object")?;
        spec.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(pool)
    }

    /// Merges fields into an object of the namespace.
    pub fn patch(&self, object: &str, fields: &Value) -> Result<()> {
        let fields = fields.to_string();
        let words = ["patch", object, "--type=merge", "--patch", &fields, "--namespace", &self.namespace];
        self.cluster.kubectl(words).run().map(drop)
    }

    /// Gives an image that both nodes have a second name there, which differs in its tag.
    pub fn retag(&self, image: &str, tag: &str) -> Result<String> {
        let (repository, _) = image.rsplit_once(':').context("an image has a tag")?;
        let name = format!("{repository}:{tag}");
        for node in 0..NODES {
            self.cluster.ctr(node).args(["images", "tag", "--force", image, &name]).run()?;
        }
        Ok(name)
    }

    /// Waits until none of `gone` is a pod of the pool any more and so many serve, and looks how many do meanwhile.
    pub fn until_replaced(&self, pool: &str, gone: &[PoolPod], replicas: usize) -> Result<Replaced> {
        let (watch, mut fewest) = (Stopwatch::start(), usize::MAX);
        self.until(&format!("{} pods of {pool} are replaced", gone.len()), || {
            let now = self.pods_of(pool)?;
            let ready = now.iter().filter(|pod| pod.ready).count();
            fewest = fewest.min(ready);
            let old = now.iter().filter(|pod| gone.iter().any(|one| one.uid == pod.uid)).count();
            let all = old == 0 && ready == replicas;
            Ok(if all { Ok(()) } else { Err(format!("{old} old, {ready} of {} ready", now.len())) })
        })?;
        let pods = self.pool_serves(pool, replicas)?;
        Ok(Replaced { pods, took: watch.elapsed(), fewest })
    }

    /// Asks the API server to evict a pod, as a node drain does. An error is its refusal.
    pub fn evict(&self, pod: &PoolPod) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods/{}/eviction", pod.namespace, pod.name);
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "name": pod.name, "namespace": pod.namespace },
        });
        let ask = self.cluster.kubectl(["create", "--raw", &path, "--filename", "-"]);
        let asked = ask.input(eviction.to_string()).attempt()?;
        ensure!(asked.status.success(), "{} is not evicted: {}", pod.name, asked.tail());
        Ok(())
    }
}
