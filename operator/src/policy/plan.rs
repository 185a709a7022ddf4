//! From the policies of a pool to its next plan. Pure.
//!
//! The sequence rises only with the content, or above what a pod was found to hold. What is wrong with one policy, or
//! leaves no room for it, keeps that policy's last accepted limits and changes nothing else; what is wrong with the whole
//! keeps the last plan.

use std::collections::BTreeMap;

use corral_crds::api_keys::KeyRing;
use corral_crds::merge::{Merged, PolicyInput, PolicyOutcome, PoolInputs, merge};
use corral_crds::policy::RateLimitPolicySpec;
use corral_crds::valid::Problem;
use corral_limiter::{Plan, compile};
use corral_wire::{EndpointPriorityDoc, LimitDoc, PlanDoc, TierDoc};

use super::key_room::{keys_that_fit, with_keys};
use super::room::without_room;
use crate::pool::build::secrets::MAX_PLAN_BYTES;
use crate::pool::validate::ValidPool;

/// How often policies are left out, and it is looked at what came back for that.
const MOST_ROUNDS: usize = 8;

/// A policy of the pool's namespace, as far as it can be read.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// What it asks for, or why that cannot be read.
    pub spec: Result<&'a RateLimitPolicySpec, &'a str>,
}

/// The next plan of a pool.
#[derive(Debug)]
pub struct Next {
    /// The plan to write: the last one, where nothing changed.
    pub doc: PlanDoc,
    /// Its text.
    pub text: Vec<u8>,
    /// The same, compiled.
    pub plan: Plan,
    /// What came of each policy.
    pub outcomes: Vec<PolicyOutcome>,
    /// What is wrong with the whole: then the last one stays.
    pub problems: Vec<Problem>,
    /// What of the pool's API keys does not count, and why.
    pub unresolved: Vec<Problem>,
}

