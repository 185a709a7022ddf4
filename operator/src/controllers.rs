//! Wiring: what is watched, what it wakes, and what ends with the lead.
//!
//! Each watched namespace (or the whole cluster) has watches, stores and controllers of its own: nothing of Corral
//! reaches from one namespace into another, so neither does a watch that breaks. A broken one begins anew by itself.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use corral_crds::RateLimitPolicySpec;
use corral_wire::PoolRef;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::stream::BoxStream;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::PartialObjectMeta;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use tokio::time::interval;

use crate::config::{DEBOUNCE, PARALLEL_RECONCILES};
use crate::context::{Context, GuardedPolicy, GuardedPool, Stores};
use crate::error::Error;
use crate::key_watches::KeyWatches;
use crate::names::{ACTIVATOR_LABEL, POOL_LABEL};
use crate::scope::Scope;
use crate::watches::{self, Seen, Watch, Watched};
use crate::{policy, pool, scaling};

/// How often what belongs to pools that are gone is dropped.
const SWEEP: Duration = Duration::from_secs(5);

/// The watches of a scope. The stores fill as long as [`run`] is polled.
pub struct Watches {
    /// What was last seen.
    pub stores: Stores,
    pools: Watch<GuardedPool>,
    policies: Watch<GuardedPolicy>,
    pods: Watch<Pod>,
    activators: Watch<Pod>,
}

/// Opens the watches of a scope.
pub fn watch(scope: &Scope) -> Watches {
    let (pools, pool_events) = watches::kept(scope.api(), watcher::Config::default());
    let (policies, policy_events) = watches::kept(scope.api(), watcher::Config::default());
    let (pods, pod_events) = watches::kept(scope.api(), named_by(POOL_LABEL));
    let (activators, activator_events) = watches::kept(scope.api(), named_by(ACTIVATOR_LABEL));
    let stores = Stores { pools, policies, pods, activators };
    Watches {
        stores,
        pools: pool_events,
        policies: policy_events,
        pods: pod_events,
        activators: activator_events,
    }
}

/// Selects what belongs to a pool by a label that names it.
fn named_by(label: &str) -> watcher::Config {
    watcher::Config::default().labels(label)
}

/// That something happened to an object of a pool is enough to know: what it is now is read when it is needed.
fn noticed<K>(scope: &Scope) -> Watch<PartialObjectMeta<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Watched,
{
    watches::noticed(scope.api(), named_by(POOL_LABEL))
}

/// Runs the controllers of a scope for as long as it is polled.
pub async fn run(scope: Scope, watches: Watches, ctx: Arc<Context>) {
    let Watches { stores, pools, policies, pods, activators } = watches;
    let (wake_pool, woken_pools) = unbounded();
    let (wake_policy, woken_policies) = unbounded();
    let (key_watches, keyed_pools) = (KeyWatches::default(), stores.pools.clone());
    let wake = Wake { stores, pools: wake_pool, policies: wake_policy, keys: key_watches.clone() };
    let (wake_keyed, wake_sized) = (wake.clone(), wake.clone());
    tokio::join!(
        run_pools(wake.by_pools(pools), woken_pools, &ctx),
        run_policies(wake.by_policies(policies), woken_policies, &ctx),
        wake.by_owned(POOL_LABEL, pods),
        wake.by_owned(ACTIVATOR_LABEL, activators),
        wake.by_owned(POOL_LABEL, noticed::<Deployment>(&scope)),
        wake.by_owned(POOL_LABEL, noticed::<Service>(&scope)),
        wake.by_owned(POOL_LABEL, noticed::<PodDisruptionBudget>(&scope)),
        key_watches.run(scope.client.clone(), keyed_pools, move |pool| wake_keyed.pool(pool)),
        scaling::run::run(scope.clone(), Arc::clone(&ctx), move |pool| wake_sized.pool(pool)),
        sweep(&ctx, scope.namespace.as_deref()),
    );
}

/// What a controller begins with: it never fails, since a watch does not.
type Touched<K> = BoxStream<'static, Result<K, watcher::Error>>;

async fn run_pools(
    pools: Touched<GuardedPool>,
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
        .reconcile_on(woken)
        .reconcile_on(ctx.exchange.changes().map(|pool| pool_ref(&pool)))
        .run(reconcile, after_error, Arc::clone(ctx))
        .for_each(|_| ready(()))
        .await;
}

async fn run_policies(
    policies: Touched<GuardedPolicy>,
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
    let stores = ctx.stores.clone();
    let told = changed.flat_map(move |pool| futures::stream::iter(targeting(&stores, &pool)));
    Controller::for_stream(policies, ctx.stores.policies.clone())
        .with_config(config())
        .reconcile_on(woken)
        .reconcile_on(told)
        .run(reconcile, after_error, Arc::clone(ctx))
        .for_each(|_| ready(()))
        .await;
}

