//! From the policies of a pool to its next plan. Pure.
//!
//! The sequence rises only with the content, or above what a pod was found to hold. What is wrong with one policy keeps
//! that policy's last accepted limits and changes nothing else; what is wrong with the whole keeps the last plan.

use corral_crds::merge::{Merged, PolicyInput, PolicyOutcome, PoolInputs, merge};
use corral_crds::policy::RateLimitPolicySpec;
use corral_crds::valid::Problem;
use corral_limiter::{Plan, compile};
use corral_wire::PlanDoc;

use crate::pool::build::secrets::MAX_PLAN_BYTES;
use crate::pool::validate::ValidPool;

/// A policy of the pool's namespace, as far as it can be read.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
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
    /// What is wrong with the whole.
    pub problems: Vec<Problem>,
    /// It would not fit its Secret: the last one stays.
    pub too_large: bool,
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

/// Works the next plan out. `last` is the plan in the Secret, `outrun_by` a sequence that a pod holds of another plan.
pub fn next(
    pool: &ValidPool,
    candidates: &[Candidate<'_>],
    last: Option<&PlanDoc>,
    outrun_by: Option<u64>,
) -> Result<Next, NoPlan> {
    let mut merged = merged(pool, candidates, last);
    let mut problems = std::mem::take(&mut merged.problems);
    let mut too_large = false;
    let mut doc = if merged.plan.is_some() { Some(merged.doc) } else { None };
    if let Some(found) = &doc
        && serde_json::to_vec(found)?.len() > MAX_PLAN_BYTES
    {
        too_large = true;
        doc = None;
    }
    let Some(mut doc) = doc.or_else(|| last.cloned()) else {
        return Err(NoPlan::Never(words(&problems, too_large)));
    };
    doc.sequence = sequence(&doc, last, outrun_by);
    let plan = match compile(&doc) {
        Ok(plan) => plan,
        Err(errors) => {
            problems.push(Problem { path: "plan".to_owned(), message: errors.to_string() });
            return Err(NoPlan::Never(words(&problems, too_large)));
        }
    };
    Ok(Next { text: serde_json::to_vec(&doc)?, doc, plan, outcomes: merged.policies, problems, too_large })
}

fn merged(pool: &ValidPool, candidates: &[Candidate<'_>], last: Option<&PlanDoc>) -> Merged {
    let namespace = pool.namespace.as_str();
    let inputs = PoolInputs {
        namespace,
        name: &pool.name,
        identity: &pool.spec.identity,
        capacity: &pool.spec.capacity,
    };
    let readable = candidates.iter().filter_map(|candidate| {
        let spec = candidate.spec.ok().filter(|spec| targets(spec, &pool.name))?;
        Some(PolicyInput { namespace, name: candidate.name, spec })
    });
    let readable: Vec<PolicyInput<'_>> = readable.collect();
    let mut merged = merge(&inputs, &readable, 1);
    if let Some(last) = last {
        let broken = candidates.iter().filter_map(|candidate| broken(namespace, candidate, last));
        merged.policies.extend(broken);
        merged.keep_last(last);
    }
    merged
}

/// Whether a policy names the pool.
pub fn targets(spec: &RateLimitPolicySpec, pool: &str) -> bool {
    spec.target_refs.iter().any(|target| target.name == pool)
}

/// A policy that cannot be read says no longer what it targets: where it had limits, they stay.
fn broken(namespace: &str, candidate: &Candidate<'_>, last: &PlanDoc) -> Option<PolicyOutcome> {
    let error = candidate.spec.err()?;
    let policy = format!("{namespace}/{}", candidate.name);
    let had = last.limits.iter().any(|limit| limit.policy == policy);
    let problem = Problem { path: String::new(), message: error.to_owned() };
    had.then(|| PolicyOutcome { policy, problems: vec![problem], kept: 0 })
}

fn sequence(doc: &PlanDoc, last: Option<&PlanDoc>, outrun_by: Option<u64>) -> u64 {
    let held = last.map_or(0, |last| last.sequence);
    let same = last.is_some_and(|last| last.digest() == doc.digest());
    match outrun_by.filter(|ahead| *ahead >= held) {
        None if same => held,
        ahead => held.max(ahead.unwrap_or(0)).saturating_add(1),
    }
}

fn words(problems: &[Problem], too_large: bool) -> Vec<String> {
    let mut words: Vec<String> =
        problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
    if too_large {
        words.push(format!("it is larger than {MAX_PLAN_BYTES} bytes"));
    }
    words
}
