//! What is said of a policy: per pool, and the worst of it at the top. Pure.

use corral_crds::RateLimitPolicy;
use corral_crds::bounds::MAX_TARGETS;
use corral_crds::condition::{ConditionType, NewCondition, Reason, set_condition, worst_of};
use corral_crds::merge::{Fate, LimitOutcome, PolicyOutcome};
use corral_crds::status::{
    AncestorRef, LimitState, LimitStatus, PolicyAncestorStatus, RateLimitPolicyStatus,
};
use corral_crds::valid::{Problem, check_policy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::record::{Record, Share};
use crate::exchange::Standing;
use crate::exchange::programmed::Programmed;
use crate::names::MANAGER;
use crate::pool::status::limits;

/// The bound of a limit that is not in force.
const NOT_IN_FORCE: &str = "not in force";
/// The most bytes of a limit's bound in a status.
const MAX_TEXT: usize = 1024;

/// What is known of one pool that a policy names.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub pool: String,
    /// Whether it exists.
    pub exists: bool,
    /// What its plan came from.
    pub record: Option<std::sync::Arc<Record>>,
    /// How its pods and activators stand to the plan.
    pub standing: Option<Standing>,
}

/// The status of a policy.
pub fn status(policy: &RateLimitPolicy, targets: &[Target], now: &Time) -> RateLimitPolicyStatus {
    let generation = policy.metadata.generation.unwrap_or(0);
    let old = ordered(policy.status.clone().unwrap_or_default());
    let mut ancestors = Vec::with_capacity(targets.len());
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
    let mut conditions = old.conditions.clone();
    conditions.retain(|condition| condition.type_ != ConditionType::AncestorsTruncated.as_str());
    if targets.is_empty() {
        for condition in judge_untargeted(policy) {
            set_condition(&mut conditions, condition, generation, now);
        }
    } else {
        conditions = since(&old.conditions, worst(&ancestors));
    }
    if ancestors.len() > MAX_TARGETS {
        let before = old.conditions.iter().filter(|c| c.type_ == ConditionType::AncestorsTruncated.as_str());
        conditions.extend(before.cloned());
        set_condition(&mut conditions, truncated(&ancestors), generation, now);
        ancestors.truncate(MAX_TARGETS);
    }
    RateLimitPolicyStatus {
        observed_generation: policy.metadata.generation,
        targets: Some(policy.spec.targets_in_short()),
        priorities: own_priorities(policy, targets),
        limit_count: i32::try_from(policy.spec.limits.len()).unwrap_or(i32::MAX),
        conditions,
        limits: own_limits(policy, targets),
        ancestors,
    }
}

/// What is at the top flips when it flips there: the pool that it is about may be another, or one that is not listed.
fn since(before: &[Condition], now: Vec<Condition>) -> Vec<Condition> {
    let same = |new: &Condition| before.iter().find(|old| old.type_ == new.type_ && old.status == new.status);
    let kept = |new: Condition| match same(&new) {
        Some(old) => Condition { last_transition_time: old.last_transition_time.clone(), ..new },
        None => new,
    };
    now.into_iter().map(kept).collect()
}

/// Of a policy that selects no pool.
fn judge_untargeted(policy: &RateLimitPolicy) -> Vec<NewCondition> {
    let nowhere =
        format!("targetSelector selects no OllamaPool of its namespace: {}", policy.spec.targets_in_short());
    let of = |kind| NewCondition::new(kind, false, Reason::TargetNotFound, nowhere.clone());
    vec![untried(policy), of(ConditionType::Programmed), of(ConditionType::ResolvedRefs)]
}

/// Where no pool tries it, it is taken if it breaks no rule.
fn untried(policy: &RateLimitPolicy) -> NewCondition {
    let problems = check_policy(&policy.spec);
    let reason = if problems.is_empty() { Reason::Accepted } else { Reason::Invalid };
    NewCondition::new(ConditionType::Accepted, problems.is_empty(), reason, words(&problems))
}

