//! Which of several policies has its way on a pool, as its author reads it.
#![expect(clippy::indexing_slicing, reason = "a helper of tests may panic as a test may")]

use corral_crds::{
    Limit, Mode, OllamaPoolSpec, Precedence, RateLimitPolicySpec, TargetRef,
    api_keys::{self, Entries, KeyRing},
    merge::{Fate, Merged, PolicyInput, PoolInputs, merge},
    policy::{Exempt, LabelSelector, Match, Tier},
    pool::ApiKeySecret,
};
use corral_wire::KeyDigester;

/// A policy with a limit `a`.
fn policy(precedence: Precedence) -> RateLimitPolicySpec {
    let chat = TargetRef { group: None, kind: "OllamaPool".to_owned(), name: "chat".to_owned() };
    RateLimitPolicySpec {
        target_refs: Some(vec![chat]),
        precedence,
        limits: vec![limit("a")],
        ..RateLimitPolicySpec::default()
    }
}

fn limit(name: &str) -> Limit {
    let (name, per) = (name.to_owned(), vec!["Client".to_owned()]);
    Limit { name, per, requests: Some("60/m".to_owned()), ..Limit::default() }
}

fn selecting(precedence: Precedence) -> RateLimitPolicySpec {
    let target_selector = Some(LabelSelector::default());
    RateLimitPolicySpec { target_refs: None, target_selector, ..policy(precedence) }
}

fn shadow(precedence: Precedence) -> RateLimitPolicySpec {
    RateLimitPolicySpec { mode: Mode::Shadow, ..policy(precedence) }
}

/// Names and ages of policies, each with what it asks for.
type Written<'a> = (&'a str, i64, &'a RateLimitPolicySpec);

