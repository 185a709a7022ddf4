//! Watches of the Secrets that pools name for API keys: one for each, by its name, and never a list.
//!
//! A watch tells only that something happened: what a Secret holds is read by the reconciler of each pool that names it. A
//! watch that begins anew wakes the pools as well, for what happened in between is told by no event.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, WatchEvent, WatchParams};
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::clock::jittered;
use crate::context::GuardedPool;

/// The most Secrets of a scope that are watched.
const MOST: usize = 1024;
/// How soon a watch that broke begins anew, jittered.
const AGAIN: Duration = Duration::from_millis(200);
/// How soon one begins anew that keeps breaking.
const AT_MOST: Duration = Duration::from_secs(30);
/// How long the server keeps a watch open; below the 295 s that it would allow.
const WATCH_SECONDS: u32 = 290;
/// From whatever the server has at hand: a watch from there begins with what there is.
const ANY: &str = "0";

/// A Secret: namespace and name.
type Name = (String, String);
/// The pools that name each Secret.
type Wanted = BTreeMap<Name, BTreeSet<ObjectRefKey>>;
/// A pool: namespace and name.
type ObjectRefKey = (String, String);

/// The watches of a scope.
#[derive(Clone, Default)]
pub struct KeyWatches {
    changed: Arc<Notify>,
    wanted: Arc<Mutex<Wanted>>,
}

impl KeyWatches {
    /// A pool came, changed or went.
    pub fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Watches what the pools in `store` name and wakes them, for as long as it is polled.
    pub async fn run(
        self,
        client: Client,
        store: Store<GuardedPool>,
        wake: impl Fn(ObjectRef<GuardedPool>) + Clone + Send + Sync + 'static,
    ) {
        let (mut tasks, mut watched) = (JoinSet::new(), BTreeMap::<Name, AbortHandle>::new());
        loop {
            self.changed.notified().await;
            let wanted = bounded(wanted(&store));
            watched.retain(|name, task| {
                let keep = wanted.contains_key(name);
                if !keep {
                    task.abort();
                }
                keep
            });
            for name in wanted.keys().filter(|name| !watched.contains_key(*name)).cloned().collect::<Vec<_>>()
            {
                let watch = self.clone().watch(client.clone(), name.clone(), wake.clone());
                watched.insert(name, tasks.spawn(watch));
            }
            *self.wanted.lock() = wanted;
            // Those that were aborted are taken out.
            while tasks.join_next().now_or_never().flatten().is_some() {}
        }
    }

    /// Follows one Secret, for ever.
    async fn watch(self, client: Client, name: Name, wake: impl Fn(ObjectRef<GuardedPool>) + Send + Sync) {
        let api: Api<Secret> = Api::namespaced(client, &name.0);
        let mut pause = AGAIN;
        loop {
            let told = || self.tell(&name, &wake);
            match follow(&api, &name.1, told).await {
                Ok(()) => pause = AGAIN,
                Err(error) => {
                    tracing::warn!(namespace = name.0, secret = name.1, %error, "the watch of a key Secret broke; it begins anew");
                    pause = (pause * 2).min(AT_MOST);
                }
            }
            sleep(jittered(pause, 20)).await;
        }
    }

    fn tell(&self, name: &Name, wake: &impl Fn(ObjectRef<GuardedPool>)) {
        let pools = self.wanted.lock().get(name).cloned().unwrap_or_default();
        for (namespace, pool) in pools {
            wake(ObjectRef::new(&pool).within(&namespace));
        }
    }
}

/// Tells of each change until the watch ends. It begins with what is there, so that nothing between two watches is missed.
async fn follow(api: &Api<Secret>, name: &str, told: impl Fn() + Send + Sync) -> Result<(), kube::Error> {
    // With bookmarks, the server takes a watch from "0" for a streamed list, which it refuses on an older etcd.
    let params = WatchParams::default().disable_bookmarks();
    let params = params.fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
    let mut events = pin!(api.watch_metadata(&params, ANY).await?);
    told();
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_) => told(),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        }
    }
    Ok(())
}

fn wanted(store: &Store<GuardedPool>) -> Wanted {
    let mut wanted = Wanted::new();
    for pool in store.state() {
        let Ok(pool) = &pool.0 else { continue };
        let (Some(namespace), Some(name)) = (&pool.metadata.namespace, &pool.metadata.name) else { continue };
        for secret in &pool.spec.identity.api_keys {
            let pools = wanted.entry((namespace.clone(), secret.secret_name.clone())).or_default();
            pools.insert((namespace.clone(), name.clone()));
        }
    }
    wanted
}

/// The first, where there are too many: of changes in the others the pools hear when they are looked at anyway.
fn bounded(mut wanted: Wanted) -> Wanted {
    if wanted.len() > MOST {
        tracing::warn!(
            secrets = wanted.len(),
            most = MOST,
            "too many key Secrets to watch each: changes of some take minutes"
        );
        if let Some(end) = wanted.keys().nth(MOST).cloned() {
            wanted.split_off(&end);
        }
    }
    wanted
}
