//! Whose weights and priorities count, of several policies on a pool.
#![expect(clippy::unwrap_used, reason = "a helper of tests may panic as a test may")]

use corral_crds::{
    Endpoint, Limit, Mode, OllamaPoolSpec, Precedence, RateLimitPolicySpec, TargetRef,
    api_keys::KeyRing,
    merge::{LostPriority, Merged, PolicyInput, PoolInputs, merge, priorities_in_short},
    policy::{EndpointPriority, LabelSelector, Priority, Tier},
};
use corral_wire::{PriorityDoc, TierDoc};

fn policy(tiers: &[Tier], endpoints: &[(Endpoint, Priority)]) -> RateLimitPolicySpec {
    let chat = TargetRef { group: None, kind: "OllamaPool".to_owned(), name: "chat".to_owned() };
    let (name, per) = ("a".to_owned(), vec!["Client".to_owned()]);
    let endpoint = |(endpoint, priority): &(Endpoint, Priority)| EndpointPriority {
        endpoint: *endpoint,
        priority: *priority,
    };
    RateLimitPolicySpec {
        target_refs: Some(vec![chat]),
        tiers: tiers.to_vec(),
        endpoint_priorities: endpoints.iter().map(endpoint).collect(),
        limits: vec![Limit { name, per, requests: Some("60/m".to_owned()), ..Limit::default() }],
        ..RateLimitPolicySpec::default()
    }
}

fn tier(weight: u32, priority: Option<Priority>) -> Tier {
    Tier { name: "premium".to_owned(), weight, priority, ..Tier::default() }
}

/// Merges policies, each older than the next.
fn merged(policies: &[(&str, &RateLimitPolicySpec)]) -> Merged {
    let (spec, keys) = (OllamaPoolSpec::default(), KeyRing::default());
    let pool = PoolInputs { namespace: "llm", name: "chat", spec: &spec, keys: &keys };
    let inputs: Vec<_> = (0..)
        .zip(policies)
        .map(|(created, (name, spec))| PolicyInput { namespace: "llm", name, created, spec })
        .collect();
    let found = merge(&pool, &inputs, 1);
    let backwards: Vec<_> = inputs.iter().rev().copied().collect();
    assert_eq!(found.doc, merge(&pool, &backwards, 1).doc, "order plays no part");
    found
}

/// What the plan says of the tier `premium`.
fn premium(merged: &Merged) -> (u32, Option<PriorityDoc>) {
    let premium: &TierDoc = merged.doc.tiers.iter().find(|tier| tier.name == "premium").unwrap();
    (premium.weight, premium.priority)
}

fn in_short(merged: &Merged, policy: &str) -> String {
    priorities_in_short(&merged.doc, policy).unwrap_or_default()
}

fn lost(of: &str, by: &str) -> LostPriority {
    LostPriority { of: of.to_owned(), by: by.to_owned() }
}

#[test]
fn weights_and_priorities_of_a_policy_are_in_the_plan_and_told_in_short() {
    let spec = policy(
        &[tier(5, Some(Priority::High)), Tier { name: "basic".to_owned(), ..Tier::default() }],
        &[(Endpoint::Embed, Priority::Low), (Endpoint::Chat, Priority::Critical)],
    );
    let found = merged(&[("one", &spec)]);
    assert!(found.is_clean());
    assert_eq!(premium(&found), (5, Some(PriorityDoc::High)));
    assert_eq!(in_short(&found, "llm/one"), "premium=high,Chat=critical,Embed=low");
    assert_eq!(priorities_in_short(&found.doc, "llm/two"), None);
}

#[test]
fn of_many_priorities_six_are_shown_and_the_rest_counted() {
    let named = |place: u32| Tier { name: format!("t{place}"), ..tier(1, Some(Priority::Low)) };
    let found = merged(&[("one", &policy(&(0..9).map(named).collect::<Vec<_>>(), &[]))]);
    assert_eq!(in_short(&found, "llm/one"), "t0=low,t1=low,t2=low,t3=low,t4=low,t5=low +3");
}

