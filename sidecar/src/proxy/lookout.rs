//! Looks at what Ollama has loaded: proves that requests are on a runner, tells the queue which models are there, and finds
//! models that are not on the GPU.
//!
//! A look costs a millisecond. It is taken only while some request waits long for its head and a look could prove where
//! it is; while models are loaded, as far as is known, now and then; and, where models belong on a GPU, as often while
//! Ollama is up.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Proxy;
use super::departed::SHORTEST;
use super::ps::{self, Listed};
use crate::health::Upstream;

/// Looks until it is dropped.
pub(crate) async fn watch(proxy: &Proxy) {
    let every = proxy.settings.hold_loaded.max(SHORTEST);
    let mut earlier = None;
    let mut due = Instant::now();
    if !proxy.settings.expect_gpu {
        due += proxy.settings.look_interval;
    }
    loop {
        sleep(every).await;
        let doubtful = provable(proxy, every);
        let routine = Instant::now() >= due && is_wanted(proxy);
        if doubtful.is_empty() && !routine {
            earlier = None;
            continue;
        }
        let now = ps::ask(&proxy.upstream).await;
        if routine {
            due = Instant::now() + proxy.settings.look_interval;
        }
        if let Some(listed) = &now {
            tell(proxy, listed);
        }
        if let (Some(earlier), Some(now)) = (&earlier, &now) {
            prove(proxy, &doubtful, earlier, now);
        }
        earlier = now;
    }
}

/// Whether a look would tell anything though nobody waits for it.
fn is_wanted(proxy: &Proxy) -> bool {
    let loaded = proxy.core.has_loaded();
    if !loaded {
        proxy.models.lose_sight();
    }
    let up = proxy.core.health.upstream() == Upstream::Up;
    up && (loaded || proxy.settings.expect_gpu)
}

fn tell(proxy: &Proxy, listed: &Listed) {
    proxy.models.seen(&proxy.core, listed);
    if proxy.settings.expect_gpu {
        proxy.core.health.set_off_gpu(listed.off_gpu());
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
