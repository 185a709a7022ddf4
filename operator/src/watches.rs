//! Watches that never end: whatever breaks one, it begins anew, and whoever lives by it is told to look again.
//!
//! A list says what is there, not what is gone: what was deleted while a watch was broken is named by no event. So the
//! end of each list is told as well, as [`Seen::All`].
//!
//! An event that gets lost without a word is missed by no watch that goes on, so each begins anew every [`RELIST`].

use std::fmt::Debug;
use std::future::ready;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store, reflector};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::clock::jittered;
use crate::freshness::Freshness;

/// How often everything is listed anew, jittered.
pub const RELIST: Duration = Duration::from_mins(10);

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<K> {
    /// This object came, changed or went.
    One(K),
    /// Everything was listed anew: any object may have changed, or be gone.
    All,
}

/// A watch: what happens, in order, for ever. An error is logged, and told nobody else.
pub type Watch<K> = BoxStream<'static, Seen<K>>;

/// What can be watched.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

/// Watches, and keeps what was last seen; the store fills as long as the watch is polled.
pub fn kept<K: Watched>(api: Api<K>, config: watcher::Config) -> (Store<K>, Watch<K>) {
    let (store, writer) = reflector::store();
    let events = renewed(api, config);
    // What nobody reads is not kept: managed fields are half of an object.
    let lean = events.modify(|object| object.managed_fields_mut().clear());
    (store, told(reflector(writer, lean)))
}

/// Watches for what happens alone: nothing is kept.
pub fn noticed<K: Watched>(api: Api<K>, config: watcher::Config) -> Watch<K> {
    told(renewed(api, config))
}

/// A watch that begins anew every [`RELIST`], without what comes late.
fn renewed<K: Watched>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static {
    let one = move || {
        let events = watcher(api.clone(), config.clone()).default_backoff();
        events.take_until(Box::pin(sleep(jittered(RELIST, 20))))
    };
    let mut freshness = Freshness::default();
    stream::repeat_with(one).flatten().filter(move |event| ready(freshness.admits(event)))
}

fn told<K: Resource<DynamicType = ()> + Send + 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
) -> Watch<K> {
    events.filter_map(|event| ready(seen(event))).boxed()
}

fn seen<K: Resource<DynamicType = ()>>(event: Result<Event<K>, watcher::Error>) -> Option<Seen<K>> {
    match event {
        Ok(Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)) => {
            Some(Seen::One(object))
        }
        Ok(Event::InitDone) => Some(Seen::All),
        Ok(Event::Init) => None,
        Err(error) => {
            tracing::warn!(kind = %K::kind(&()), %error, "a watch broke; it begins anew");
            None
        }
    }
}
