//! From policies as people write them to the plan that pods enforce.
//!
//! Pure and deterministic: the same policies give the same plan in whatever order they come. The operator merges every
//! policy that targets a pool; a standalone sidecar merges its file. Both then run the limiter's `compile`, here, so that
//! what is accepted is what will be enforced.

mod form;
mod priorities;
mod resolve;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use corral_limiter::{BUILT_IN_POLICY, Plan, compile};
use corral_wire::{
    ExemptDoc, IdentityDoc, LimitDoc, Mode as ModeDoc, PLAN_VERSION, PlanDoc, PoolRef, QueueDoc, TokensDoc,
    Unauthenticated as UnauthenticatedDoc,
};

use crate::{
    api_keys::KeyRing,
    blame::{Culprit, culprit},
    policy::{Precedence, RateLimitPolicySpec},
    pool::{ApiKeySecret, OllamaPoolSpec, Unauthenticated},
    valid::{Problem, check_policy},
};
use form::Form;
pub use priorities::{LostPriority, priorities_in_short};

/// What of a pool stands in its plan.
#[derive(Debug, Clone, Copy)]
pub struct PoolInputs<'a> {
    /// The pool's namespace.
    pub namespace: &'a str,
    /// The pool's name.
    pub name: &'a str,
    /// What it asks for.
    pub spec: &'a OllamaPoolSpec,
    /// Its API keys.
    pub keys: &'a KeyRing,
}

/// One policy that targets the pool.
#[derive(Debug, Clone, Copy)]
pub struct PolicyInput<'a> {
    /// The policy's namespace.
    pub namespace: &'a str,
    /// The policy's name.
    pub name: &'a str,
    /// When it was made, in seconds since any fixed time: of two that are equal else, the older goes before.
    pub created: i64,
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
    /// What of the pool does not count, by its own fields, though the plan is good without it: API keys, tiers of them.
    pub unresolved: Vec<Problem>,
    /// What came of each policy, in the order they were handed in.
    pub policies: Vec<PolicyOutcome>,
    /// What each policy brings.
    forms: Vec<Form>,
    /// The API keys as they were read, with the tiers that they were given.
    keys: KeyRing,
    /// Where the pool says that they stand.
    secrets: Vec<ApiKeySecret>,
}

/// What became of one limit of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitOutcome {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub fate: Fate,
}

/// What becomes of a limit among those of other policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is in the plan and refuses.
    Enforced,
    /// It is in the plan and only counts.
    Shadow,
    /// It is of a `Default` policy, and another has a limit of the name.
    Replaced {
        /// `namespace/name` of the policy whose limit is in force instead.
        by: String,
    },
    /// An `Override` policy has a limit of the name.
    Overridden {
        /// `namespace/name` of that policy.
        by: String,
    },
}

impl Fate {
    /// The policy whose limit is in force instead, if another is.
    pub fn by(&self) -> Option<&str> {
        match self {
            Self::Enforced | Self::Shadow => None,
            Self::Replaced { by } | Self::Overridden { by } => Some(by),
        }
    }
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
    /// What became of each of its limits.
    pub limits: Vec<LimitOutcome>,
    /// What it says in vain of tiers and endpoints.
    pub lost_priorities: Vec<LostPriority>,
}

impl PolicyOutcome {
    /// Nothing is known yet of this policy, `namespace/name`, but what is wrong with it.
    pub fn of(policy: String, problems: Vec<Problem>) -> Self {
        Self { policy, problems, left_out: None, kept: 0, limits: Vec::new(), lost_priorities: Vec::new() }
    }

    /// Whether limits of other policies are in force in place of all of its own.
    pub fn is_overridden(&self) -> bool {
        !self.limits.is_empty() && self.limits.iter().all(|limit| limit.fate.by().is_some())
    }

