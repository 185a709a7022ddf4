//! What is said of a pool: from what the API server holds, what its pods said, and what its policies came to. Pure.

use std::num::NonZeroU32;

use corral_crds::OllamaPool;
use corral_crds::api_keys::NO_SECRET;
use corral_crds::condition::{ConditionType, NewCondition, Reason, set_condition};
use corral_crds::merge::bounds;
use corral_crds::pool::ScalingMode;
use corral_crds::status::{EffectiveLimit, LimitState, LimitStatus, OllamaPoolStatus};
use corral_wire::{Mode, OffGpu};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::build::service;
use super::facts::Facts;
use super::obstacle::obstacle;
use super::revision::update::Update;
use super::validate::ValidPool;
use crate::exchange::Standing;
use crate::names::{POOL_LABEL, UPDATE};
use crate::policy::record::Record;
use crate::scaling::tell;

/// The most limits that a status lists.
const MAX_LIMITS: usize = corral_crds::bounds::MAX_POOL_LIMITS;
/// The most models off their GPU that a message names.
const NAMED: usize = 3;

/// The status of a pool that was applied.
pub fn of_applied(pool: &OllamaPool, valid: &ValidPool, facts: &Facts<'_>, now: &Time) -> OllamaPoolStatus {
    let deployment = facts.applied.deployment().status.clone().unwrap_or_default();
    let gpus = valid.spec.gpu.extended_resource().map_or(0, |(_, count)| i32::try_from(count).unwrap_or(0));
    let replicas = deployment.replicas.unwrap_or(0);
    let mut status = OllamaPoolStatus {
        observed_generation: pool.metadata.generation,
        replicas,
        ready_replicas: deployment.ready_replicas.unwrap_or(0),
        updated_replicas: deployment.updated_replicas.unwrap_or(0),
        available_replicas: deployment.available_replicas.unwrap_or(0),
        desired_replicas: Some(count(facts.size.desired)),
        autoscaling: valid.spec.autoscaling.is_some().then(|| tell::status(facts.size)),
        gpus: gpus.saturating_mul(replicas),
        selector: Some(format!("{POOL_LABEL}={}", valid.name)),
        endpoint: Some(service::endpoint(valid)),
        conditions: old_conditions(pool),
        effective_limits: effective_limits(facts),
    };
    let (ready, reason, message) = readiness(facts, was_ready(pool));
    let on_its_way = if ready { Reason::UpToDate } else { reason };
    let waiting = if ready { String::new() } else { message.clone() };
    set(&mut status, pool, now, (ConditionType::Ready, ready, reason, message));
    set(&mut status, pool, now, (ConditionType::Reconciling, !ready, on_its_way, waiting));
    let (available, reason, message) = update(valid, facts.applied.update());
    set(&mut status, pool, now, (ConditionType::UpdateAvailable, available, reason, message));
    status.conditions.retain(|condition| condition.type_ != ConditionType::GPUFallback.as_str() || gpus > 0);
    if gpus > 0 {
        let (fallen, reason, message) = gpu_fallback(facts.standing);
        set(&mut status, pool, now, (ConditionType::GPUFallback, fallen, reason, message));
    }
    let keyed = !valid.spec.identity.api_keys.is_empty();
    status.conditions.retain(|condition| condition.type_ != ConditionType::ResolvedRefs.as_str() || keyed);
    if keyed {
        let (resolved, reason, message) = resolved(facts.record);
        set(&mut status, pool, now, (ConditionType::ResolvedRefs, resolved, reason, message));
    }
    let scaling = tell::conditions(facts.size, (valid.spec.autoscaling.as_ref(), now.0));
    let stands = |kind: &ConditionType| scaling.iter().any(|(other, ..)| other == kind);
    let gone: Vec<&str> = tell::TYPES.iter().filter(|kind| !stands(kind)).map(|kind| kind.as_str()).collect();
    status.conditions.retain(|condition| !gone.contains(&condition.type_.as_str()));
    for condition in scaling {
        set(&mut status, pool, now, condition);
    }
    status
}

