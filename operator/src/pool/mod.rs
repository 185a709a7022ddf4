//! The pool's reconciler: observe, validate, build, apply, status.
//!
//! What pods are made from is kept as a revision, so that another operator restarts none: see [`revision`].
//!
//! Keys and plan come first and by themselves: whatever is wrong with the pods, a change of a policy reaches those that
//! run. Here is only the order; each step has a file.

pub mod activate;
pub mod api_keys;
pub mod apply;
pub mod build;
pub mod facts;
mod lack;
pub mod observe;
mod obstacle;
pub mod revision;
pub mod shortage;
pub mod status;
pub mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corral_crds::OllamaPool;
use corral_crds::merge::priorities_in_short;
use corral_crds::status::OllamaPoolStatus;
use corral_wire::PoolRef;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use crate::activation::stand::{Need, Part};
use crate::apply::{ApplyError, Only};
use crate::broken;
use crate::clock::jittered;
use crate::context::{Context, GuardedPolicy, GuardedPool};
use crate::error::{Class, Error};
use crate::exchange::peer::Role;
use crate::exchange::pool::Offer;
use crate::names;
use crate::policy::plan::{Candidate, Next, next};
use crate::policy::record::{Record, Share};
use crate::scaling::{self, Look, Size};
use apply::Applied;
use build::{PodCounts, secrets};
use facts::Facts;
use observe::PodsSeen;
use validate::ValidPool;

/// The longest that one reconcile takes: a request that hangs must not hold its pool up for ever.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often a pool is looked at when nothing happened, jittered.
const RESYNC: Duration = Duration::from_mins(5);
/// The same while activators stand in for its pods: nobody tells of a slice that somebody else took away, and without it
/// nobody can wake the pool.
const RESYNC_WITHOUT_PODS: Duration = Duration::from_secs(20);

/// Reconciles one pool.
pub async fn reconcile(pool: Arc<GuardedPool>, ctx: Arc<Context>) -> Result<Action, Error> {
    let started = ctx.clock.now();
    let outcome =
        tokio::time::timeout(DEADLINE, Box::pin(attempt(&pool, &ctx))).await.unwrap_or(Err(Error::Timeout));
    let took = ctx.clock.now().saturating_sub(started);
    ctx.metrics.reconciled("pool", took, outcome.as_ref().err().map(Error::label));
    outcome?;
    ctx.pool_failures.succeeded(&ObjectRef::from_obj(&*pool));
    let soon = ctx.shortages.look_again(&reference(&pool), ctx.clock.now());
    let stand_in = ctx.activations.part(&reference(&pool)) == Some(Part::Stands);
    let resync = jittered(if stand_in { RESYNC_WITHOUT_PODS } else { RESYNC }, 20);
    Ok(Action::requeue(soon.unwrap_or(Duration::MAX).min(resync)))
}

fn reference(pool: &GuardedPool) -> PoolRef {
    let meta = pool.meta();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    PoolRef { namespace: text(&meta.namespace), name: text(&meta.name) }
}

/// When to try again after an error.
pub fn after_error(pool: &GuardedPool, error: &Error, ctx: &Context) -> Action {
    tracing::info!(pool = ?pool.meta().name, %error, "the pool is not as it should be");
    match error.class() {
        Class::Invalid => Action::requeue(jittered(RESYNC, 20)),
        Class::Conflict => Action::requeue(jittered(Duration::from_millis(100), 50)),
        Class::Transient => Action::requeue(ctx.pool_failures.failed(ObjectRef::from_obj(pool))),
    }
}

async fn attempt(guarded: &GuardedPool, ctx: &Context) -> Result<(), Error> {
    let pool = match &guarded.0 {
        Ok(pool) => pool,
        Err(broken) => {
            return Ok(broken::tell::<OllamaPool>(&ctx.writer, broken, ("Ready", "InvalidSpec")).await?);
        }
    };
    if pool.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let now = ctx.time();
    let outcome = Box::pin(bring_about(pool, ctx)).await;
    let status = match &outcome {
        Ok(status) => Some(status.clone()),
        Err(error) => error.reason().map(|reason| status::of_failed(pool, reason, &error.to_string(), &now)),
    };
    if let Some(status) = status {
        tell(pool, status, ctx).await?;
    }
    outcome.map(drop)
}

