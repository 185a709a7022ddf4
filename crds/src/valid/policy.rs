//! `RateLimitPolicy`, against its schema and rules.

use super::{Checks, Problem, limit::limit, network, text};
use crate::{
    GROUP, bounds,
    policy::{
        Endpoint, EndpointPriority, Exempt, LabelRequirement, LabelSelector, RateLimitPolicySpec, Scale,
        TARGET_KIND, TargetRef, Tier,
    },
    rules,
};

/// Everything that is wrong with a policy, in the order of its fields; also what no schema can say of a rate.
pub fn check_policy(spec: &RateLimitPolicySpec) -> Vec<Problem> {
    let mut checks = Checks::of("spec");
    aim(&mut checks, spec);
    tiers(&mut checks, spec);
    endpoint_priorities(&mut checks, &spec.endpoint_priorities);
    if let Some(exempt) = &spec.exempt {
        checks.at(".exempt", |checks| exemption(checks, exempt));
    }
    checks.items(".limits", spec.limits.len(), 1..=bounds::MAX_LIMITS);
    let names: Vec<_> = spec.limits.iter().map(|limit| &limit.name).collect();
    checks.distinct(".limits", &names);
    checks.each(".limits", &spec.limits, limit);
    checks.problems
}

fn aim(checks: &mut Checks, spec: &RateLimitPolicySpec) {
    checks.rule(&rules::ONE_AIM, spec.target_refs.is_some() != spec.target_selector.is_some());
    if let Some(refs) = &spec.target_refs {
        checks.items(".targetRefs", refs.len(), 1..=bounds::MAX_TARGETS);
        let targets: Vec<_> = refs.iter().map(|target| (&target.kind, &target.name)).collect();
        checks.distinct(".targetRefs", &targets);
        checks.each(".targetRefs", refs, target);
    }
    if let Some(chosen) = &spec.target_selector {
        checks.at(".targetSelector", |checks| selector(checks, chosen));
    }
}

fn target(checks: &mut Checks, target: &TargetRef) {
    checks.rule(&rules::TARGET_KIND, target.kind == TARGET_KIND);
    checks.rule(&rules::TARGET_GROUP, target.group.as_deref().is_none_or(|group| group == GROUP));
    checks.length(".name", &target.name, 1..=bounds::MAX_NAME);
}

fn selector(checks: &mut Checks, selector: &LabelSelector) {
    checks.properties(".matchLabels", selector.match_labels.len(), bounds::MAX_SELECTOR);
    for (key, value) in &selector.match_labels {
        checks.length(&format!(".matchLabels.{key}"), value, 0..=bounds::MAX_LABEL_VALUE);
    }
    checks.items(".matchExpressions", selector.match_expressions.len(), 0..=bounds::MAX_SELECTOR);
    checks.each(".matchExpressions", &selector.match_expressions, requirement);
}

fn requirement(checks: &mut Checks, requirement: &LabelRequirement) {
    checks.length(".key", &requirement.key, 1..=bounds::MAX_LABEL_KEY);
    checks.items(".values", requirement.values.len(), 0..=bounds::MAX_SELECTOR_VALUES);
    checks.each(".values", &requirement.values, |checks, value| {
        checks.own_length(value, 0..=bounds::MAX_LABEL_VALUE);
    });
    let fits = requirement.operator.takes_values() != requirement.values.is_empty();
    checks.rule(&rules::SELECTOR_VALUES, fits);
}

fn tiers(checks: &mut Checks, spec: &RateLimitPolicySpec) {
    checks.items(".tiers", spec.tiers.len(), 0..=bounds::MAX_TIERS);
    let names: Vec<_> = spec.tiers.iter().map(|tier| &tier.name).collect();
    checks.distinct(".tiers", &names);
    checks.each(".tiers", &spec.tiers, tier);
    if let Some(tier) = &spec.default_tier {
        checks.length(".defaultTier", tier, 1..=bounds::MAX_LIMIT_NAME);
        checks.rule(&rules::DEFAULT_TIER_KNOWN, names.contains(&tier));
    }
    let mut wanted = spec.limits.iter().filter_map(|limit| limit.matches.as_ref()).flat_map(|m| &m.tiers);
    checks.rule(&rules::TIERS_KNOWN, wanted.all(|tier| names.contains(&tier)));
}

fn tier(checks: &mut Checks, tier: &Tier) {
    checks.at(".name", |checks| tier_name(checks, &tier.name));
    if let Some(scale) = &tier.scale {
        checks.at(".scale", |checks| {
            checks.own_length(scale, 0..=bounds::MAX_SCALE);
            checks.rule(&rules::SCALE, scale.parse::<Scale>().is_ok());
        });
    }
    checks.within(".weight", tier.weight, 1..=bounds::MAX_WEIGHT);
}

fn endpoint_priorities(checks: &mut Checks, priorities: &[EndpointPriority]) {
    checks.items(".endpointPriorities", priorities.len(), 0..=bounds::MAX_PRIORITIES);
    let endpoints: Vec<_> = priorities.iter().map(|priority| priority.endpoint).collect();
    checks.distinct(".endpointPriorities", &endpoints);
    checks.each(".endpointPriorities", priorities, |checks, priority| {
        checks.at(".endpoint", |checks| {
            checks.rule(&rules::ENDPOINT_WAITS, priority.endpoint != Endpoint::Metadata);
        });
    });
}

/// The name of a tier, whoever says it.
pub(super) fn tier_name(checks: &mut Checks, name: &str) {
    checks.own_length(name, 1..=bounds::MAX_LIMIT_NAME);
    checks.rule(&rules::TIER_NAME, text::is_label(name));
}

fn exemption(checks: &mut Checks, exempt: &Exempt) {
    checks.set(".cidrs", &exempt.cidrs, bounds::MAX_NETWORKS, network);
    checks.set(".apiKeys", &exempt.api_keys, bounds::MAX_EXEMPT_CLIENTS, |checks, name| {
        checks.own_length(name, 0..=bounds::MAX_CLIENT_NAME);
        checks.rule(&rules::CLIENT_NAME, text::is_client_name(name));
    });
}
