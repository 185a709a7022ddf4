//! `RateLimitPolicy`, against its schema and rules.

use super::{Checks, Problem, text};
use crate::{
    GROUP, bounds,
    policy::{KeyPart, Limit, Match, RateLimitPolicySpec, TARGET_KIND, TargetRef},
    rules,
    units::{BadRate, Rate},
};

/// Everything that is wrong with a policy, in the order of its fields; also what no schema can say of a rate.
pub fn check_policy(spec: &RateLimitPolicySpec) -> Vec<Problem> {
    let mut checks = Checks::of("spec");
    checks.items(".targetRefs", spec.target_refs.len(), 1..=bounds::MAX_TARGETS);
    let targets: Vec<_> = spec.target_refs.iter().map(|target| (&target.kind, &target.name)).collect();
    checks.distinct(".targetRefs", &targets);
    checks.each(".targetRefs", &spec.target_refs, target);
    checks.items(".limits", spec.limits.len(), 1..=bounds::MAX_LIMITS);
    let names: Vec<_> = spec.limits.iter().map(|limit| &limit.name).collect();
    checks.distinct(".limits", &names);
    checks.each(".limits", &spec.limits, limit);
    checks.problems
}

fn target(checks: &mut Checks, target: &TargetRef) {
    checks.rule(&rules::TARGET_KIND, target.kind == TARGET_KIND);
    checks.rule(&rules::TARGET_GROUP, target.group.as_deref().is_none_or(|group| group == GROUP));
    checks.length(".name", &target.name, 1..=bounds::MAX_NAME);
}

fn limit(checks: &mut Checks, limit: &Limit) {
    checks.at(".name", |checks| {
        checks.own_length(&limit.name, 1..=bounds::MAX_LIMIT_NAME);
        checks.rule(&rules::LIMIT_NAME, text::is_label(&limit.name));
    });
    if let Some(matches) = &limit.matches {
        checks.at(".match", |checks| coverage(checks, matches));
    }
    checks.items(".per", limit.per.len(), 1..=bounds::MAX_PER);
    checks.distinct(".per", &limit.per);
    let alone = limit.per.len() == 1 || !limit.per.contains(&KeyPart::Global);
    checks.at(".per", |checks| checks.rule(&rules::GLOBAL_ALONE, alone));
    units(checks, limit);
}

fn coverage(checks: &mut Checks, matches: &Match) {
    checks.items(".endpoints", matches.endpoints.len(), 0..=bounds::MAX_ENDPOINTS);
    checks.distinct(".endpoints", &matches.endpoints);
    checks.items(".models", matches.models.len(), 0..=bounds::MAX_MODELS);
    checks.distinct(".models", &matches.models);
    checks.each(".models", &matches.models, |checks, model| checks.own_length(model, 1..=bounds::MAX_MODEL));
}

fn units(checks: &mut Checks, limit: &Limit) {
    checks.rule(&rules::ONE_UNIT, limit.requests.is_some() || limit.concurrency.is_some());
    if let Some(rate) = &limit.requests {
        checks.at(".requests", |checks| requests(checks, rate));
    }
    if let Some(concurrency) = limit.concurrency {
        checks.within(".concurrency", concurrency, 1..=bounds::MAX_CONCURRENCY);
    }
    let burst = limit.burst.as_ref().and_then(|burst| burst.requests);
    checks.rule(&rules::BURST_NEEDS_RATE, burst.is_none() || limit.requests.is_some());
    if let Some(burst) = burst {
        checks.within(".burst.requests", burst, 1..=bounds::MAX_BURST);
    }
}

fn requests(checks: &mut Checks, rate: &str) {
    checks.own_length(rate, 0..=bounds::MAX_RATE);
    match rate.parse::<Rate>() {
        Ok(_) => {}
        Err(BadRate::Grammar) => checks.rule(&rules::RATE, false),
        Err(bad) => checks.refuse(bad.to_string()),
    }
}
