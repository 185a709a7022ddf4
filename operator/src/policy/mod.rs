//! The policy's reconciler: it says how a policy stands. What the policy does is done by its pools' reconcilers.

pub mod key_room;
pub mod plan;
pub mod record;
pub mod room;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use corral_crds::RateLimitPolicy;
use corral_crds::policy::Labels;
use corral_wire::PoolRef;
use kube::Resource;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use crate::broken;
use crate::clock::jittered;
use crate::context::{Context, GuardedPolicy, GuardedPool};
use crate::error::Error;
use status::Target;

const DEADLINE: Duration = Duration::from_secs(30);
const RESYNC: Duration = Duration::from_mins(10);

/// Reconciles one policy.
pub async fn reconcile(policy: Arc<GuardedPolicy>, ctx: Arc<Context>) -> Result<Action, Error> {
    let started = ctx.clock.now();
    let outcome = tokio::time::timeout(DEADLINE, attempt(&policy, &ctx)).await.unwrap_or(Err(Error::Timeout));
    let took = ctx.clock.now().saturating_sub(started);
    ctx.metrics.reconciled("policy", took, outcome.as_ref().err().map(Error::label));
    outcome?;
    ctx.policy_failures.succeeded(&ObjectRef::from_obj(&*policy));
    Ok(Action::requeue(jittered(RESYNC, 20)))
}

/// When to try again after an error.
pub fn after_error(policy: &GuardedPolicy, error: &Error, ctx: &Context) -> Action {
    tracing::info!(policy = ?policy.meta().name, %error, "the status of the policy could not be told");
    Action::requeue(ctx.policy_failures.failed(ObjectRef::from_obj(policy)))
}

async fn attempt(guarded: &GuardedPolicy, ctx: &Context) -> Result<(), Error> {
    let policy = match &guarded.0 {
        Ok(policy) => policy,
        Err(broken) => {
            return Ok(broken::tell::<RateLimitPolicy>(&ctx.writer, broken, ("Accepted", "Invalid")).await?);
        }
    };
    if policy.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let status = status::status(policy, &targets(policy, ctx), &ctx.time());
    if policy.status.clone().map(status::ordered).as_ref() == Some(&status) {
        return Ok(());
    }
    let meta = &policy.metadata;
    let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
    ctx.writer
        .apply_status::<RateLimitPolicy>(namespace.unwrap_or_default(), name.unwrap_or_default(), &status)
        .await?;
    let before = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    ctx.events.tell(&policy.object_ref(&()), before, &status.conditions).await;
    Ok(())
}

/// The pools that a policy names, whether they are there or not, or those that it selects, and what is known of each.
fn targets(policy: &RateLimitPolicy, ctx: &Context) -> Vec<Target> {
    let namespace = policy.metadata.namespace.clone().unwrap_or_default();
    let target = |name: &str| {
        let reference = PoolRef { namespace: namespace.clone(), name: name.to_owned() };
        let key = ObjectRef::<GuardedPool>::new(name).within(&namespace);
        let pool = ctx.stores.pools.get(&key);
        Target {
            pool: name.to_owned(),
            exists: pool.is_some_and(|pool| pool.meta().deletion_timestamp.is_none()),
            record: ctx.records.get(&reference),
            standing: ctx.exchange.standing(&reference),
        }
    };
    let written = policy.spec.target_refs.iter().flatten().map(|wanted| wanted.name.clone());
    let mut names: Vec<String> = written.chain(selected(policy, ctx)).collect();
    if policy.spec.target_refs.is_none() {
        names.sort();
    }
    names.iter().map(|name| target(name)).collect()
}

/// The names of the pools that a policy selects.
fn selected(policy: &RateLimitPolicy, ctx: &Context) -> Vec<String> {
    let Some(selector) = &policy.spec.target_selector else { return Vec::new() };
    let no_labels = Labels::new();
    let near = ctx.stores.pools.state().into_iter().filter(|pool| {
        let meta = pool.meta();
        meta.namespace == policy.metadata.namespace
            && meta.deletion_timestamp.is_none()
            && selector.matches(meta.labels.as_ref().unwrap_or(&no_labels))
    });
    near.filter_map(|pool| pool.meta().name.clone()).collect()
}
