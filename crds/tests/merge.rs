//! Laws of the merge: order plays no part, a mistake stays with its author, and what is in a plan compiles.
#![expect(clippy::indexing_slicing, reason = "a helper of tests may panic as a test may")]

use std::{collections::BTreeMap, num::NonZeroU32};

use corral_crds::{
    Burst, Limit, Match, Mode, OllamaPoolSpec, RateLimitPolicySpec, TargetRef,
    api_keys::KeyRing,
    bounds::{MAX_LIMITS, MAX_POOL_LIMITS},
    merge::{Merged, PolicyInput, PoolInputs, bounds, merge},
};
use corral_wire::{PlanDoc, RateDoc};
use proptest::prelude::*;

fn limit(name: &str) -> Limit {
    Limit {
        name: name.to_owned(),
        per: vec!["Client".to_owned()],
        requests: Some("60/m".to_owned()),
        ..Limit::default()
    }
}

fn policy(limits: Vec<Limit>) -> RateLimitPolicySpec {
    let chat = TargetRef { group: None, kind: "OllamaPool".to_owned(), name: "chat".to_owned() };
    RateLimitPolicySpec { target_refs: Some(vec![chat]), limits, ..RateLimitPolicySpec::default() }
}

fn merged_into(pool: &OllamaPoolSpec, policies: &[(&str, &RateLimitPolicySpec)]) -> Merged {
    let keys = KeyRing::default();
    let inputs = PoolInputs { namespace: "llm", name: "chat", spec: pool, keys: &keys };
    let policies: Vec<_> = policies
        .iter()
        .map(|(name, spec)| PolicyInput { namespace: "llm", name, created: 0, spec })
        .collect();
    merge(&inputs, &policies, 7)
}

fn merged(policies: &[(&str, &RateLimitPolicySpec)]) -> Merged {
    merged_into(&OllamaPoolSpec::default(), policies)
}

fn identities(doc: &PlanDoc) -> Vec<String> {
    doc.limits.iter().map(|limit| format!("{}/{}", limit.policy, limit.name)).collect()
}

fn problems(merged: &Merged, place: usize) -> Vec<String> {
    merged.policies[place].problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_policy_of_ten_lines_becomes_one_limit_with_its_defaults() {
    let mut per_client = limit("per-client");
    per_client.concurrency = Some(4);
    let merged = merged(&[("fair-use", &policy(vec![per_client]))]);
    assert!(merged.is_clean() && merged.doc.sequence == 7);
    let limit = &merged.doc.limits[0];
    assert_eq!((limit.policy.as_str(), limit.name.as_str()), ("llm/fair-use", "per-client"));
    assert_eq!(limit.requests, Some(RateDoc { count_milli: 60_000, window_seconds: 60, burst: 10 }));
    assert_eq!((limit.concurrency, limit.endpoints.len(), limit.models.len()), (Some(4), 0, 0));
    assert_eq!((merged.doc.queue.max_depth, merged.doc.queue.max_wait_ms), (64, 60_000));
}

#[test]
fn limits_of_the_same_name_in_two_policies_both_apply() {
    let spec = policy(vec![limit("a")]);
    let merged = merged(&[("x", &spec), ("y", &spec)]);
    assert_eq!(identities(&merged.doc), ["llm/x/a", "llm/y/a"]);
}

#[test]
fn spellings_of_one_model_are_one_model() {
    let mut tiny = limit("tiny");
    let models = ["library/Tiny", "tiny:latest", "me/other:7B"].map(str::to_owned).to_vec();
    tiny.matches = Some(Match { models, ..Match::default() });
    let merged = merged(&[("p", &policy(vec![tiny]))]);
    assert_eq!(merged.doc.limits[0].models, ["me/other:7b", "tiny:latest"]);
}

#[test]
fn a_faulty_policy_contributes_nothing_and_the_others_all() {
    let mut bad = limit("bad");
    bad.requests = Some("60/week".to_owned());
    let (faulty, sound) = (policy(vec![limit("good"), bad]), policy(vec![limit("a")]));
    let merged = merged(&[("faulty", &faulty), ("sound", &sound)]);
    assert_eq!(identities(&merged.doc), ["llm/sound/a"]);
    assert!(merged.plan.is_some() && !merged.is_clean());
    assert!(problems(&merged, 0)[0].starts_with("spec.limits[1].requests: this is no rate"));
    assert!(problems(&merged, 1).is_empty());
}

#[test]
fn every_mistake_is_told_at_once_by_the_field_that_was_written() {
    let mut one = limit("one");
    one.matches = Some(Match { models: vec!["ok".to_owned(), "tiny:".to_owned()], ..Match::default() });
    one.burst = Some(Burst { requests: Some(0), ..Burst::default() });
    let mut two = limit("two");
    two.requests = Some("2G/s".to_owned());
    let merged = merged(&[("p", &policy(vec![one, two]))]);
    let paths: Vec<_> = merged.policies[0].problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        ["spec.limits[0].burst.requests", "spec.limits[1].requests", "spec.limits[0].match.models[1]"]
    );
}