/// Everything but the telling.
async fn bring_about(pool: &OllamaPool, ctx: &Context) -> Result<OllamaPoolStatus, Error> {
    let valid = ValidPool::of(pool)?;
    let live = apply::deployment(&ctx.writer, &valid).await.inspect(|live| ctx.saw(&valid, live.as_ref()));
    let pods = observe::pods_of(&ctx.stores.pods, &valid.namespace, &valid.name);
    let Look { size, due, .. } = scaling::run::look(ctx, &valid, pool, &pods);
    let reference = valid.reference();
    if ctx.scalings.is_overruled(&reference, &valid.spec) {
        ctx.events.overruled(&pool.object_ref(&()), valid.spec.replicas).await;
    }
    let record = offer_plan(&valid, size.replicas, ctx).await?;
    let activators = observe::activators_of(&ctx.stores.activators, &valid.namespace, &valid.name);
    let peers = [observe::sights(&pods, Role::Pod), observe::sights(&activators, Role::Activator)].concat();
    ctx.exchange.take_peers(&reference, peers);
    // Whatever is wrong with the pods, who stands in for them is brought into the Service; and before the last one goes.
    let activated = activate::activate(&valid, &activators, ctx).await;
    let live = live?;
    if !due.is_empty() {
        ctx.scalings.stir(&reference);
    }
    let seen = observe::look(&pods, valid.spec.gpu.extended_resource().map(|(name, _)| name));
    let counts = counts(&reference, &size, &seen, ctx);
    let rendered = build::template(&valid, &ctx.defaults);
    let current = revision::current(&ctx.writer, &valid, rendered).await?;
    let prepared = build::build(&valid, &current.id, current.template.clone(), counts)?;
    let shrinks = live.filter(|live| apply::replicas(live) > counts.replicas);
    let version = shrinks.and_then(|live| live.metadata.resource_version);
    // Load may have returned since that look: then who was to go has been let go, and serves again.
    let still = || ctx.scalings.replicas(&reference).is_none_or(|latest| latest <= size.replicas);
    let only = version.as_deref().map(|version| Only { version, still: &still });
    let applied: Applied = apply::apply(&ctx.writer, &valid, prepared, current, only).await?;
    ctx.saw(&valid, Some(applied.deployment()));
    activated?;
    let standing = ctx.exchange.standing(&reference);
    let facts = Facts {
        applied: &applied,
        size: &size,
        pods: &seen,
        standing: standing.as_ref(),
        record: Some(&record),
        now: ctx.clock.now(),
    };
    Ok(status::of_applied(pool, &valid, &facts, &ctx.time()))
}

/// How many pods there are to be, and how many of them no node has had room for, for so long that it counts.
fn counts(pool: &PoolRef, size: &Size, seen: &PodsSeen, ctx: &Context) -> PodCounts {
    let lasting = ctx.shortages.lasting(pool, seen.short(size.replicas), ctx.clock.now());
    let replicas = i32::try_from(size.replicas).unwrap_or(i32::MAX);
    PodCounts { replicas, unschedulable: lasting.min(seen.unschedulable) }
}

/// Keys, term, plan and D: written, then offered to the pods and activators.
async fn offer_plan(pool: &ValidPool, replicas: u32, ctx: &Context) -> Result<Arc<Record>, Error> {
    let reference = pool.reference();
    let standing = ctx.exchange.standing(&reference);
    let live = apply::plan_secret(&ctx.writer, pool).await?;
    let secret = apply::key_secret(&ctx.writer, pool).await?;
    let keys = secrets::keys(&secret).map_err(|error| Error::Keys(names::key_secret(&pool.name), error))?;
    let overtaken_by = standing.as_ref().and_then(|standing| standing.overtaken_by);
    let overtaken_by = overtaken_by.max(ctx.activations.overtaken_by(&reference));
    let term = term(&reference, &secret, overtaken_by, ctx).await?;
    let last = live.as_ref().and_then(secrets::plan);
    let policies = policies_of(pool, ctx);
    let candidates: Vec<Candidate<'_>> = policies.iter().filter_map(|policy| candidate(policy)).collect();
    let ring = api_keys::read(&ctx.writer, pool, &keys).await?;
    let next = next(pool, &ring, &candidates, last.as_ref(), standing.as_ref().and_then(|s| s.outrun_by))?;
    // New pods may have to go by the Secret alone, so it never says fewer than will be there. Pods that have heard from a
    // leader go by its word, so that a pool that grows halves nobody's limit before there is a second pod to serve.
    let stored = live.as_ref().map_or(0, secrets::divisor);
    let counted = standing.as_ref().map_or(stored, |standing| standing.divisor);
    let divisor = counted.max(replicas).max(1);
    let secret = serde_json::to_value(secrets::plan_secret(pool, &next.text, divisor))?;
    ctx.writer.apply::<Secret>(&pool.uid, secret).await?;
    let plan = Arc::new(next.doc.clone());
    let need = activate::need(&pool.spec);
    if need == Need::Zero || !ctx.activations.is_without(&reference) {
        ctx.activations.offer(&reference, &pool.uid, (keys.clone(), term), need);
    }
    ctx.exchange.offer(&reference, Offer { keys, term, plan, stored_divisor: divisor });
    let record = record(next, &policies);
    ctx.records.put(&reference, record.clone());
    Ok(Arc::new(record))
}

