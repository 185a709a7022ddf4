//! Pools that go to zero: what a story asks of one, and what it sees of those that hold requests for it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::condition;
use super::crowd::Way;
use super::pool::{ADMIN_PORT, CLIENT_PORT, PoolPod};
use super::scene::Scene;
use super::traffic::{reading, remaining_in};
use crate::cluster::http::Request;
use crate::machine::clock::Stopwatch;

/// The least time without a request that the schema takes.
pub const IDLE: Duration = Duration::from_mins(1);
/// Longer than anything of a story is held. Activators get more than that to end, and a namespace is looked at again only
/// after half of what its pods get.
const HOLD: Duration = Duration::from_mins(1);

impl Scene {
    /// A pool of one pod with two slots at most, and of none while nobody asks. It begins with so many.
    pub fn sleepy_pool(&self, name: &str, replicas: u32) -> Result<Value> {
        let spec = json!({
            "ollama": { "numParallel": 2, "contextLength": 2048, "keepAlive": "-1" },
            "drain": { "delaySeconds": 2, "timeoutSeconds": 60 },
            "autoscaling": {
                "minReplicas": 0,
                "maxReplicas": 1,
                "preset": "Fast",
                "expectedServiceSeconds": 1,
                "scaleDown": { "windowSeconds": 5, "maxPercent": 100, "periodSeconds": 1 },
                "scaleToZero": { "idleAfterSeconds": IDLE.as_secs(), "maxHoldSeconds": HOLD.as_secs() },
            },
        });
        self.pool_with(name, replicas, &spec)
    }

    /// Waits until both activators of a pool are ready, and gives them by name.
    pub fn activators(&self, pool: &str) -> Result<Vec<PoolPod>> {
        let label = format!("corral.dev/activator={pool}");
        self.until(&format!("two activators of {pool} are ready"), || {
            let pods = self.pods_with(&self.namespace, &label)?;
            let ready = pods.len() == 2 && pods.iter().all(|pod| pod.ready);
            Ok(if ready { Ok(pods) } else { Err(format!("{pods:?}")) })
        })
    }

    /// Waits until a pool that is Ready has no pod left. Holds that it is Ready the whole time, and says why it has none.
    /// Gives how long it took.
    pub fn falls_asleep(&self, pool: &str) -> Result<Duration> {
        let (watch, name) = (Stopwatch::start(), format!("ollamapool/{pool}"));
        let since = self.until_condition(&name, "Ready", "True")?.since;
        self.until(&format!("{pool} is at zero"), || {
            let object = self.get(&name)?;
            let told = condition::summary(&object);
            let ready = condition::of(&object, "Ready").filter(|ready| ready.status == "True");
            let ready = ready.with_context(|| format!("on the way to zero: {told}"))?;
            ensure!(
                ready.since == since,
                "Ready only since {}, and before since {since}: {told}",
                ready.since
            );
            let size = self.size(pool)?;
            let is_zero = size.asked == 0 && size.pods.is_empty() && ready.reason == "ScaledToZero";
            Ok(if is_zero { Ok(()) } else { Err(format!("{size}; {told}")) })
        })?;
        Ok(watch.elapsed())
    }

    /// How many requests an activator holds.
    pub fn held(&self, activator: &PoolPod) -> Result<u64> {
        reading(&self.metrics(activator.port(ADMIN_PORT)?)?, "corral_queue_depth")
    }

    /// How many more requests a limit of this name would let a client through that asks from there.
    pub fn remaining_for(&self, network: PathBuf, pod: &PoolPod, limit: &str) -> Result<u64> {
        let way = Way::new(network, pod.port(CLIENT_PORT)?);
        let answer = way.ask(&Request::get("/corral/v1/limits"), Duration::from_secs(10));
        remaining_in(&answer.whole().context("asking for limits")?.json()?, limit)
    }
}