fn config() -> controller::Config {
    controller::Config::default().concurrency(PARALLEL_RECONCILES).debounce(DEBOUNCE)
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
        ctx.shortages.retain(|pool| !here(pool) || exists(pool));
        ctx.scalings.retain(|pool| !here(pool) || exists(pool));
        ctx.metrics.retain(|pool| !here(pool) || exists(pool));
        ctx.activations.retain(|pool| !here(pool) || exists(pool));
        ctx.exchange.retain(|pool| !here(pool) || exists(pool));
    }
}

fn pool_ref(pool: &PoolRef) -> ObjectRef<GuardedPool> {
    ObjectRef::new(&pool.name).within(&pool.namespace)
}

/// The policies that target a pool as it was last seen.
fn targeting(stores: &Stores, pool: &PoolRef) -> Vec<ObjectRef<GuardedPolicy>> {
    let seen = stores.pools.get(&pool_ref(pool));
    let labels = seen.and_then(|pool| pool.meta().labels.clone()).unwrap_or_default();
    near(stores, Some(&pool.namespace), |spec| spec.targets(&pool.name, &labels))
}

/// The policies of a namespace that are aimed so.
fn near(
    stores: &Stores,
    namespace: Option<&str>,
    is_aimed: impl Fn(&RateLimitPolicySpec) -> bool,
) -> Vec<ObjectRef<GuardedPolicy>> {
    let all = stores.policies.state().into_iter();
    let aimed = all.filter(|policy| {
        policy.meta().namespace.as_deref() == namespace
            && policy.0.as_ref().is_ok_and(|policy| is_aimed(&policy.spec))
    });
    aimed.map(|policy| ObjectRef::from_obj(&*policy)).collect()
}

/// Wakes whom an event concerns.
#[derive(Clone)]
struct Wake {
    stores: Stores,
    pools: UnboundedSender<ObjectRef<GuardedPool>>,
    policies: UnboundedSender<ObjectRef<GuardedPolicy>>,
    keys: KeyWatches,
}

impl Wake {
    /// A pool that comes or goes, or whose labels change, changes what policies resolve to; it may have had other labels before.
    fn by_pools(&self, pools: Watch<GuardedPool>) -> Touched<GuardedPool> {
        let wake = self.clone();
        self.by(pools, move |pool| {
            wake.keys.look_again();
            let name = pool.name_any();
            let is_aimed = |spec: &RateLimitPolicySpec| spec.target_selector.is_some() || spec.names(&name);
            for policy in near(&wake.stores, pool.meta().namespace.as_deref(), is_aimed) {
                wake.policy(policy);
            }
        })
    }

    /// A policy may have named another pool before: it wakes every pool of its namespace.
    fn by_policies(&self, policies: Watch<GuardedPolicy>) -> Touched<GuardedPolicy> {
        let wake = self.clone();
        self.by(policies, move |policy| {
            let pools = wake.stores.pools.state().into_iter();
            let near = pools.filter(|pool| pool.meta().namespace == policy.meta().namespace);
            for pool in near {
                wake.pool(ObjectRef::from_obj(&*pool));
            }
        })
    }

    /// What belongs to a pool, as a label says, wakes it.
    async fn by_owned<K>(&self, label: &'static str, objects: Watch<K>)
    where
        K: Resource<DynamicType = ()> + Send + 'static,
    {
        let wake = self.clone();
        let woken = self.by(objects, move |object| {
            let Some(pool) = object.labels().get(label) else { return };
            wake.pool(ObjectRef::new(pool).within(&object.namespace().unwrap_or_default()));
        });
        woken.for_each(|_| ready(())).await;
    }

    fn by<K: Send + 'static>(&self, seen: Watch<K>, touch: impl Fn(&K) + Send + 'static) -> Touched<K> {
        let wake = self.clone();
        let touched = seen.filter_map(move |seen| {
            ready(match seen {
                Seen::One(object) => {
                    touch(&object);
                    Some(Ok(object))
                }
                Seen::All => {
                    wake.all();
                    None
                }
            })
        });
        touched.boxed()
    }

    fn all(&self) {
        self.keys.look_again();
        let (pools, policies) = (self.stores.pools.state(), self.stores.policies.state());
        for pool in pools {
            self.pool(ObjectRef::from_obj(&*pool));
        }
        for policy in policies {
            self.policy(ObjectRef::from_obj(&*policy));
        }
    }

    // One that is woken when its controller is gone need not wake.
    fn pool(&self, pool: ObjectRef<GuardedPool>) {
        let _ = self.pools.unbounded_send(pool);
    }

    fn policy(&self, policy: ObjectRef<GuardedPolicy>) {
        let _ = self.policies.unbounded_send(policy);
    }
}
