//! The pool's reconciler: observe, validate, build, apply, status.
//!
//! What pods are made from is kept as a revision, so that another operator restarts none: see [`revision`].
//!
//! Keys and plan come first and by themselves: whatever is wrong with the pods, a change of a policy reaches those that
//! run. Here is only the order; each step has a file.

pub mod api_keys;
pub mod apply;
pub mod build;
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

use crate::apply::ApplyError;
use crate::broken;
use crate::clock::jittered;
use crate::context::{Context, GuardedPolicy, GuardedPool};
use crate::error::{Class, Error};
use crate::exchange::pool::Offer;
use crate::names;
use crate::policy::plan::{Candidate, Next, next};
use crate::policy::record::{Record, Share};
use apply::Applied;
use build::secrets;
use validate::ValidPool;

/// The longest that one reconcile takes: a request that hangs must not hold its pool up for ever.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often a pool is looked at when nothing happened, jittered.
const RESYNC: Duration = Duration::from_mins(5);

/// Reconciles one pool.
pub async fn reconcile(pool: Arc<GuardedPool>, ctx: Arc<Context>) -> Result<Action, Error> {
    let started = ctx.clock.now();
    let outcome = tokio::time::timeout(DEADLINE, attempt(&pool, &ctx)).await.unwrap_or(Err(Error::Timeout));
    let took = ctx.clock.now().saturating_sub(started);
    ctx.metrics.reconciled("pool", took, outcome.as_ref().err().map(Error::label));
    outcome?;
    ctx.pool_failures.succeeded(&ObjectRef::from_obj(&*pool));
    let soon = ctx.shortages.look_again(&reference(&pool), ctx.clock.now());
    Ok(Action::requeue(soon.unwrap_or(Duration::MAX).min(jittered(RESYNC, 20))))
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
    let outcome = bring_about(pool, ctx).await;
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
    let record = offer_plan(&valid, ctx).await?;
    let pods = observe::pods_of(&ctx.stores.pods, &valid.namespace, &valid.name);
    let reference = valid.reference();
    ctx.exchange.take_pods(&reference, observe::sights(&pods));
    let seen = observe::look(&pods, valid.spec.gpu.extended_resource().map(|(name, _)| name));
    let rendered = build::template(&valid, &ctx.defaults);
    let current = revision::current(&ctx.writer, &valid, rendered).await?;
    let short = seen.short(u32::try_from(valid.spec.replicas).unwrap_or(0));
    let lasting = ctx.shortages.lasting(&reference, short, ctx.clock.now());
    let unschedulable = lasting.min(seen.unschedulable);
    let prepared = build::build(&valid, &current.id, current.template.clone(), unschedulable)?;
    let applied: Applied = apply::apply(&ctx.writer, &valid, prepared, current).await?;
    let standing = ctx.exchange.standing(&reference);
    let facts = status::Facts {
        applied: &applied,
        pods: &seen,
        standing: standing.as_ref(),
        record: Some(&record),
        now: ctx.clock.now(),
    };
    Ok(status::of_applied(pool, &valid, &facts, &ctx.time()))
}

/// Keys, term, plan and D: written, then offered to the pods.
async fn offer_plan(pool: &ValidPool, ctx: &Context) -> Result<Arc<Record>, Error> {
    let reference = pool.reference();
    let standing = ctx.exchange.standing(&reference);
    let live = apply::plan_secret(&ctx.writer, pool).await?;
    let secret = apply::key_secret(&ctx.writer, pool).await?;
    let keys = secrets::keys(&secret).map_err(|error| Error::Keys(names::key_secret(&pool.name), error))?;
    let overtaken_by = standing.as_ref().and_then(|standing| standing.overtaken_by);
    let term = term(&reference, &secret, overtaken_by, ctx).await?;
    let last = live.as_ref().and_then(secrets::plan);
    let policies = policies_of(pool, ctx);
    let candidates: Vec<Candidate<'_>> = policies.iter().filter_map(|policy| candidate(policy)).collect();
    let ring = api_keys::read(&ctx.writer, pool, &keys).await?;
    let next = next(pool, &ring, &candidates, last.as_ref(), standing.as_ref().and_then(|s| s.outrun_by))?;
    // New pods may have to go by the Secret alone, so it never says fewer than will be there.
    let stored = live.as_ref().map_or(0, secrets::divisor);
    let counted = standing.as_ref().map_or(stored, |standing| standing.divisor);
    let divisor = counted.max(u32::try_from(pool.spec.replicas).unwrap_or(0)).max(1);
    let secret = serde_json::to_value(secrets::plan_secret(pool, &next.text, divisor))?;
    ctx.writer.apply::<Secret>(&pool.uid, secret).await?;
    let plan = Arc::new(next.doc.clone());
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
    let before = pool.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    ctx.events.tell(&pool.object_ref(&()), before, &status.conditions).await;
    Ok(())
}
