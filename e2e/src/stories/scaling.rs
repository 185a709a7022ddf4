//! Pools that grow and shrink: what a story asks of one, and what it sees of it.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::{PoolPod, describe};
use super::scene::Scene;
use crate::machine::clock::Deadline;

/// From one look to the next while a pool is watched.
const PAUSE: Duration = Duration::from_millis(200);

/// How large a pool should be and is, at one moment.
#[derive(Debug, Clone)]
pub struct Size {
    /// How many pods the pool should have, as its status says.
    pub desired: Option<u64>,
    /// How many its Deployment is asked for: more than that while pods that have to go still work.
    pub asked: u64,
    /// All its pods, with those on their way out.
    pub pods: Vec<PoolPod>,
}

impl Size {
    /// UIDs of the pods that are not on their way out, in order.
    pub fn staying(&self) -> Vec<&str> {
        let staying = self.pods.iter().filter(|pod| !pod.leaving);
        let mut uids: Vec<&str> = staying.map(|pod| pod.uid.as_str()).collect();
        uids.sort_unstable();
        uids
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let desired = self.desired.map_or_else(|| "?".to_owned(), |desired| desired.to_string());
        write!(f, "{desired} desired, {} asked for, {}", self.asked, describe(&self.pods))
    }
}

/// One change of size, as the pool's status tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The size before it.
    pub from: u64,
    /// The size after it.
    pub to: u64,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}: {}", self.from, self.to, self.reason, self.message)
    }
}

/// The decisions in a pool's status, oldest first.
pub fn decisions(pool: &Value) -> Vec<Decision> {
    let told = pool.pointer("/status/autoscaling/decisions").and_then(Value::as_array);
    let decision = |told: &Value| {
        let text = |key: &str| told.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (from, to) = (told.get("from")?.as_u64()?, told.get("to")?.as_u64()?);
        Some(Decision { from, to, reason: text("reason"), message: text("message") })
    };
    told.into_iter().flatten().rev().filter_map(decision).collect()
}

impl Scene {
    /// A pool like [`Self::pool`] of four slots a pod that finds its own size between these bounds, with waits of seconds
    /// where users have minutes. What a story needs to be different is in `fields`.
    pub fn growing_pool(&self, name: &str, least: u32, most: u32, fields: &Value) -> Result<Value> {
        let mut spec = json!({
            "ollama": { "numParallel": 4, "contextLength": 2048, "keepAlive": "-1" },
            "drain": { "delaySeconds": 2, "timeoutSeconds": 60 },
            "autoscaling": {
                "minReplicas": least,
                "maxReplicas": most,
                "preset": "Fast",
                "expectedServiceSeconds": 1,
                "scaleDown": { "windowSeconds": 5, "maxPercent": 100, "periodSeconds": 1 },
            },
        });
        let (spec_fields, fields) = (spec.as_object_mut(), fields.as_object());
        let (spec_fields, fields) = spec_fields.zip(fields).context("fields are an object")?;
        spec_fields.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
        self.pool_with(name, least, &spec)
    }

    /// Applies such a pool, with GPUs for as many pods as it may have, and waits until it serves with the least.
    pub fn serving_growing(&self, pool: &Value) -> Result<Vec<PoolPod>> {
        let number = |pointer: &str| pool.pointer(pointer).and_then(Value::as_u64);
        let name = pool.pointer("/metadata/name").and_then(Value::as_str).context("a pool has a name")?;
        let least = number("/spec/autoscaling/minReplicas").context("a growing pool has a least size")?;
        let most = number("/spec/autoscaling/maxReplicas").context("a growing pool has a most size")?;
        self.models()?;
        self.gpus(0, u32::try_from(most)?)?;
        self.apply(&pool.to_string())?;
        self.pool_serves(name, usize::try_from(least)?)
    }

    /// Changes the bounds of a pool. They hold at once: only within them does a pool wait until it is sure.
    pub fn set_bounds(&self, pool: &str, least: u32, most: u32) -> Result<()> {
        let fields = json!({ "spec": { "autoscaling": { "minReplicas": least, "maxReplicas": most } } });
        self.patch(&format!("ollamapool/{pool}"), &fields)
    }

    /// How large a pool is now.
    pub fn size(&self, pool: &str) -> Result<Size> {
        let number = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_u64);
        let pods = self.every_pod_with(&self.namespace, &format!("corral.dev/pool={pool}"))?;
        let desired = number(&self.get(&format!("ollamapool/{pool}"))?, "/status/desiredReplicas");
        let deployment = self.get(&format!("deployment/{pool}"))?;
        let asked = number(&deployment, "/spec/replicas").context("a Deployment has replicas")?;
        Ok(Size { desired, asked, pods })
    }

    /// Looks at a pool's size again and again for so long, and holds that it is as it must be each time. Gives the number of
    /// looks.
    pub fn size_holds(&self, pool: &str, time: Duration, holds: impl Fn(&Size) -> bool) -> Result<u32> {
        let (over, mut looks) = (Deadline::after(time), 0);
        while !over.passed() {
            let size = self.size(pool)?;
            ensure!(holds(&size), "after {looks} looks: {size}");
            looks += 1;
            std::thread::sleep(PAUSE);
        }
        Ok(looks)
    }

    /// What the pool's status says of its last decisions, oldest first. Holds that each has a reason and numbers, and that
    /// each begins where the one before has ended.
    pub fn explained_decisions(&self, pool: &str) -> Result<Vec<Decision>> {
        let all = decisions(&self.get(&format!("ollamapool/{pool}"))?);
        for decision in &all {
            ensure!(!decision.reason.is_empty() && !decision.message.is_empty(), "no reason: {decision:?}");
        }
        let follow = all.iter().zip(all.iter().skip(1)).all(|(first, second)| first.to == second.from);
        ensure!(follow, "a decision is missing: {all:?}");
        Ok(all)
    }

    /// Messages of the Kubernetes events of a pool for this reason.
    pub fn events_of(&self, pool: &str, reason: &str) -> Result<Vec<String>> {
        let fields = format!("involvedObject.kind=OllamaPool,involvedObject.name={pool},reason={reason}");
        let words = ["events", "--namespace", &self.namespace, "--field-selector", &fields];
        let events = self.cluster.get(&words)?;
        let items = events.get("items").and_then(Value::as_array);
        let messages = items.into_iter().flatten().filter_map(|event| event.get("message")?.as_str());
        Ok(messages.map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_read_oldest_first() {
        let told = |from: u64, to: u64| json!({ "from": from, "to": to, "reason": "Work", "message": "m" });
        let pool = json!({ "status": { "autoscaling": { "decisions": [told(2, 3), told(1, 2), {}] } } });
        let sizes: Vec<_> = decisions(&pool).iter().map(|one| (one.from, one.to)).collect();
        assert_eq!(sizes, [(1, 2), (2, 3)]);
        assert!(decisions(&json!({})).is_empty());
    }
}
