//! What the reconcilers of one scope share.

use std::sync::Arc;
use std::time::Duration;

use corral_crds::{OllamaPool, RateLimitPolicy};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::activation::Activations;
use crate::apply::Writer;
use crate::backoff::Backoff;
use crate::clock::SharedClock;
use crate::events::Events;
use crate::exchange::Exchange;
use crate::metrics::Metrics;
use crate::policy::record::Records;
use crate::pool::build::Defaults;
use crate::pool::shortage::Shortages;
use crate::pool::validate::ValidPool;
use crate::scaling::Scalings;
use crate::scaling::moment::Present;
use crate::scaling::observe::DeploymentSeen;

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
    /// The pods of their activators.
    pub activators: Store<Pod>,
}

/// How soon one that waits for the stores asks again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

impl Stores {
    /// Waits until each holds everything once: a plan made from half of the policies would lift the other half.
    pub async fn ready(&self) {
        // Of several that wait for a store, kube wakes only the one that asked last; so each asks again.
        while tokio::time::timeout(ASK_AGAIN, self.filled()).await.is_err() {}
    }

    async fn filled(&self) {
        let (policies, pools) = (self.policies.wait_until_ready(), self.pools.wait_until_ready());
        let (pods, activators) = (self.pods.wait_until_ready(), self.activators.wait_until_ready());
        let all = futures::future::try_join4(policies, pools, pods, activators).await;
        // A store whose writer is gone says so at once, and never fills: what was never seen is not acted on.
        if all.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What the reconcilers of one scope share.
pub struct Context {
    /// Writes objects.
    pub writer: Writer,
    /// What is watched.
    pub stores: Stores,
    /// The exchange with the pods and activators.
    pub exchange: Exchange,
    /// What each pool's plan came from.
    pub records: Records,
    /// How many pods of each pool are missing for want of a node.
    pub shortages: Shortages,
    /// What is held for pools that go to zero.
    pub activations: Activations,
    /// How many pods each pool has and should have.
    pub scalings: Scalings,
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
    /// Takes the Deployment of a pool as it is now.
    pub fn saw(&self, pool: &ValidPool, deployment: Option<&Deployment>) {
        let present = Present { now: self.clock.now(), wall: self.clock.wall() };
        let seen = deployment.map(|deployment| DeploymentSeen::of(deployment, present));
        self.scalings.saw(&pool.reference(), seen);
    }

    /// The time of day, as conditions write it.
    pub fn time(&self) -> Time {
        Time(self.clock.wall())
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector, watcher};

    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_for_the_stores_is_woken() {
        let (pools, mut pool_writer) = reflector::store();
        let (policies, mut policy_writer) = reflector::store();
        let (pods, mut pod_writer) = reflector::store();
        let (activators, mut activator_writer) = reflector::store();
        let stores = Stores { pools, policies, pods, activators };
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let stores = stores.clone();
                tokio::spawn(async move { stores.ready().await })
            })
            .collect();
        tokio::task::yield_now().await;
        pool_writer.apply_watcher_event(&watcher::Event::InitDone);
        policy_writer.apply_watcher_event(&watcher::Event::InitDone);
        pod_writer.apply_watcher_event(&watcher::Event::InitDone);
        activator_writer.apply_watcher_event(&watcher::Event::InitDone);
        for waiter in waiting {
            tokio::time::timeout(Duration::from_secs(1), waiter).await.unwrap().unwrap();
        }
    }
}
