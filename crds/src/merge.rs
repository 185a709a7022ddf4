//! From policies as people write them to the plan that pods enforce.
//!
//! Pure and deterministic: the same policies give the same plan in whatever order they come. The operator merges every
//! policy that targets a pool; a standalone sidecar merges its file. Both then run the limiter's `compile`, here, so that
//! what is accepted is what will be enforced.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use corral_limiter::{BUILT_IN_POLICY, ModelName, Plan, compile};
use corral_wire::{
    EndpointClass, IdentityDoc, KeyPart as KeyDoc, LimitDoc, Mode as ModeDoc, PLAN_VERSION, PlanDoc, PoolRef,
    QueueDoc, Scope as ScopeDoc,
};

use crate::{
    blame::{Culprit, culprit},
    policy::{Endpoint, KeyPart, Limit, Mode, RateLimitPolicySpec, Scope},
    pool::{Capacity, Identity},
    units::Rate,
    valid::{Problem, check_policy},
};

/// What of a pool stands in its plan.
#[derive(Debug, Clone, Copy)]
pub struct PoolInputs<'a> {
    /// The pool's namespace.
    pub namespace: &'a str,
    /// The pool's name.
    pub name: &'a str,
    /// How its clients are known.
    pub identity: &'a Identity,
    /// How much work its pods take on.
    pub capacity: &'a Capacity,
}

/// One policy that targets the pool.
#[derive(Debug, Clone, Copy)]
pub struct PolicyInput<'a> {
    /// The policy's namespace.
    pub namespace: &'a str,
    /// The policy's name.
    pub name: &'a str,
    /// What it asks for.
    pub spec: &'a RateLimitPolicySpec,
}

impl PolicyInput<'_> {
    /// `namespace/name`, by which the plan knows it.
    pub fn identity(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What came of merging.
#[derive(Debug)]
pub struct Merged {
    /// The plan document. Send it only if [`Self::plan`] is there.
    pub doc: PlanDoc,
    /// The same, compiled; none when the pool itself is at fault, as [`Self::problems`] says.
    pub plan: Option<Plan>,
    /// What is wrong with the pool, by its own fields, or with the plan as a whole.
    pub problems: Vec<Problem>,
    /// What came of each policy, in the order they were handed in.
    pub policies: Vec<PolicyOutcome>,
}

/// What came of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyOutcome {
    /// `namespace/name` of the policy.
    pub policy: String,
    /// What is wrong with it, by its own fields, as in `spec.limits[0].requests`.
    pub problems: Vec<Problem>,
    /// Why it was left out though nothing is wrong with it: what [`Merged::leave_out`] was told.
    pub left_out: Option<String>,
    /// How many limits of its last accepted form were kept by [`Merged::keep_last`].
    pub kept: usize,
}

impl PolicyOutcome {
    /// Nothing is known yet of this policy, `namespace/name`, but what is wrong with it.
    pub fn of(policy: String, problems: Vec<Problem>) -> Self {
        Self { policy, problems, left_out: None, kept: 0 }
    }

    /// Whether all its limits are in the plan as they are written now. If not, none is, but for what was kept.
    pub fn is_taken(&self) -> bool {
        self.problems.is_empty() && self.left_out.is_none()
    }
}

/// One limit of a plan and the most that it lets through, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitBound {
    /// `namespace/name` of its policy.
    pub policy: String,
    /// Its name.
    pub limit: String,
    /// Whether it refuses.
    pub mode: ModeDoc,
    /// Its bound, such as `≤ 70/min pool-wide (2 pods × 30/min, burst 5)`.
    pub text: String,
}

/// Merges policies into the plan of a pool. A policy that has anything wrong with it contributes nothing.
pub fn merge(pool: &PoolInputs<'_>, policies: &[PolicyInput<'_>], sequence: u64) -> Merged {
    let outcome = |policy: &PolicyInput<'_>| PolicyOutcome::of(policy.identity(), check_policy(policy.spec));
    let mut merged = Merged {
        doc: empty_plan(pool, sequence),
        plan: None,
        problems: Vec::new(),
        policies: policies.iter().map(outcome).collect(),
    };
    for (policy, outcome) in policies.iter().zip(&mut merged.policies) {
        merged.doc.limits.extend(limits_of(policy, outcome));
    }
    merged.settle(policies);
    merged
}

/// What each limit of a plan bounds while `pods` pods serve, in order of policy and name; without the built-in ones.
pub fn bounds(plan: &Plan, pods: NonZeroU32) -> Vec<LimitBound> {
    let own = plan.limits().iter().filter(|limit| limit.info().policy != BUILT_IN_POLICY);
    own.map(|limit| LimitBound {
        policy: limit.info().policy.clone(),
        limit: limit.info().name.clone(),
        mode: limit.mode(),
        text: plan.bound(limit, pods).to_string(),
    })
    .collect()
}