#[test]
fn of_two_policies_the_stronger_says_all_of_a_tier_and_of_an_endpoint() {
    let older = policy(&[tier(2, None)], &[(Endpoint::Embed, Priority::Low)]);
    let younger = policy(
        &[tier(9, Some(Priority::Critical))],
        &[(Endpoint::Embed, Priority::High), (Endpoint::Chat, Priority::High)],
    );
    let found = merged(&[("older", &older), ("younger", &younger)]);
    assert_eq!(premium(&found), (2, None), "a tier is not made of two");
    assert_eq!(in_short(&found, "llm/older"), "Embed=low");
    assert_eq!(in_short(&found, "llm/younger"), "Chat=high");
    let told = [lost("tier premium", "llm/older"), lost("endpoint Embed", "llm/older")];
    assert_eq!(found.policies[1].lost_priorities, told);
    assert!(found.policies[0].lost_priorities.is_empty());
    assert_eq!(
        found.policies[1].lost_in_words(),
        "tier premium is as policy llm/older says; endpoint Embed is as policy llm/older says"
    );
    assert!(found.is_clean() && !found.policies[1].is_overridden());
}

#[test]
fn priorities_go_by_the_order_that_tiers_have() {
    let says = |priority| policy(&[tier(1, Some(priority))], &[(Endpoint::Embed, priority)]);
    let over = RateLimitPolicySpec { precedence: Precedence::Override, ..says(Priority::Critical) };
    let selecting = RateLimitPolicySpec {
        target_refs: None,
        target_selector: Some(LabelSelector::default()),
        ..says(Priority::Medium)
    };
    let default = RateLimitPolicySpec { precedence: Precedence::Default, ..says(Priority::Low) };
    let named = says(Priority::High);
    let ranked = [
        ("z-over", &over, "critical"),
        ("y-named", &named, "high"),
        ("x-selecting", &selecting, "medium"),
        ("w-default", &default, "low"),
    ];
    for (place, (name, _, word)) in ranked.iter().enumerate() {
        let mut there: Vec<_> = ranked[place..].iter().map(|(name, spec, _)| (*name, *spec)).collect();
        there.reverse();
        let found = merged(&there);
        assert_eq!(in_short(&found, &format!("llm/{name}")), format!("premium={word},Embed={word}"));
    }
}

#[test]
fn what_is_in_shadow_says_nothing_of_priorities() {
    let loud = policy(&[tier(1000, Some(Priority::Critical))], &[(Endpoint::Embed, Priority::Critical)]);
    let shadow = RateLimitPolicySpec { mode: Mode::Shadow, precedence: Precedence::Override, ..loud };
    let alone = merged(&[("shadow", &shadow)]);
    assert_eq!(premium(&alone), (1, None));
    assert!(alone.doc.endpoint_priorities.is_empty());
    assert_eq!(priorities_in_short(&alone.doc, "llm/shadow"), None);
    let named = policy(&[tier(2, Some(Priority::Low))], &[(Endpoint::Embed, Priority::Low)]);
    let found = merged(&[("shadow", &shadow), ("named", &named)]);
    assert_eq!(in_short(&found, "llm/named"), "premium=low,Embed=low");
    assert_eq!(premium(&found).0, 2);
    assert!(found.policies.iter().all(|outcome| outcome.lost_priorities.is_empty()));
}

#[test]
fn a_mistake_in_a_policy_changes_none_of_its_priorities_nor_those_of_others() {
    let one = policy(&[tier(5, Some(Priority::High))], &[(Endpoint::Embed, Priority::Low)]);
    let two = policy(
        &[tier(7, Some(Priority::Low))],
        &[(Endpoint::Embed, Priority::High), (Endpoint::Chat, Priority::High)],
    );
    let before = merged(&[("one", &one), ("two", &two)]);
    for faulty in [&one, &two] {
        let mut policies = [("one", one.clone()), ("two", two.clone())];
        for (_, spec) in policies.iter_mut().filter(|(_, spec)| spec == faulty) {
            spec.limits[0].requests = Some("many".to_owned());
            spec.tiers.clear();
            spec.endpoint_priorities.clear();
        }
        let [(a, first), (b, second)] = &policies;
        let mut after = merged(&[(*a, first), (*b, second)]);
        after.keep_last(&before.doc);
        assert_eq!(after.doc, before.doc);
    }
}

#[test]
fn who_takes_a_priority_back_is_not_held_by_the_mistake_of_another() {
    let one = policy(&[], &[(Endpoint::Embed, Priority::Low)]);
    let two = policy(&[], &[(Endpoint::Chat, Priority::High)]);
    let before = merged(&[("one", &one), ("two", &two)]);
    let taken_back = policy(&[], &[]);
    let mut faulty = two.clone();
    faulty.limits[0].requests = Some("many".to_owned());
    let mut after = merged(&[("one", &taken_back), ("two", &faulty)]);
    after.keep_last(&before.doc);
    assert_eq!(in_short(&after, "llm/one"), "");
    assert_eq!(in_short(&after, "llm/two"), "Chat=high");
}
