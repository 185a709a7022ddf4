//! Looks at what Ollama has loaded: proves that requests are on a runner, and finds models that are not on the GPU.
//!
//! A look costs a millisecond. It is taken only while some request waits long for its head and a look could prove where
//! it is; and, where models belong on a GPU, every ten seconds while Ollama is up.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Proxy;
use super::departed::SHORTEST;
use super::ps::{self, Listed};
use crate::health::Upstream;

/// From one look for models off the GPU to the next.
const GPU_INTERVAL: Duration = Duration::from_secs(10);

/// Looks until it is dropped.
pub(crate) async fn watch(proxy: &Proxy) {
    let every = proxy.settings.hold_loaded.max(SHORTEST);
    let mut earlier = None;
    let mut gpu_due = Instant::now();
    loop {
        sleep(every).await;
        let gpu = proxy.settings.expect_gpu && Instant::now() >= gpu_due;
        let gpu = gpu && proxy.core.health.upstream() == Upstream::Up;
        let doubtful = provable(proxy, every);
        if doubtful.is_empty() && !gpu {
            earlier = None;
            continue;
        }
        let now = ps::ask(&proxy.upstream).await;
        if gpu {
            gpu_due = Instant::now() + GPU_INTERVAL;
            if let Some(listed) = &now {
                proxy.core.health.set_off_gpu(listed.off_gpu());
            }
        }
        if let (Some(earlier), Some(now)) = (&earlier, &now) {
            prove(proxy, &doubtful, earlier, now);
        }
        earlier = now;
    }
}

/// The requests that have surely reached Ollama's scheduler, and of which a look could prove that they are past it.
fn provable(proxy: &Proxy, arrived: Duration) -> Vec<u64> {
    let mut residency = proxy.residency.lock();
    let doubtful = residency.doubtful(arrived, Instant::now());
    doubtful.into_iter().filter(|id| residency.witnesses(*id).is_some()).collect()
}

fn prove(proxy: &Proxy, doubtful: &[u64], earlier: &Listed, now: &Listed) {
    let mut residency = proxy.residency.lock();
    for id in doubtful {
        let witnesses = residency.witnesses(*id);
        if witnesses.is_some_and(|models| models.iter().all(|model| now.settled_since(earlier, model))) {
            residency.proven(*id, Instant::now());
        }
    }
}
