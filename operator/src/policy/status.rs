//! What is said of a policy: per pool, and the worst of it at the top. Pure.

use corral_crds::RateLimitPolicy;
use corral_crds::condition::{ConditionType, NewCondition, Reason, set_condition, worst_of};
use corral_crds::merge::PolicyOutcome;
use corral_crds::status::{AncestorRef, LimitStatus, PolicyAncestorStatus, RateLimitPolicyStatus};
use corral_crds::valid::{Problem, check_policy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::record::{Record, Share};
use crate::exchange::Standing;
use crate::exchange::programmed::Programmed;
use crate::names::MANAGER;
use crate::pool::status::limits;

/// What is known of one pool that a policy names.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub pool: String,
    /// Whether it exists.
    pub exists: bool,
    /// What its plan came from.
    pub record: Option<std::sync::Arc<Record>>,
    /// How its pods stand to the plan.
    pub standing: Option<Standing>,
}

/// The status of a policy.
pub fn status(policy: &RateLimitPolicy, targets: &[Target], now: &Time) -> RateLimitPolicyStatus {
    let generation = policy.metadata.generation.unwrap_or(0);
    let old = ordered(policy.status.clone().unwrap_or_default());
    let mut ancestors = Vec::new();
    for target in targets {
        let reference = AncestorRef::pool(&target.pool);
        let before = old.ancestors.iter().find(|ancestor| ancestor.ancestor_ref == reference);
        let mut conditions = before.map(|ancestor| ancestor.conditions.clone()).unwrap_or_default();
        for condition in judge(policy, generation, target).into_iter().flatten() {
            set_condition(&mut conditions, condition, generation, now);
        }
        let controller_name = MANAGER.to_owned();
        ancestors.push(PolicyAncestorStatus { ancestor_ref: reference, controller_name, conditions });
    }
    RateLimitPolicyStatus {
        observed_generation: policy.metadata.generation,
        targets: Some(policy.spec.targets_in_short()),
        limit_count: i32::try_from(policy.spec.limits.len()).unwrap_or(i32::MAX),
        conditions: worst(&ancestors),
        limits: own_limits(policy, targets),
        ancestors,
    }
}

/// A status in our order: a server that merges lists by key may keep them in another.
pub fn ordered(mut status: RateLimitPolicyStatus) -> RateLimitPolicyStatus {
    let by_type = |list: &mut Vec<Condition>| list.sort_by(|a, b| a.type_.cmp(&b.type_));
    by_type(&mut status.conditions);
    status.ancestors.iter_mut().for_each(|ancestor| by_type(&mut ancestor.conditions));
    status.limits.sort_by(|a, b| a.name.cmp(&b.name));
    status
}

/// The worst of each condition; the ancestors say which pool it is about.
fn worst(ancestors: &[PolicyAncestorStatus]) -> Vec<Condition> {
    let kinds = [ConditionType::Accepted, ConditionType::Programmed, ConditionType::ResolvedRefs];
    let lists = || ancestors.iter().map(|ancestor| ancestor.conditions.as_slice());
    kinds.iter().filter_map(|kind| worst_of(*kind, lists())).cloned().collect()
}

/// The conditions that can be told now. Whether the newest generation is accepted is not known before the pool's plan
/// was made from it; until then the old word stands, with the generation that it was about.
fn judge(policy: &RateLimitPolicy, generation: i64, target: &Target) -> [Option<NewCondition>; 3] {
    let share = target.record.as_ref().and_then(|record| {
        let name = policy.metadata.name.as_deref()?;
        let is_this = |share: &&Share| share.generation == generation && share.uid == policy.metadata.uid;
        record.policies.get(name).filter(is_this)
    });
    [accepted(policy, target, share), Some(resolved(target)), Some(programmed(target, share))]
}

fn accepted(policy: &RateLimitPolicy, target: &Target, share: Option<&Share>) -> Option<NewCondition> {
    let of = |is: bool, reason, message: String| {
        Some(NewCondition::new(ConditionType::Accepted, is, reason, message))
    };
    if !target.exists {
        let problems = check_policy(&policy.spec);
        let reason = if problems.is_empty() { Reason::Accepted } else { Reason::Invalid };
        return of(problems.is_empty(), reason, words(&problems));
    }
    let outcome = &share?.outcome;
    if outcome.is_taken() {
        return of(true, Reason::Accepted, String::new());
    }
    let kept = match outcome.kept {
        0 => String::new(),
        kept => format!("; {kept} limits of its last accepted form stay in force"),
    };
    let why = outcome.left_out.clone().unwrap_or_else(|| words(&outcome.problems));
    of(false, why_not(outcome), format!("{why}{kept}"))
}