/// This leader's term for the pool: taken once, and again only above a pod that obeyed a higher one.
async fn term(
    pool: &PoolRef,
    secret: &Secret,
    overtaken_by: Option<u64>,
    ctx: &Context,
) -> Result<u64, Error> {
    let held = ctx.records.term(pool);
    if let Some(term) = held.filter(|term| overtaken_by.is_none_or(|above| *term > above)) {
        return Ok(term);
    }
    let term = apply::raise_term(&ctx.writer, secret, overtaken_by.unwrap_or(0)).await?;
    ctx.records.take_term(pool, term);
    Ok(term)
}

/// The policies of the pool's namespace, the oldest first, then in order of their names. One that is being deleted is
/// gone already.
fn policies_of(pool: &ValidPool, ctx: &Context) -> Vec<Arc<GuardedPolicy>> {
    let mut all = ctx.stores.policies.state();
    all.retain(|policy| {
        policy.meta().namespace.as_deref() == Some(pool.namespace.as_str())
            && policy.meta().deletion_timestamp.is_none()
            && policy.0.as_ref().map_or(true, |policy| policy.spec.targets(&pool.name, &pool.labels))
    });
    let place = |policy: &GuardedPolicy| {
        let meta = policy.meta();
        (meta.creation_timestamp.as_ref().map(|time| time.0), meta.name.clone())
    };
    all.sort_by_key(|policy| place(policy));
    all
}

fn candidate(policy: &GuardedPolicy) -> Option<Candidate<'_>> {
    let DeserializeGuard(read) = policy;
    let spec = read.as_ref().map(|policy| &policy.spec).map_err(|broken| broken.error.as_str());
    let created = policy.meta().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    Some(Candidate { name: policy.meta().name.as_deref()?, created, spec })
}

fn record(next: Next, policies: &[Arc<GuardedPolicy>]) -> Record {
    let metas: BTreeMap<&str, &ObjectMeta> =
        policies.iter().filter_map(|policy| Some((policy.meta().name.as_deref()?, policy.meta()))).collect();
    let shares = next.outcomes.into_iter().filter_map(|outcome| {
        let name = outcome.policy.split_once('/')?.1.to_owned();
        let meta = metas.get(name.as_str())?;
        let priorities = priorities_in_short(&next.doc, &outcome.policy);
        let (uid, generation) = (meta.uid.clone(), meta.generation.unwrap_or(0));
        Some((name, Share { uid, generation, outcome, priorities }))
    });
    Record {
        state: corral_wire::PlanState { sequence: next.doc.sequence, digest: next.doc.digest() },
        policies: shares.collect(),
        plan: Arc::new(next.plan),
        problems: next.problems,
        unresolved: next.unresolved,
    }
}

/// Writes the status and sends events, if there is news.
async fn tell(pool: &OllamaPool, status: OllamaPoolStatus, ctx: &Context) -> Result<(), ApplyError> {
    if pool.status.clone().map(status::ordered).as_ref() == Some(&status) {
        return Ok(());
    }
    let meta = &pool.metadata;
    let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
    ctx.writer
        .apply_status::<OllamaPool>(namespace.unwrap_or_default(), name.unwrap_or_default(), &status)
        .await?;
    let before = pool.status.clone().unwrap_or_default();
    let about = pool.object_ref(&());
    ctx.events.tell(&about, &before.conditions, &status.conditions).await;
    let known = before.autoscaling.unwrap_or_default().decisions;
    let decisions = status.autoscaling.map(|scaling| scaling.decisions).unwrap_or_default();
    let of =
        PoolRef { namespace: namespace.unwrap_or_default().into(), name: name.unwrap_or_default().into() };
    for decision in ctx.scalings.untold(&of, &known, &decisions).iter().rev() {
        ctx.events.scaled(&about, decision).await;
    }
    Ok(())
}