    /// Which of its limits and priorities are not in force, and because of whom; empty where all are.
    pub fn lost_in_words(&self) -> String {
        let lost = self.limits.iter().filter_map(|limit| match &limit.fate {
            Fate::Enforced | Fate::Shadow => None,
            Fate::Replaced { by } => {
                Some(format!("limit {} is a default and gives way to that of policy {by}", limit.name))
            }
            Fate::Overridden { by } => {
                Some(format!("limit {} is overridden by that of policy {by}", limit.name))
            }
        });
        let priorities = self.lost_priorities.iter();
        let priorities = priorities.map(|lost| format!("{} is as policy {} says", lost.of, lost.by));
        lost.chain(priorities).collect::<Vec<_>>().join("; ")
    }

    /// Whether it was taken as it is written now: each of its limits is in the plan, but for what others override. If not,
    /// none is, but for what was kept.
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
    let mut merged = Merged {
        doc: empty_plan(pool, sequence),
        plan: None,
        problems: Vec::new(),
        unresolved: Vec::new(),
        policies: Vec::with_capacity(policies.len()),
        forms: Vec::with_capacity(policies.len()),
        keys: pool.keys.clone(),
        secrets: pool.spec.identity.api_keys.clone(),
    };
    for policy in policies {
        let mut outcome = PolicyOutcome::of(policy.identity(), check_policy(policy.spec));
        merged.forms.push(Form::of(policy, &mut outcome.problems));
        merged.policies.push(outcome);
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
        self.problems.is_empty()
            && self.unresolved.is_empty()
            && self.policies.iter().all(PolicyOutcome::is_taken)
    }

    /// Takes some of the merged `policies` out again, by `namespace/name`, for a reason that lies in none of them, such as
    /// want of room.
    pub fn leave_out(&mut self, which: &BTreeMap<String, String>, policies: &[PolicyInput<'_>]) {
        for form in self.forms.iter_mut().filter(|form| which.contains_key(&form.identity)) {
            form.clear();
        }
        for outcome in &mut self.policies {
            outcome.left_out = which.get(&outcome.policy).cloned();
        }
        self.settle(policies);
    }

    /// Goes by other API keys than those that were merged.
    pub fn with_keys(&mut self, keys: KeyRing, policies: &[PolicyInput<'_>]) {
        self.keys = keys;
        self.settle(policies);
    }

    /// The API keys that it goes by.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Takes what `last`, the plan in force, has of each policy that was not taken: a mistake in a policy must not lift
    /// its limits. Nothing changes where every policy was.
    pub fn keep_last(&mut self, last: &PlanDoc) {
        if self.policies.iter().all(PolicyOutcome::is_taken) {
            return;
        }
        let mut overriding = false;
        for outcome in self.policies.iter_mut().filter(|outcome| !outcome.is_taken()) {
            let known = self.forms.iter().position(|form| form.identity == outcome.policy);
            let mut form = match known {
                Some(place) => self.forms.swap_remove(place),
                None => Form::unknown(&outcome.policy),
            };
            let of_policy = |limit: &&LimitDoc| limit.policy == outcome.policy;
            form.limits = last.limits.iter().filter(of_policy).cloned().collect();
            let own = |exempt: &&ExemptDoc| exempt.policy.as_ref() == Some(&outcome.policy);
            form.exempt = last.exempt.iter().filter(own).cloned().collect();
            form.keep_priorities(last);
            overriding |= known.is_none() || form.precedence == Precedence::Override;
            outcome.kept = form.limits.len();
            self.forms.push(form);
        }
        self.forms.push(kept_clients(last, overriding));
        self.settle(&[]);
    }

    /// Resolves and compiles, and drops policies that do not compile until the rest does.
    fn settle(&mut self, policies: &[PolicyInput<'_>]) {
        loop {
            self.resolve();
            let errors = match compile(&self.doc) {
                Ok(plan) => {
                    self.problems.clear();
                    self.plan = Some(plan);
                    return;
                }
                Err(errors) => errors.0,
            };
            self.plan = None;
            let blame = |error| culprit(&self.doc, policies, &self.secrets, error);
            let blamed = errors.into_iter().map(blame).collect();
            if !self.blame(blamed) {
                return;
            }
        }
    }

    fn resolve(&mut self) {
        let mut outcomes = resolve::resolve(&self.forms, &mut self.doc);
        for outcome in &mut self.policies {
            let resolved = outcomes.remove(&outcome.policy).unwrap_or_default();
            outcome.limits = resolved.limits;
            outcome.lost_priorities = resolved.lost_priorities;
        }
        self.unresolved.clone_from(&self.keys.problems);
        self.doc.identity.api_keys.clone_from(&self.keys.keys);
        self.doc.identity.digest_key.clone_from(&self.keys.digest_key);
        let mut unknown: Vec<String> = Vec::new();
        for key in &mut self.doc.identity.api_keys {
            let is_known = |tier: &String| self.doc.tiers.iter().any(|known| known.name == *tier);
            if let Some(tier) = key.tier.take_if(|tier| !is_known(tier)) {
                unknown.push(tier);
            }
        }
        unknown.sort();
        unknown.dedup();
        self.unresolved.extend(unknown.iter().map(|tier| no_such_tier(tier)));
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
                    let form = self.forms.iter_mut().find(|form| form.identity == outcome.policy);
                    if let Some(form) = form.filter(|form| !form.limits.is_empty()) {
                        form.clear();
                        dropped = true;
                    }
                    outcome.kept = 0;
                    outcome.problems.push(culprit.problem);
                }
                None => self.problems.push(culprit.problem),
            }
        }
        dropped
    }
}