fn why_not(outcome: &PolicyOutcome) -> Reason {
    if outcome.problems.is_empty() { Reason::PlanTooLarge } else { Reason::Invalid }
}

fn words(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{}: {}", problem.path, problem.message))
        .collect::<Vec<_>>()
        .join("; ")
}

fn resolved(target: &Target) -> NewCondition {
    let kind = ConditionType::ResolvedRefs;
    if target.exists {
        return NewCondition::new(kind, true, Reason::ResolvedRefs, "");
    }
    let message = format!("there is no OllamaPool {}", target.pool);
    NewCondition::new(kind, false, Reason::TargetNotFound, message)
}

fn programmed(target: &Target, share: Option<&Share>) -> NewCondition {
    let of =
        |is: bool, reason, message: String| NewCondition::new(ConditionType::Programmed, is, reason, message);
    if !target.exists {
        return of(false, Reason::TargetNotFound, format!("there is no OllamaPool {}", target.pool));
    }
    let (Some(share), Some(record)) = (share, &target.record) else {
        return of(false, Reason::Reconciling, "the plan of the pool is not made yet".to_owned());
    };
    if !share.outcome.is_taken() {
        let message = "it is not accepted as it is written now".to_owned();
        return of(false, why_not(&share.outcome), message);
    }
    let standing = target.standing.as_ref().filter(|standing| standing.plan == record.state);
    let Some(standing) = standing else {
        return of(false, Reason::Reconciling, "the pods have not been told yet".to_owned());
    };
    match &standing.programmed {
        Programmed::NoPods => {
            of(true, Reason::NoPods, "no pod runs; the first will start with it".to_owned())
        }
        Programmed::All { pods } => of(true, Reason::Programmed, format!("{pods}/{pods} pods enforce it")),
        Programmed::Reconciling { done, pods } => {
            of(false, Reason::Reconciling, format!("{done}/{pods} pods enforce it"))
        }
        Programmed::Partial { done, pods, too_old, refused, causes, .. } => {
            let reason = match (too_old, refused) {
                (true, _) => Reason::SidecarTooOld,
                (_, true) => Reason::PlanRefused,
                _ => Reason::PartiallyProgrammed,
            };
            of(false, reason, format!("{done}/{pods} pods enforce it: {causes}"))
        }
    }
}

/// The policy's own limits. Where pools bound them differently, each says for which.
fn own_limits(policy: &RateLimitPolicy, targets: &[Target]) -> Vec<LimitStatus> {
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    let mut found: Vec<(LimitStatus, String)> = Vec::new();
    for target in targets {
        // A pool that is gone enforces nothing, whatever is still known of it.
        let Some(record) = target.record.as_ref().filter(|_| target.exists) else { continue };
        let all = limits(record, target.standing.as_ref()).into_iter();
        found.extend(all.filter(|(of, _)| of == name).map(|(_, limit)| (limit, target.pool.clone())));
    }
    let mut names: Vec<String> = found.iter().map(|(limit, _)| limit.name.clone()).collect();
    names.sort();
    names.dedup();
    names.truncate(corral_crds::bounds::MAX_LIMITS);
    names.iter().filter_map(|name| one_limit(name, &found)).collect()
}

fn one_limit(name: &str, found: &[(LimitStatus, String)]) -> Option<LimitStatus> {
    let alike: Vec<&(LimitStatus, String)> = found.iter().filter(|(limit, _)| limit.name == name).collect();
    let (first, _) = alike.first()?;
    let same = alike.iter().all(|(limit, _)| limit.bound == first.bound);
    if same {
        return Some(first.clone());
    }
    let all: Vec<String> = alike.iter().map(|(limit, pool)| format!("{pool}: {}", limit.bound)).collect();
    let mut bound = all.join("; ");
    if bound.len() > 1024 {
        bound = format!("by pool; {}: {}", alike.first()?.1, first.bound);
    }
    Some(LimitStatus { bound, ..first.clone() })
}