/// Whether every Secret with API keys is there, and all that stands in it counts.
fn resolved(record: Option<&Record>) -> (bool, Reason, String) {
    let problems = record.map(|record| record.unresolved.as_slice()).unwrap_or_default();
    if problems.is_empty() {
        return (true, Reason::ResolvedRefs, String::new());
    }
    let missing = problems.iter().any(|problem| problem.message.starts_with(NO_SECRET));
    let reason = if missing { Reason::SecretNotFound } else { Reason::InvalidApiKeys };
    (false, reason, problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// Whether a pod that has GPUs runs a model beside them: slowly, and without any other sign of it.
fn gpu_fallback(standing: Option<&Standing>) -> (bool, Reason, String) {
    let off = standing.map(|standing| standing.off_gpu.as_slice()).unwrap_or_default();
    let told = off.iter().flat_map(|(pod, models)| models.iter().map(move |model| (pod, model)));
    let told: Vec<String> = told
        .take(NAMED)
        .map(|(pod, OffGpu { model, gpu_percent })| {
            format!("{gpu_percent} % of {model} is on the GPU of {pod}, the rest runs on its CPU")
        })
        .collect();
    if told.is_empty() {
        (false, Reason::AllOnGPU, String::new())
    } else {
        (true, Reason::ModelOffGPU, told.join("; "))
    }
}

/// Whether the pods wait for somebody to ask for an update, what it would bring, and how to ask.
fn update(pool: &ValidPool, update: &Update) -> (bool, Reason, String) {
    match update {
        Update::Nothing => (false, Reason::UpToDate, String::new()),
        Update::Available(changes) => {
            let (namespace, name) = (&pool.namespace, &pool.name);
            let how = format!(
                "kubectl annotate --overwrite --namespace {namespace} ollamapool {name} {UPDATE}=\"$(date)\""
            );
            let message = format!(
                "this operator would change: {changes}. The next change of the pods brings it, or: {how}"
            );
            (true, Reason::UpdateAvailable, message)
        }
        Update::Refused(refused) => {
            let message = format!("the pods go on as they are; this operator would refuse their {refused}");
            (false, Reason::TemplateInvalid, message)
        }
    }
}

/// The status of a pool that could not be applied: what is left of the old one, and why.
pub fn of_failed(pool: &OllamaPool, reason: Reason, message: &str, now: &Time) -> OllamaPoolStatus {
    let mut status = ordered(pool.status.clone().unwrap_or_default());
    status.observed_generation = pool.metadata.generation;
    let retried = matches!(reason, Reason::Failed | Reason::NameConflict);
    set(&mut status, pool, now, (ConditionType::Ready, false, reason, message.to_owned()));
    set(&mut status, pool, now, (ConditionType::Reconciling, retried, reason, message.to_owned()));
    status
}

fn old_conditions(pool: &OllamaPool) -> Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    pool.status.as_ref().map(|status| ordered(status.clone()).conditions).unwrap_or_default()
}

/// A status in our order: a server that merges lists by key may keep them in another.
pub fn ordered(mut status: OllamaPoolStatus) -> OllamaPoolStatus {
    status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    status.effective_limits.sort_by(|a, b| (&a.policy, &a.name).cmp(&(&b.policy, &b.name)));
    status
}

fn set(
    status: &mut OllamaPoolStatus,
    pool: &OllamaPool,
    now: &Time,
    (kind, is, reason, message): (ConditionType, bool, Reason, String),
) {
    let generation = pool.metadata.generation.unwrap_or(0);
    let condition = NewCondition::new(kind, is, reason, message);
    set_condition(&mut status.conditions, condition, generation, now);
}

/// Whether the pool was last said to serve as its spec asks that now holds.
fn was_ready(pool: &OllamaPool) -> bool {
    let conditions = pool.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == ConditionType::Ready.as_str());
    ready.any(|ready| ready.status == "True" && ready.observed_generation == pool.metadata.generation)
}

/// Whether the pool serves as asked, and why or why not.
fn readiness(facts: &Facts<'_>, was_ready: bool) -> (bool, Reason, String) {
    let (asked, deployment) = (count(facts.size.desired), facts.applied.deployment());
    let status = deployment.status.clone().unwrap_or_default();
    let ready = status.ready_replicas.unwrap_or(0);
    // Those beyond are on their way out.
    let counted = format!("{} of {asked} pods serve{}", ready.min(asked), unheeded(facts.record));
    let size = (facts.size.replicas, facts.size.desired);
    if let Some(unknown) = facts.size.unknown_zones.first() {
        let message = format!("{unknown}; until then this schedule never holds, and {counted}");
        return (false, Reason::InvalidSpec, message);
    }
    if is_complete(deployment, &status, size, was_ready) {
        return match (asked, facts.size.mode) {
            (0, ScalingMode::Builtin) => (true, Reason::ScaledToZero, counted),
            (0, _) => (
                true,
                Reason::Stopped,
                format!("spec.replicas is 0: nobody is served{}", unheeded(facts.record)),
            ),
            _ => (true, Reason::Ready, counted),
        };
    }
    let (reason, why) = obstacle(facts, &status).unwrap_or_else(|| {
        let updated = status.updated_replicas.unwrap_or(0) >= asked && status.replicas.unwrap_or(0) <= asked;
        if updated {
            (Reason::Starting, tell::growth(facts.size))
        } else {
            (Reason::RollingOut, String::new())
        }
    });
    let message = if why.is_empty() { counted } else { format!("{counted}; {why}") };
    (false, reason, message)
}