#[test]
fn what_only_the_compiler_refuses_comes_back_by_the_field_that_was_written() {
    let mut timed = limit("timed");
    (timed.requests, timed.algorithm) =
        (Some("60/d".to_owned()), corral_crds::policy::Algorithm::FixedWindow);
    timed.time_zone = Some("Europe/Atlantis".to_owned());
    let merged = merged(&[("p", &policy(vec![limit("a"), timed])), ("q", &policy(vec![limit("b")]))]);
    assert_eq!(identities(&merged.doc), ["llm/q/b"]);
    assert!(problems(&merged, 0)[0].starts_with("spec.limits[1].timeZone: "), "{:?}", merged.policies);
}

#[test]
fn a_mistake_in_a_policy_does_not_lift_its_limits() {
    let before = merged(&[("p", &policy(vec![limit("a"), limit("b")])), ("q", &policy(vec![limit("c")]))]);
    let mut bad = limit("a");
    bad.requests = Some("many".to_owned());
    let mut after = merged(&[("p", &policy(vec![bad])), ("q", &policy(vec![limit("d")]))]);
    after.keep_last(&before.doc);
    assert_eq!(identities(&after.doc), ["llm/p/a", "llm/p/b", "llm/q/d"]);
    assert_eq!((after.policies[0].kept, after.policies[1].kept), (2, 0));
    assert!(after.plan.is_some() && !after.is_clean());
}

#[test]
fn a_plan_has_as_many_limits_as_the_bound_says_and_no_more() {
    let full = policy((0..MAX_LIMITS).map(|place| limit(&format!("l{place}"))).collect());
    let names: Vec<String> = (0..MAX_POOL_LIMITS / MAX_LIMITS).map(|place| format!("p{place}")).collect();
    let mut policies: Vec<_> = names.iter().map(|name| (name.as_str(), &full)).collect();
    assert!(merged(&policies).is_clean());
    let one = policy(vec![limit("one")]);
    policies.push(("too-many", &one));
    let mut merged = merged(&policies);
    assert!(merged.plan.is_none() && problems(&merged, 8).is_empty(), "no policy of them is at fault");
    assert_eq!(merged.problems[0].path, "limits");
    merged.leave_out(&BTreeMap::from([("llm/too-many".to_owned(), "no room".to_owned())]), &[]);
    assert_eq!(
        merged.plan.as_ref().map(|plan| plan.limits().len()),
        Some(MAX_POOL_LIMITS + 1),
        "and the built-in one"
    );
    assert!(!merged.is_clean() && !merged.policies[8].is_taken());
    assert_eq!(merged.policies[8].left_out.as_deref(), Some("no room"));
}