/// Tiers that what was kept may go by, and exemptions from all limits where whoever gave them was not taken.
fn kept_clients(last: &PlanDoc, overriding: bool) -> Form {
    let mut form = Form::unknown("");
    form.tiers.clone_from(&last.tiers);
    form.default_tier.clone_from(&last.default_tier);
    let from_all = last.exempt.iter().filter(|exempt| overriding && exempt.policy.is_none());
    form.exempt = from_all.cloned().collect();
    form
}

fn no_such_tier(tier: &str) -> Problem {
    Problem {
        path: "spec.identity.apiKeys".to_owned(),
        message: format!(
            "no policy of the pool has a tier {tier}: clients that it is given to count as those without a tier"
        ),
    }
}

fn empty_plan(pool: &PoolInputs<'_>, sequence: u64) -> PlanDoc {
    let OllamaPoolSpec { identity, capacity, tokens, ollama, .. } = pool.spec;
    PlanDoc {
        version: PLAN_VERSION,
        pool: PoolRef { namespace: pool.namespace.to_owned(), name: pool.name.to_owned() },
        sequence,
        identity: IdentityDoc {
            trusted_proxies: identity.trusted_proxies.clone(),
            unauthenticated: match identity.unauthenticated {
                Unauthenticated::Allow => UnauthenticatedDoc::Allow,
                Unauthenticated::Reject => UnauthenticatedDoc::Reject,
            },
            trusted_headers: identity.trusted_headers.clone(),
            priority_header: identity.priority_header.clone(),
            ..IdentityDoc::default()
        },
        queue: QueueDoc {
            max_depth: capacity.queue.max_depth,
            max_wait_ms: u64::from(capacity.queue.max_wait_seconds) * 1000,
            batch_max_wait_ms: u64::from(capacity.queue.batch_max_wait_seconds) * 1000,
            max_depth_per_client: capacity.queue.max_depth_per_client,
            cost_model: capacity.queue.cost_model.into(),
        },
        tokens: TokensDoc {
            output_cap: tokens.output_cap,
            cached_weight_milli: tokens.cached_token_percent * 10,
            context_length: ollama.context_length,
        },
        ..PlanDoc::default()
    }
}