/// What the pool's plan leaves out, or why there is no new one; nothing where all is as its policies ask.
fn unheeded(record: Option<&Record>) -> String {
    let Some(record) = record else { return String::new() };
    if !record.problems.is_empty() {
        let all: Vec<String> = record.problems.iter().map(ToString::to_string).collect();
        return format!("; the last plan stays in force: {}", all.join("; "));
    }
    let left_out: Vec<&str> = record
        .policies
        .iter()
        .filter(|(_, s)| s.outcome.left_out.is_some())
        .map(|(name, _)| name.as_str())
        .collect();
    let shown: Vec<&str> = left_out.iter().copied().take(3).collect();
    match left_out.len().saturating_sub(shown.len()) {
        _ if shown.is_empty() => String::new(),
        0 => format!("; the plan has no room for {} as written now", shown.join(", ")),
        more => format!("; the plan has no room for {} and {more} more as written now", shown.join(", ")),
    }
}

/// Whether all pods are there that are asked for, as they should be, and serve but for those that shall go. There may be
/// more: that fewer are asked for than there are is nothing that a pool waits for, nor that it is not seen yet.
fn is_complete(
    deployment: &Deployment,
    status: &DeploymentStatus,
    size: (u32, u32),
    was_ready: bool,
) -> bool {
    let (asked, wanted) = (count(size.0), count(size.0.min(size.1)));
    let exist = status.replicas.unwrap_or(0);
    let seen = status.observed_generation >= deployment.metadata.generation;
    let serve = |pods: Option<i32>| pods.unwrap_or(0) >= wanted;
    (seen || (was_ready && exist > asked))
        && exist >= asked
        && status.updated_replicas.unwrap_or(0) == exist
        && serve(status.ready_replicas)
        && serve(status.available_replicas)
}

fn count(pods: u32) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

fn effective_limits(facts: &Facts<'_>) -> Vec<EffectiveLimit> {
    let Some(record) = facts.record else { return Vec::new() };
    let all = limits(record, facts.standing).into_iter();
    let mut named: Vec<EffectiveLimit> = all
        .map(|(policy, LimitStatus { name, state, bound, .. })| EffectiveLimit {
            policy,
            name,
            state,
            summary: bound,
        })
        .collect();
    named.sort_by(|a, b| (&a.policy, &a.name).cmp(&(&b.policy, &b.name)));
    named.truncate(MAX_LIMITS);
    named
}

/// The limits in a plan by the name of their policy, with what they bound while as many pods serve as do now.
pub fn limits(record: &Record, standing: Option<&Standing>) -> Vec<(String, LimitStatus)> {
    let pods = standing.and_then(|standing| NonZeroU32::new(standing.divisor)).unwrap_or(NonZeroU32::MIN);
    let all = bounds(&record.plan, pods).into_iter();
    all.map(|bound| {
        let policy = bound.policy.split_once('/').map_or(bound.policy.as_str(), |(_, name)| name).to_owned();
        let is_stale = record.policies.get(&policy).is_none_or(|share| !share.outcome.is_taken());
        let state = match bound.mode {
            _ if is_stale => LimitState::Stale,
            Mode::Enforce => LimitState::Enforced,
            Mode::Shadow => LimitState::Shadow,
        };
        (policy, LimitStatus { name: bound.limit, state, by: None, bound: bound.text })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a Deployment of so many pods, `updated` of them as they should be, is complete at this size.
    fn complete(exist: i32, updated: i32, size: (u32, u32), (seen, was_ready): (bool, bool)) -> bool {
        let mut deployment = Deployment::default();
        deployment.metadata.generation = Some(2);
        let status = DeploymentStatus {
            observed_generation: Some(if seen { 2 } else { 1 }),
            replicas: Some(exist),
            updated_replicas: Some(updated),
            ready_replicas: Some(exist),
            available_replicas: Some(exist),
            ..DeploymentStatus::default()
        };
        is_complete(&deployment, &status, size, was_ready)
    }

    #[test]
    fn a_pool_that_only_gets_smaller_is_ready_all_the_time() {
        assert!(complete(1, 1, (0, 0), (false, true)), "its controller has not looked yet");
        assert!(complete(1, 1, (0, 0), (true, true)), "its pod has not been deleted yet");
        assert!(complete(0, 0, (0, 0), (true, true)));
        assert!(
            !complete(3, 3, (1, 1), (false, false)),
            "it may be for more than its size that it was written"
        );
    }

    #[test]
    fn a_pool_with_pods_of_an_older_kind_or_too_few_is_not_complete() {
        assert!(!complete(3, 1, (2, 2), (true, true)));
        assert!(!complete(1, 1, (2, 2), (true, true)));
        assert!(!complete(2, 2, (2, 2), (false, true)), "nothing is known of what was written");
        assert!(complete(2, 2, (2, 2), (true, false)));
    }
}