/// Why there is no plan at all.
#[derive(Debug, thiserror::Error)]
pub enum NoPlan {
    /// Nothing can be enforced, and nothing was before.
    #[error("there is no plan that can be enforced: {}", .0.join("; "))]
    Never(Vec<String>),
    /// It could not be written as JSON.
    #[error("the plan could not be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Works the next plan out. `keys` are the pool's API keys, `last` is the plan in the Secret, `outrun_by` a sequence that a pod
/// holds of another plan; where there is no room for all candidates, the first are taken.
pub fn next(
    pool: &ValidPool,
    keys: &KeyRing,
    candidates: &[Candidate<'_>],
    last: Option<&PlanDoc>,
    outrun_by: Option<u64>,
) -> Result<Next, NoPlan> {
    let mut merged = merged(pool, keys, candidates, last)?;
    let problems = whole(&mut merged)?;
    let mut doc =
        if problems.is_empty() { merged.doc.clone() } else { fall_back(&mut merged, last, &problems)? };
    doc.sequence = sequence(&doc, last, outrun_by);
    let plan = compile(&doc).map_err(|errors| NoPlan::Never(vec![errors.to_string()]))?;
    let text = serde_json::to_vec(&doc)?;
    Ok(Next { text, doc, plan, outcomes: merged.policies, problems, unresolved: merged.unresolved })
}

fn merged(
    pool: &ValidPool,
    keys: &KeyRing,
    candidates: &[Candidate<'_>],
    last: Option<&PlanDoc>,
) -> Result<Merged, serde_json::Error> {
    let namespace = pool.namespace.as_str();
    let inputs = PoolInputs { namespace, name: &pool.name, spec: &pool.spec, keys };
    let readable = candidates.iter().filter_map(|candidate| {
        let spec = candidate.spec.ok().filter(|spec| spec.targets(&pool.name, &pool.labels))?;
        Some(PolicyInput { namespace, name: candidate.name, created: candidate.created, spec })
    });
    let readable: Vec<PolicyInput<'_>> = readable.collect();
    let mut merged = merge(&inputs, &readable, 1);
    if let Some(last) = last {
        merged.policies.extend(candidates.iter().filter_map(|candidate| broken(namespace, candidate, last)));
        if let Some(fitting) = keys_that_fit(&merged, last)? {
            merged.with_keys(fitting, &readable);
        }
    }
    leave_room(&mut merged, last, &readable)?;
    if let Some(last) = last {
        merged.keep_last(last);
    }
    Ok(merged)
}

/// Leaves policies out until the rest has room. One that is left out replaces nothing any more, so what it replaced comes
/// back and may need room itself.
fn leave_room(
    merged: &mut Merged,
    last: Option<&PlanDoc>,
    readable: &[PolicyInput<'_>],
) -> Result<(), serde_json::Error> {
    let mut left_out = BTreeMap::new();
    for _ in 0..MOST_ROUNDS {
        let policies: Vec<(&str, bool)> =
            merged.policies.iter().map(|outcome| (outcome.policy.as_str(), outcome.is_taken())).collect();
        let more = without_room(&merged.doc, last, &policies)?;
        if more.is_empty() {
            return Ok(());
        }
        left_out.extend(more);
        merged.leave_out(&left_out, readable);
    }
    Ok(())
}

/// What is wrong with the whole, so that it cannot be the next plan.
fn whole(merged: &mut Merged) -> Result<Vec<Problem>, serde_json::Error> {
    let mut problems = std::mem::take(&mut merged.problems);
    if problems.is_empty() && serde_json::to_vec(&merged.doc)?.len() > MAX_PLAN_BYTES {
        let message = format!("it is larger than {MAX_PLAN_BYTES} bytes");
        problems.push(Problem { path: "plan".to_owned(), message });
    }
    Ok(problems)
}

/// The last plan, where there is no next one: a policy that is not in it as it is written now must not seem to be. API keys are
/// those of now, for one that is revoked must not live on.
fn fall_back(merged: &mut Merged, last: Option<&PlanDoc>, problems: &[Problem]) -> Result<PlanDoc, NoPlan> {
    let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let last = last.ok_or_else(|| NoPlan::Never(words.clone()))?;
    for outcome in merged.policies.iter_mut().filter(|outcome| outcome.is_taken()) {
        let held = of_policy(last, &outcome.policy);
        if held != of_policy(&merged.doc, &outcome.policy) {
            outcome.kept = held.0.len();
            outcome.left_out = Some(format!("the pool keeps its last plan: {}", words.join("; ")));
        }
    }
    Ok(with_keys(last, merged.keys()))
}

/// The limits that a plan has of a policy, and the priorities.
fn of_policy<'a>(
    plan: &'a PlanDoc,
    policy: &str,
) -> (Vec<&'a LimitDoc>, Vec<&'a TierDoc>, Vec<&'a EndpointPriorityDoc>) {
    let limits = plan.limits.iter().filter(|limit| limit.policy == policy);
    let tiers = plan.tiers.iter().filter(|tier| tier.policy.as_deref() == Some(policy));
    let endpoints = plan.endpoint_priorities.iter().filter(|priority| priority.policy == policy);
    (limits.collect(), tiers.collect(), endpoints.collect())
}

/// A policy that cannot be read says no longer what it targets: where it had limits, they stay.
fn broken(namespace: &str, candidate: &Candidate<'_>, last: &PlanDoc) -> Option<PolicyOutcome> {
    let error = candidate.spec.err()?;
    let policy = format!("{namespace}/{}", candidate.name);
    let had = last.limits.iter().any(|limit| limit.policy == policy);
    let problem = Problem { path: String::new(), message: error.to_owned() };
    had.then(|| PolicyOutcome::of(policy, vec![problem]))
}

fn sequence(doc: &PlanDoc, last: Option<&PlanDoc>, outrun_by: Option<u64>) -> u64 {
    let held = last.map_or(0, |last| last.sequence);
    let same = last.is_some_and(|last| last.digest() == doc.digest());
    match outrun_by.filter(|ahead| *ahead >= held) {
        None if same => held,
        ahead => held.max(ahead.unwrap_or(0)).saturating_add(1),
    }
}
