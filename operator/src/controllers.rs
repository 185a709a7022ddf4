//! Wiring: what is watched, what it wakes, and what ends with the lead.
//!
//! Each watched namespace (or the whole cluster) has watches, stores and controllers of its own: nothing of Corral
//! reaches from one namespace into another, so neither does a watch that fails.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use corral_wire::PoolRef;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::Api;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store, reflector};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::interval;

use crate::config::{DEBOUNCE, PARALLEL_RECONCILES};
use crate::context::{Context, GuardedPolicy, GuardedPool, Stores};
use crate::error::Error;
use crate::names::POOL_LABEL;
use crate::{policy, pool};

/// How often what belongs to pools that are gone is dropped.
const SWEEP: Duration = Duration::from_secs(5);

/// Where one set of controllers works.
#[derive(Clone)]
pub struct Scope {
    /// The API server.
    pub client: Client,
    /// The namespace; none for all.
    pub namespace: Option<String>,
}

impl Scope {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

/// A watch: what happens, in order.
type Watch<K> = BoxStream<'static, Result<K, watcher::Error>>;

/// The watches of a scope. The stores fill as long as [`run`] is polled.
pub struct Watches {
    /// What was last seen.
    pub stores: Stores,
    pools: Watch<GuardedPool>,
    policies: Watch<GuardedPolicy>,
    pods: Watch<Pod>,
}

/// Opens the watches of a scope.
pub fn watch(scope: &Scope) -> Watches {
    let (pools, pool_events) = watched(scope.api(), watcher::Config::default());
    let (policies, policy_events) = watched(scope.api(), watcher::Config::default());
    let (pods, pod_events) = watched(scope.api(), ours());
    let stores = Stores { pools, policies, pods };
    Watches { stores, pools: pool_events, policies: policy_events, pods: pod_events }
}

/// Selects what belongs to a pool.
fn ours() -> watcher::Config {
    watcher::Config::default().labels(POOL_LABEL)
}

fn watched<K>(api: Api<K>, config: watcher::Config) -> (Store<K>, Watch<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher(api, config).default_backoff();
    // What nobody reads is not kept: managed fields are half of an object.
    let lean = events.modify(|object| object.managed_fields_mut().clear());
    (store, reflector(writer, lean).touched_objects().boxed())
}

/// Runs the controllers of a scope for as long as it is polled.
pub async fn run(scope: Scope, watches: Watches, ctx: Arc<Context>) {
    let Watches { stores, pools, policies, pods } = watches;
    let (wake_pool, woken_pools) = unbounded();
    let (wake_policy, woken_policies) = unbounded();
    let waker = wake_pool.clone();
    let (policy_store, pool_store) = (stores.policies.clone(), stores.pools.clone());
    let pools = pools.inspect_ok(move |pool| wake_targeting(&policy_store, pool, &wake_policy));
    let policies = policies.inspect_ok(move |policy| wake_namespace(&pool_store, policy, &waker));
    let pods = pods.try_for_each(move |pod| {
        wake_owner(&pod, &wake_pool);
        std::future::ready(Ok(()))
    });
    tokio::join!(
        run_pools(&scope, pools.boxed(), woken_pools, &ctx),
        run_policies(policies.boxed(), woken_policies, &ctx),
        follow(pods),
        sweep(&ctx, scope.namespace.as_deref()),
    );
}

async fn run_pools(
    scope: &Scope,
    pools: Watch<GuardedPool>,
    woken: UnboundedReceiver<ObjectRef<GuardedPool>>,
    ctx: &Arc<Context>,
) {
    let reconcile = |pool, ctx: Arc<Context>| async move {
        ctx.stores.ready().await;
        pool::reconcile(pool, ctx).await
    };
    let after_error =
        |pool: Arc<GuardedPool>, error: &Error, ctx: Arc<Context>| pool::after_error(&pool, error, &ctx);
    Controller::for_stream(pools, ctx.stores.pools.clone())
        .with_config(config())
        .owns(scope.api::<Deployment>(), ours())
        .owns(scope.api::<Service>(), ours())
        .reconcile_on(woken)
        .reconcile_on(ctx.exchange.changes().map(|pool| pool_ref(&pool)))
        .run(reconcile, after_error, Arc::clone(ctx))
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn run_policies(
    policies: Watch<GuardedPolicy>,
    woken: UnboundedReceiver<ObjectRef<GuardedPolicy>>,
    ctx: &Arc<Context>,
) {
    let reconcile = |policy, ctx: Arc<Context>| async move {
        ctx.stores.ready().await;
        policy::reconcile(policy, ctx).await
    };
    let after_error = |policy: Arc<GuardedPolicy>, error: &Error, ctx: Arc<Context>| {
        policy::after_error(&policy, error, &ctx)
    };
    let changed = futures::stream::select(ctx.exchange.changes(), ctx.records.changes());
    let store = ctx.stores.policies.clone();
    let told = changed
        .flat_map(move |pool| futures::stream::iter(targeting(&store, Some(&pool.namespace), &pool.name)));
    Controller::for_stream(policies, ctx.stores.policies.clone())
        .with_config(config())
        .reconcile_on(woken)
        .reconcile_on(told)
        .run(reconcile, after_error, Arc::clone(ctx))
        .for_each(|_| std::future::ready(()))
        .await;
}

fn config() -> controller::Config {
    controller::Config::default().concurrency(PARALLEL_RECONCILES).debounce(DEBOUNCE)
}

/// A watch ends only when it cannot go on at all; then its controllers must not go on with what is old.
async fn follow(pods: impl Future<Output = Result<(), watcher::Error>>) {
    if let Err(error) = pods.await {
        tracing::warn!(%error, "the watch of pods ended");
    }
}

/// Drops what belongs to pools that are gone.
async fn sweep(ctx: &Context, namespace: Option<&str>) {
    ctx.stores.ready().await;
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        let here = |pool: &PoolRef| namespace.is_none_or(|namespace| pool.namespace == namespace);
        let exists = |pool: &PoolRef| ctx.stores.pools.get(&pool_ref(pool)).is_some();
        ctx.records.retain(|pool| !here(pool) || exists(pool));
        ctx.exchange.retain(|pool| !here(pool) || exists(pool));
    }
}

fn pool_ref(pool: &PoolRef) -> ObjectRef<GuardedPool> {
    ObjectRef::new(&pool.name).within(&pool.namespace)
}

/// A pool that comes or goes changes what its policies resolve to.
fn wake_targeting(
    store: &Store<GuardedPolicy>,
    pool: &GuardedPool,
    wake: &UnboundedSender<ObjectRef<GuardedPolicy>>,
) {
    for policy in targeting(store, pool.meta().namespace.as_deref(), &pool.name_any()) {
        let _ = wake.unbounded_send(policy);
    }
}

fn targeting(
    store: &Store<GuardedPolicy>,
    namespace: Option<&str>,
    pool: &str,
) -> Vec<ObjectRef<GuardedPolicy>> {
    let all = store.state().into_iter();
    let aimed = all.filter(|policy| {
        policy.meta().namespace.as_deref() == namespace
            && policy.0.as_ref().is_ok_and(|policy| policy::plan::targets(&policy.spec, pool))
    });
    aimed.map(|policy| ObjectRef::from_obj(&*policy)).collect()
}

/// A policy may have named another pool before: it wakes every pool of its namespace.
fn wake_namespace(
    store: &Store<GuardedPool>,
    policy: &GuardedPolicy,
    wake: &UnboundedSender<ObjectRef<GuardedPool>>,
) {
    let pools = store.state().into_iter();
    for pool in pools.filter(|pool| pool.meta().namespace == policy.meta().namespace) {
        let _ = wake.unbounded_send(ObjectRef::from_obj(&*pool));
    }
}

fn wake_owner(pod: &Pod, wake: &UnboundedSender<ObjectRef<GuardedPool>>) {
    let Some(pool) = pod.labels().get(POOL_LABEL) else { return };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let _ = wake.unbounded_send(ObjectRef::new(pool).within(namespace));
}
