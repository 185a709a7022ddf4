//! What the reconcilers of one scope share.

use std::sync::Arc;

use corral_crds::{OllamaPool, RateLimitPolicy};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::apply::Writer;
use crate::backoff::Backoff;
use crate::clock::SharedClock;
use crate::events::Events;
use crate::exchange::Exchange;
use crate::metrics::Metrics;
use crate::policy::record::Records;
use crate::pool::build::Defaults;

/// A pool as it is watched: one that cannot be read stalls no other.
pub type GuardedPool = DeserializeGuard<OllamaPool>;
/// A policy as it is watched.
pub type GuardedPolicy = DeserializeGuard<RateLimitPolicy>;

/// What is watched, as it was last seen.
#[derive(Clone)]
pub struct Stores {
    /// The pools.
    pub pools: Store<GuardedPool>,
    /// The policies.
    pub policies: Store<GuardedPolicy>,
    /// The pods of pools.
    pub pods: Store<Pod>,
}

impl Stores {
    /// Waits until each holds everything once: a plan made from half of the policies would lift the other half.
    pub async fn ready(&self) {
        // A store whose writer is gone never fills; its controllers end with it.
        let _ = self.policies.wait_until_ready().await;
        let _ = self.pools.wait_until_ready().await;
        let _ = self.pods.wait_until_ready().await;
    }
}

/// What the reconcilers of one scope share.
pub struct Context {
    /// Writes objects.
    pub writer: Writer,
    /// What is watched.
    pub stores: Stores,
    /// The exchange with the pods.
    pub exchange: Exchange,
    /// What each pool's plan came from.
    pub records: Records,
    /// Tells users what happened.
    pub events: Events,
    /// The time.
    pub clock: SharedClock,
    /// What builders need beside the pool.
    pub defaults: Defaults,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Failures in a row of each pool.
    pub pool_failures: Backoff<ObjectRef<GuardedPool>>,
    /// Failures in a row of each policy.
    pub policy_failures: Backoff<ObjectRef<GuardedPolicy>>,
}

impl Context {
    /// The time of day, as conditions write it.
    pub fn time(&self) -> Time {
        Time(self.clock.wall())
    }
}
