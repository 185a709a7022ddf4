//! Queues that come out of nothing, and how long the operator takes to ask for more pods because of them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::{Cluster, POOLS, name};
use crate::sidecars::Pod;

/// So many requests that wait take one more pod: with 4 slots and 8 s each it works them off in half a minute.
const FOR_ONE_POD: u64 = 15;
/// What comes takes some 80 pods by itself; a queue is for so many fewer than there are, and still takes more.
const BESIDE_THEM: u64 = 40;
/// A pool does not shrink in between; above so many pods a burst could lead beyond its upper bound.
const MOST_PODS: u64 = 850;
/// How exactly the time is taken.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Longer than from one call of a pod to the next, and than any decision may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of the bursts.
#[derive(Default)]
pub(crate) struct Bursts {
    /// How long each took until the Deployment asked for more.
    pub(crate) took: Vec<Duration>,
    /// How many led to nothing in [`PATIENCE`].
    pub(crate) unanswered: usize,
}

/// Shows each pool bursts for about as long as this.
pub(crate) async fn show(cluster: &Cluster, pods: &[Arc<Pod>], time: Duration) -> Bursts {
    let until = Instant::now() + time;
    let each = join_all((0..POOLS).map(|number| of_pool(cluster, number, pods, until))).await;
    each.into_iter().fold(Bursts::default(), |mut all, one| {
        all.took.extend(one.took);
        all.unanswered += one.unanswered;
        all
    })
}

/// After one without an answer a pool is shown no more: whatever comes later would be the answer to that.
async fn of_pool(cluster: &Cluster, number: u8, pods: &[Arc<Pod>], until: Instant) -> Bursts {
    let ours = pods.iter().filter(|pod| pod.pool() == name(number));
    let mut bursts = Bursts::default();
    // Another pod each time: the one before still has to say that its queue is gone.
    for pod in ours.take_while(|_| Instant::now() < until && cluster.asked(number) < MOST_PODS) {
        let Ok(time) = timeout(PATIENCE, one(cluster, number, pod)).await else {
            bursts.unanswered = 1;
            return bursts;
        };
        bursts.took.push(time);
    }
    bursts
}

async fn one(cluster: &Cluster, number: u8, pod: &Pod) -> Duration {
    let before = cluster.asked(number);
    let queued = before.saturating_sub(BESIDE_THEM).saturating_mul(FOR_ONE_POD);
    pod.burst(u32::try_from(queued).unwrap_or(u32::MAX));
    let shown = loop {
        match pod.shown() {
            Some(shown) => break shown,
            None => sleep(LOOK_EVERY).await,
        }
    };
    while cluster.asked(number) <= before {
        sleep(LOOK_EVERY).await;
    }
    let took = Instant::now().into_std().saturating_duration_since(shown);
    pod.burst(0);
    took
}