impl Merged {
    /// Whether the pool is without fault and every policy was taken.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.policies.iter().all(PolicyOutcome::is_taken)
    }

    /// Takes some of the merged `policies` out again, by `namespace/name`, for a reason that lies in none of them, such as
    /// want of room.
    pub fn leave_out(&mut self, which: &BTreeMap<String, String>, policies: &[PolicyInput<'_>]) {
        self.doc.limits.retain(|limit| !which.contains_key(&limit.policy));
        for outcome in &mut self.policies {
            outcome.left_out = which.get(&outcome.policy).cloned();
        }
        self.settle(policies);
    }

    /// Takes what `last`, the plan in force, has of each policy that was not taken: a mistake in a policy must not lift
    /// its limits. Nothing changes where every policy was.
    pub fn keep_last(&mut self, last: &PlanDoc) {
        for outcome in self.policies.iter_mut().filter(|outcome| !outcome.is_taken()) {
            let kept = last.limits.iter().filter(|limit| limit.policy == outcome.policy);
            let before = self.doc.limits.len();
            self.doc.limits.extend(kept.cloned());
            outcome.kept = self.doc.limits.len().saturating_sub(before);
        }
        self.settle(&[]);
    }

    /// Compiles, and drops policies that do not compile until the rest does.
    fn settle(&mut self, policies: &[PolicyInput<'_>]) {
        self.doc.limits.sort_by(|a, b| (&a.policy, &a.name).cmp(&(&b.policy, &b.name)));
        loop {
            let errors = match compile(&self.doc) {
                Ok(plan) => {
                    self.problems.clear();
                    self.plan = Some(plan);
                    return;
                }
                Err(errors) => errors.0,
            };
            self.plan = None;
            let blamed = errors.into_iter().map(|error| culprit(&self.doc, policies, error)).collect();
            if !self.blame(blamed) {
                return;
            }
        }
    }

    /// Writes faults down where they belong. Returns whether limits were dropped, so that the rest may compile now.
    fn blame(&mut self, culprits: Vec<Culprit>) -> bool {
        let mut dropped = false;
        self.problems.clear();
        for culprit in culprits {
            let found =
                self.policies.iter_mut().find(|outcome| Some(&outcome.policy) == culprit.policy.as_ref());
            match found {
                Some(outcome) => {
                    let before = self.doc.limits.len();
                    self.doc.limits.retain(|limit| limit.policy != outcome.policy);
                    dropped |= self.doc.limits.len() < before;
                    outcome.kept = 0;
                    outcome.problems.push(culprit.problem);
                }
                None => self.problems.push(culprit.problem),
            }
        }
        dropped
    }
}

fn empty_plan(pool: &PoolInputs<'_>, sequence: u64) -> PlanDoc {
    PlanDoc {
        version: PLAN_VERSION,
        pool: PoolRef { namespace: pool.namespace.to_owned(), name: pool.name.to_owned() },
        sequence,
        identity: IdentityDoc {
            trusted_proxies: pool.identity.trusted_proxies.clone(),
            ..IdentityDoc::default()
        },
        queue: QueueDoc {
            max_depth: pool.capacity.queue.max_depth,
            max_wait_ms: u64::from(pool.capacity.queue.max_wait_seconds) * 1000,
        },
        limits: Vec::new(),
        ..PlanDoc::default()
    }
}

/// The limits of a policy, or none and what is wrong with it.
fn limits_of(policy: &PolicyInput<'_>, outcome: &mut PolicyOutcome) -> Vec<LimitDoc> {
    let mut limits = Vec::new();
    for (place, limit) in policy.spec.limits.iter().enumerate() {
        match models_of(limit, place) {
            Ok(models) => limits.push(limit_doc(policy, limit, models)),
            Err(problems) => outcome.problems.extend(problems),
        }
    }
    if outcome.problems.is_empty() { limits } else { Vec::new() }
}

/// The models in normal form, each once.
fn models_of(limit: &Limit, place: usize) -> Result<Vec<String>, Vec<Problem>> {
    let written = limit.matches.iter().flat_map(|matches| &matches.models).enumerate();
    let (mut models, mut problems) = (Vec::new(), Vec::new());
    for (model_place, model) in written {
        match ModelName::parse(model) {
            Ok(name) => models.push(name.to_string()),
            Err(bad) => problems.push(Problem {
                path: format!("spec.limits[{place}].match.models[{model_place}]"),
                message: bad.to_string(),
            }),
        }
    }
    models.sort();
    models.dedup();
    if problems.is_empty() { Ok(models) } else { Err(problems) }
}

fn limit_doc(policy: &PolicyInput<'_>, limit: &Limit, models: Vec<String>) -> LimitDoc {
    let burst = limit.burst.as_ref().and_then(|burst| burst.requests);
    let rate = limit.requests.as_ref().and_then(|rate| rate.parse::<Rate>().ok());
    let mut endpoints: Vec<_> =
        limit.matches.iter().flat_map(|matches| &matches.endpoints).map(|class| (*class).into()).collect();
    endpoints.sort_unstable();
    let mut per: Vec<_> = limit.per.iter().map(|part| (*part).into()).collect();
    per.sort_unstable();
    LimitDoc {
        policy: policy.identity(),
        name: limit.name.clone(),
        mode: policy.spec.mode.into(),
        endpoints,
        models,
        per,
        scope: limit.scope.into(),
        requests: rate.map(|rate| rate.with_burst(burst)),
        concurrency: limit.concurrency,
        ..LimitDoc::default()
    }
}

impl From<Mode> for ModeDoc {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Enforce => Self::Enforce,
            Mode::Shadow => Self::Shadow,
        }
    }
}

impl From<Scope> for ScopeDoc {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Pool => Self::Pool,
            Scope::Pod => Self::Pod,
        }
    }
}

impl From<Endpoint> for EndpointClass {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Chat => Self::Chat,
            Endpoint::Generate => Self::Generate,
            Endpoint::Embed => Self::Embed,
            Endpoint::Metadata => Self::Metadata,
        }
    }
}

impl From<KeyPart> for KeyDoc {
    fn from(part: KeyPart) -> Self {
        match part {
            KeyPart::Client => Self::Client,
            KeyPart::ClientIP => Self::ClientIP,
            KeyPart::Model => Self::Model,
            KeyPart::Endpoint => Self::Endpoint,
            KeyPart::Global => Self::Global,
        }
    }
}