fn truncated(ancestors: &[PolicyAncestorStatus]) -> NewCondition {
    let more = ancestors.iter().skip(MAX_TARGETS);
    let names: Vec<&str> = more.map(|ancestor| ancestor.ancestor_ref.name.as_str()).collect();
    let message = format!(
        "it has {} pools, and room for {MAX_TARGETS} of them here; not listed: {}",
        ancestors.len(),
        names.join(", ")
    );
    NewCondition::new(ConditionType::AncestorsTruncated, true, Reason::TooManyAncestors, message)
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
        return Some(untried(policy));
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
    let lost = share.outcome.lost_in_words();
    if share.outcome.is_overridden() {
        return of(false, Reason::Overridden, lost);
    }
    let and_lost = if lost.is_empty() { lost } else { format!("; {lost}") };
    let standing = target.standing.as_ref().filter(|standing| standing.plan == record.state);
    let Some(standing) = standing else {
        return of(false, Reason::Reconciling, "the pods have not been told yet".to_owned());
    };
    match &standing.programmed {
        Programmed::NoPods(extent) => of(true, Reason::NoPods, format!("{extent}{and_lost}")),
        Programmed::All(extent) => of(true, Reason::Programmed, format!("{extent}{and_lost}")),
        Programmed::Reconciling(extent) => of(false, Reason::Reconciling, format!("{extent}{and_lost}")),
        Programmed::Partial { extent, too_old, refused, causes } => {
            let reason = match (too_old, refused) {
                (true, _) => Reason::SidecarTooOld,
                (_, true) => Reason::PlanRefused,
                _ => Reason::PartiallyProgrammed,
            };
            of(false, reason, format!("{extent}: {causes}{and_lost}"))
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
        let own = all.filter(|(of, _)| of == name).map(|(_, limit)| limit);
        let lost = record
            .policies
            .get(name)
            .into_iter()
            .flat_map(|share| share.outcome.limits.iter().filter_map(lost));
        found.extend(own.chain(lost).map(|limit| (limit, target.pool.clone())));
    }
    let mut names: Vec<String> = found.iter().map(|(limit, _)| limit.name.clone()).collect();
    names.sort();
    names.dedup();
    names.truncate(corral_crds::bounds::MAX_LIMITS);
    names.iter().filter_map(|name| one_limit(name, &found)).collect()
}

/// The priorities that it gives. Where pools differ, each says its own, or the first that has some, where that would be too long.
fn own_priorities(policy: &RateLimitPolicy, targets: &[Target]) -> Option<String> {
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    let there = targets.iter().filter(|target| target.exists);
    let told = there.filter_map(|target| {
        let share = target.record.as_ref()?.policies.get(name)?;
        Some((target.pool.as_str(), share.priorities.as_deref()))
    });
    let told: Vec<(&str, Option<&str>)> = told.collect();
    let (_, first) = *told.first()?;
    if told.iter().all(|(_, priorities)| *priorities == first) {
        return first.map(str::to_owned);
    }
    let some = told.iter().filter_map(|(pool, priorities)| Some(format!("{pool}: {}", (*priorities)?)));
    let some: Vec<String> = some.collect();
    let all = some.join("; ");
    if all.len() <= MAX_TEXT { Some(all) } else { some.into_iter().next() }
}

/// A limit that is not in force, and which policy's is.
fn lost(limit: &LimitOutcome) -> Option<LimitStatus> {
    let state = match &limit.fate {
        Fate::Enforced | Fate::Shadow => return None,
        Fate::Replaced { .. } => LimitState::Replaced,
        Fate::Overridden { .. } => LimitState::Overridden,
    };
    let by = limit.fate.by().map(|by| by.split_once('/').map_or(by, |(_, name)| name).to_owned());
    Some(LimitStatus { name: limit.name.clone(), state, by, bound: NOT_IN_FORCE.to_owned() })
}

fn one_limit(name: &str, found: &[(LimitStatus, String)]) -> Option<LimitStatus> {
    let alike: Vec<&(LimitStatus, String)> = found.iter().filter(|(limit, _)| limit.name == name).collect();
    // Where pools differ, what it is where it counts most.
    let (most, pool) = alike.iter().min_by_key(|(limit, _)| limit.state)?;
    let by = by_pool(&alike, |limit| limit.by.as_deref());
    let bound = by_pool(&alike, |limit| Some(&limit.bound));
    let shortened = format!("by pool; {pool}: {}", most.bound);
    let bound = bound.filter(|bound| bound.len() <= MAX_TEXT).unwrap_or(shortened);
    Some(LimitStatus { bound, by: by.filter(|by| by.len() <= MAX_TEXT), ..most.clone() })
}

/// What all pools have in common, or what each has.
fn by_pool(alike: &[&(LimitStatus, String)], what: impl Fn(&LimitStatus) -> Option<&str>) -> Option<String> {
    let first = what(&alike.first()?.0);
    if alike.iter().all(|(limit, _)| what(limit) == first) {
        return first.map(str::to_owned);
    }
    let each = alike.iter().filter_map(|(limit, pool)| Some(format!("{pool}: {}", what(limit)?)));
    Some(each.collect::<Vec<_>>().join("; "))
}