#[test]
fn what_is_left_out_keeps_its_last_limits() {
    let before = merged(&[("p", &policy(vec![limit("a"), limit("b")]))]);
    let mut after = merged(&[("p", &policy(vec![limit("c")])), ("q", &policy(vec![limit("d")]))]);
    after.leave_out(&BTreeMap::from([("llm/p".to_owned(), "no room".to_owned())]), &[]);
    after.keep_last(&before.doc);
    assert_eq!(identities(&after.doc), ["llm/p/a", "llm/p/b", "llm/q/d"]);
    assert_eq!((after.policies[0].kept, after.policies[1].kept), (2, 0));
}

#[test]
fn a_faulty_pool_has_no_plan_and_says_why_by_its_own_fields() {
    let mut pool = OllamaPoolSpec::default();
    pool.identity.trusted_proxies = vec!["10.0.0.0/8".to_owned(), "nowhere".to_owned()];
    let merged = merged_into(&pool, &[("p", &policy(vec![limit("a")]))]);
    assert!(merged.plan.is_none() && !merged.is_clean());
    assert_eq!(merged.problems[0].path, "spec.identity.trustedProxies[1]");
    assert!(problems(&merged, 0).is_empty());
}

#[test]
fn bounds_are_told_for_the_limits_that_were_written_and_no_others() {
    let mut shadow = policy(vec![limit("b")]);
    shadow.mode = Mode::Shadow;
    let merged = merged(&[("p", &policy(vec![limit("a")])), ("q", &shadow)]);
    let told = bounds(&merged.plan.unwrap(), NonZeroU32::new(2).unwrap());
    assert_eq!(told.len(), 2);
    assert_eq!((told[0].policy.as_str(), told[0].limit.as_str()), ("llm/p", "a"));
    assert_eq!(told[0].text, "≤ 70/min pool-wide (2 pods × 30/min, burst 5)");
    assert_eq!(told[1].mode, corral_wire::Mode::Shadow);
}

prop_compose! {
    fn some_limit(name: String)(
        rate in prop_oneof![Just("60/m"), Just("1.5k/6h"), Just("7/90s"), Just("no rate")],
        concurrency in proptest::option::of(0u32..5),
        burst in proptest::option::of(0u32..5),
        per in proptest::sample::subsequence(vec!["Client", "Model", "Global"], 0..=2),
        models in proptest::collection::vec("[a-c:/]{1,4}", 0..2),
    ) -> Limit {
        Limit {
            name: name.clone(),
            matches: Some(Match { models, ..Match::default() }),
            per: per.into_iter().map(str::to_owned).collect(),
            requests: Some(rate.to_owned()),
            concurrency,
            burst: Some(Burst { requests: burst, ..Burst::default() }),
            ..Limit::default()
        }
    }
}

fn some_policy() -> impl Strategy<Value = RateLimitPolicySpec> {
    (some_limit("a".to_owned()), some_limit("b".to_owned())).prop_map(|(a, b)| policy(vec![a, b]))
}

proptest! {
    #[test]
    fn order_plays_no_part_and_what_is_in_a_plan_compiles(
        specs in proptest::collection::vec(some_policy(), 0..5),
        seed in any::<prop::sample::Index>(),
    ) {
        let named: Vec<_> = specs.iter().enumerate().map(|(place, spec)| (format!("p{place}"), spec)).collect();
        let mut policies: Vec<_> = named.iter().map(|(name, spec)| (name.as_str(), *spec)).collect();
        let one = merged(&policies);
        if !policies.is_empty() {
            let turn = seed.index(policies.len());
            policies.rotate_left(turn);
            policies.reverse();
        }
        let other = merged(&policies);
        prop_assert_eq!(&one.doc, &other.doc);
        prop_assert!(one.plan.is_some());
        for outcome in &one.policies {
            let limits = one.doc.limits.iter().filter(|limit| limit.policy == outcome.policy).count();
            prop_assert_eq!(limits, if outcome.problems.is_empty() { 2 } else { 0 });
            let again = other.policies.iter().find(|other| other.policy == outcome.policy);
            prop_assert_eq!(again, Some(outcome));
        }
    }
}