fn merged(policies: &[Written<'_>]) -> Merged {
    merged_into(&OllamaPoolSpec::default(), &KeyRing::default(), policies)
}

fn merged_into(spec: &OllamaPoolSpec, keys: &KeyRing, policies: &[Written<'_>]) -> Merged {
    let pool = PoolInputs { namespace: "llm", name: "chat", spec, keys };
    let inputs: Vec<_> = policies
        .iter()
        .map(|(name, created, spec)| PolicyInput { namespace: "llm", name, created: *created, spec })
        .collect();
    merge(&pool, &inputs, 1)
}

/// What becomes of the limit `a` of each of two policies, `one` older than `two`, and what is said of it.
fn pair(one: &RateLimitPolicySpec, two: &RateLimitPolicySpec) -> [String; 2] {
    let told = |merged: &Merged, place: usize| {
        let outcome = &merged.policies[place];
        assert!(outcome.is_taken(), "{outcome:?}");
        match (&outcome.limits[0].fate, outcome.lost_in_words()) {
            (Fate::Enforced, words) if words.is_empty() => "enforced".to_owned(),
            (Fate::Shadow, words) if words.is_empty() => "shadow".to_owned(),
            (_, words) => words,
        }
    };
    let there = merged(&[("one", 1, one), ("two", 2, two)]);
    let back = merged(&[("two", 2, two), ("one", 1, one)]);
    assert_eq!(there.doc, back.doc, "order plays no part");
    [told(&there, 0), told(&there, 1)]
}

#[test]
fn of_every_pair_of_policies_each_author_reads_who_has_the_say() {
    use Precedence::{Default, Normal, Override};
    const GIVES_WAY_TO_ONE: &str = "limit a is a default and gives way to that of policy llm/one";
    const GIVES_WAY_TO_TWO: &str = "limit a is a default and gives way to that of policy llm/two";
    const BY_ONE: &str = "limit a is overridden by that of policy llm/one";
    const BY_TWO: &str = "limit a is overridden by that of policy llm/two";
    const YES: &str = "enforced";
    let table = [
        (policy(Normal), policy(Normal), [YES, YES]),
        (policy(Normal), selecting(Normal), [YES, YES]),
        (policy(Default), policy(Normal), [GIVES_WAY_TO_TWO, YES]),
        (policy(Default), selecting(Normal), [GIVES_WAY_TO_TWO, YES]),
        (policy(Default), policy(Default), [YES, YES]),
        (policy(Normal), policy(Override), [BY_TWO, YES]),
        (policy(Default), selecting(Override), [BY_TWO, YES]),
        (policy(Override), policy(Override), [YES, BY_ONE]),
        (selecting(Override), policy(Override), [BY_TWO, YES]),
        (policy(Normal), shadow(Override), [YES, "shadow"]),
        (policy(Default), shadow(Normal), [YES, "shadow"]),
        (shadow(Default), policy(Normal), [GIVES_WAY_TO_TWO, YES]),
        (policy(Override), shadow(Override), [YES, BY_ONE]),
        (shadow(Override), policy(Override), ["shadow", YES]),
        (policy(Normal), selecting(Default), [YES, GIVES_WAY_TO_ONE]),
    ];
    for (one, two, expected) in &table {
        assert_eq!(pair(one, two), *expected, "{one:?}\n{two:?}");
    }
}

#[test]
fn the_older_of_two_that_override_wins_and_of_one_age_the_first_by_name() {
    let spec = policy(Precedence::Override);
    let winner = |policies: &[Written<'_>]| {
        let merged = merged(policies);
        assert_eq!(merged.doc.limits.len(), 1);
        merged.doc.limits[0].policy.clone()
    };
    assert_eq!(winner(&[("a", 9, &spec), ("b", 3, &spec)]), "llm/b");
    assert_eq!(winner(&[("b", 3, &spec), ("a", 3, &spec)]), "llm/a");
}

#[test]
fn names_that_differ_touch_each_other_nowhere() {
    let mut other = policy(Precedence::Override);
    other.limits = vec![limit("b")];
    let found = merged(&[("one", 1, &policy(Precedence::Default)), ("two", 2, &other)]);
    assert_eq!(found.doc.limits.len(), 2);
}

#[test]
fn a_limit_in_shadow_replaces_nothing_whatever_its_policy_is() {
    let mut other = policy(Precedence::Override);
    other.limits[0].mode = Some(Mode::Shadow);
    let found = merged(&[("one", 1, &policy(Precedence::Normal)), ("two", 2, &other)]);
    assert_eq!(found.doc.limits.len(), 2);
    assert_eq!(found.policies[1].limits[0].fate, Fate::Shadow);
}

#[test]
fn a_policy_that_lost_every_limit_is_told_apart_from_one_that_lost_some() {
    let mut two = policy(Precedence::Normal);
    two.limits.push(limit("b"));
    let over = policy(Precedence::Override);
    let found = merged(&[("all", 1, &policy(Precedence::Normal)), ("some", 2, &two), ("over", 3, &over)]);
    let overridden: Vec<bool> =
        found.policies.iter().map(corral_crds::merge::PolicyOutcome::is_overridden).collect();
    assert_eq!(overridden, [true, false, false]);
}

#[test]
fn what_a_faulty_override_would_replace_stays_in_force() {
    let mut faulty = policy(Precedence::Override);
    faulty.limits[0].requests = Some("many".to_owned());
    let found = merged(&[("one", 1, &policy(Precedence::Normal)), ("two", 2, &faulty)]);
    assert_eq!(found.doc.limits[0].policy, "llm/one");
    assert_eq!(found.policies[0].limits[0].fate, Fate::Enforced);
}

#[test]
fn what_is_kept_of_an_override_still_replaces() {
    let (normal, over) = (policy(Precedence::Normal), policy(Precedence::Override));
    let before = merged(&[("one", 1, &normal), ("two", 2, &over)]);
    let mut faulty = over.clone();
    faulty.limits[0].requests = Some("many".to_owned());
    let mut after = merged(&[("one", 1, &normal), ("two", 2, &faulty)]);
    after.keep_last(&before.doc);
    assert_eq!(after.doc.limits, before.doc.limits);
    assert_eq!(after.policies[0].limits[0].fate, Fate::Overridden { by: "llm/two".to_owned() });
}

fn tiers(spec: RateLimitPolicySpec, tiers: &[(&str, &str)], default: Option<&str>) -> RateLimitPolicySpec {
    let tier = |(name, scale): &(&str, &str)| Tier {
        name: (*name).to_owned(),
        scale: Some((*scale).to_owned()),
        ..Tier::default()
    };
    let default_tier = default.map(str::to_owned);
    RateLimitPolicySpec { tiers: tiers.iter().map(tier).collect(), default_tier, ..spec }
}

fn scales(merged: &Merged) -> (Vec<(String, u32)>, Option<String>) {
    let tiers = merged.doc.tiers.iter().map(|tier| (tier.name.clone(), tier.scale_milli)).collect();
    (tiers, merged.doc.default_tier.clone())
}

#[test]
fn tiers_merge_by_name_and_each_has_one_scale() {
    let named = tiers(policy(Precedence::Normal), &[("basic", "0.5"), ("gold", "5")], Some("basic"));
    let selected = tiers(selecting(Precedence::Normal), &[("gold", "9"), ("silver", "2")], Some("silver"));
    let found = merged(&[("one", 1, &selected), ("two", 2, &named)]);
    let expected =
        [("basic", 500), ("gold", 5000), ("silver", 2000)].map(|(name, milli)| (name.to_owned(), milli));
    assert_eq!(scales(&found), (expected.to_vec(), Some("basic".to_owned())));
    let over = tiers(selecting(Precedence::Override), &[("gold", "7")], Some("gold"));
    let found = merged(&[("one", 1, &named), ("two", 2, &over)]);
    assert_eq!(scales(&found).0[1], ("gold".to_owned(), 7000));
    assert_eq!(scales(&found).1.as_deref(), Some("gold"));
}

#[test]
fn a_tier_in_shadow_changes_no_number() {
    let counting = tiers(shadow(Precedence::Override), &[("gold", "5"), ("free", "0.1")], Some("free"));
    let named = tiers(policy(Precedence::Normal), &[("gold", "2")], None);
    let found = merged(&[("one", 1, &counting), ("two", 2, &named)]);
    let expected = [("free", 1000), ("gold", 2000)].map(|(name, milli)| (name.to_owned(), milli));
    assert_eq!(scales(&found).0, expected);
}

#[test]
fn a_policy_exempts_from_its_own_limits_and_one_that_overrides_from_all() {
    let exempting = |spec: RateLimitPolicySpec| RateLimitPolicySpec {
        exempt: Some(Exempt { cidrs: vec!["10.0.0.0/8".to_owned()], api_keys: Vec::new() }),
        ..spec
    };
    let from = |spec: RateLimitPolicySpec| merged(&[("p", 1, &exempting(spec))]).doc.exempt[0].policy.clone();
    assert_eq!(from(policy(Precedence::Normal)).as_deref(), Some("llm/p"));
    assert_eq!(from(policy(Precedence::Default)).as_deref(), Some("llm/p"));
    assert_eq!(from(policy(Precedence::Override)), None);
    assert_eq!(from(shadow(Precedence::Override)).as_deref(), Some("llm/p"), "what counts lifts nothing");
}

fn keyed(tier: &str) -> (OllamaPoolSpec, KeyRing) {
    let mut pool = OllamaPoolSpec::default();
    pool.identity.api_keys =
        vec![ApiKeySecret { secret_name: "keys".to_owned(), tier: Some(tier.to_owned()) }];
    let content = Entries::from([("alice".to_owned(), b"alice-key-1".to_vec())]);
    let digester = KeyDigester::derive(&[7; 32]);
    let keys = api_keys::read(&pool.identity.api_keys, |_| Some(&content), &digester);
    (pool, keys)
}

#[test]
fn a_tier_that_no_policy_has_is_told_and_its_clients_count_as_those_without() {
    let (pool, keys) = keyed("gold");
    let named = tiers(policy(Precedence::Normal), &[("gold", "5")], None);
    let found = merged_into(&pool, &keys, &[("one", 1, &named)]);
    assert_eq!(found.doc.identity.api_keys[0].tier.as_deref(), Some("gold"));
    assert!(found.is_clean());
    let found = merged_into(&pool, &keys, &[("one", 1, &policy(Precedence::Normal))]);
    assert_eq!(found.doc.identity.api_keys[0].tier, None);
    assert!(found.plan.is_some() && !found.is_clean());
    assert!(
        found.unresolved[0]
            .to_string()
            .starts_with("spec.identity.apiKeys: no policy of the pool has a tier gold")
    );
}

#[test]
fn a_mistake_in_a_policy_takes_its_tiers_from_nobody() {
    let (pool, keys) = keyed("gold");
    let mut spec = tiers(policy(Precedence::Normal), &[("gold", "5")], Some("gold"));
    spec.limits[0].matches = Some(Match { tiers: vec!["gold".to_owned()], ..Match::default() });
    let before = merged_into(&pool, &keys, &[("one", 1, &spec)]);
    spec.limits[0].requests = Some("many".to_owned());
    let mut after = merged_into(&pool, &keys, &[("one", 1, &spec)]);
    after.keep_last(&before.doc);
    assert_eq!(after.doc, before.doc);
}
