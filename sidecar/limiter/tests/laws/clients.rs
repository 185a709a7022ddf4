//! Whom a limit covers, and whom it counts together: paths, tiers, headers, addresses, API keys, exemptions, scales.

use std::{net::Ipv4Addr, sync::Arc};

use corral_limiter::{BodyFacts, HeadFacts, KnownClient, LimitStats, Limiter, Mismatch, ModelName, Nanos};
use corral_wire::{EndpointClass, ExemptDoc, HeaderDoc, KeyPart, LimitDoc, PathDoc, PlanDoc, TierDoc};

use crate::support::{SECOND, doc, limit, limiter_by, plan_of, pods, rate, rated};

fn anonymous(address: u32) -> HeadFacts {
    HeadFacts::new(Ipv4Addr::from(address).into(), EndpointClass::Chat, "/api/chat")
}

fn known(name: &str, tier: Option<&str>) -> HeadFacts {
    let client = KnownClient { name: name.into(), tier: tier.map(Into::into) };
    HeadFacts { client: Some(Arc::new(client)), ..anonymous(1) }
}

fn with_team(team: &str) -> HeadFacts {
    HeadFacts { headers: vec![("x-team".into(), team.into())], ..anonymous(1) }
}

/// How many of ten requests at one instant pass.
fn passed(limiter: &mut Limiter, head: &HeadFacts, now: u64) -> usize {
    passed_for(limiter, head, "tiny", now)
}

fn passed_for(limiter: &mut Limiter, head: &HeadFacts, model: &str, now: u64) -> usize {
    let model = ModelName::parse(model).unwrap();
    let body = BodyFacts { model: Some(&model), ..BodyFacts::default() };
    let mut pass = || {
        let Ok(mut ticket) = limiter.enter(head, Nanos(now)) else { return false };
        let came = limiter.commit(&mut ticket, &body, Nanos(now), |_| Ok::<_, ()>(())).is_ok();
        limiter.finish(ticket, None, Nanos(now));
        came
    };
    (0..10).filter(|_| pass()).count()
}

fn tiered(limits: Vec<LimitDoc>) -> PlanDoc {
    let tier = |name: &str, scale_milli| TierDoc { name: name.into(), scale_milli, ..TierDoc::default() };
    let mut doc = doc(limits);
    doc.tiers = vec![tier("free", 1000), tier("pro", 2000), tier("max", 2000), tier("half", 500)];
    doc.identity.trusted_headers = vec!["x-team".into()];
    doc
}

fn two_a_minute(per: &[KeyPart]) -> LimitDoc {
    rated("l", per, rate(2, 60, 2))
}

fn stats(limiter: &Limiter) -> LimitStats {
    limiter.stats().into_iter().find(|stats| stats.limit.name == "l").unwrap()
}

#[test]
fn a_client_is_its_api_key_and_without_one_its_address() {
    let mut limiter = limiter_by(&tiered(vec![two_a_minute(&[KeyPart::Client])]));
    assert_eq!(passed(&mut limiter, &known("a", None), 0), 2);
    assert_eq!(passed(&mut limiter, &known("b", None), 0), 2);
    assert_eq!(passed(&mut limiter, &anonymous(1), 0), 2);
    let from_elsewhere = HeadFacts { client_ip: Ipv4Addr::from(7).into(), ..known("a", None) };
    assert_eq!(passed(&mut limiter, &from_elsewhere, 0), 0);
}

#[test]
fn all_without_a_part_of_the_key_share_a_bucket() {
    let mut limiter = limiter_by(&tiered(vec![two_a_minute(&[KeyPart::ApiKey])]));
    assert_eq!(passed(&mut limiter, &anonymous(1), 0), 2);
    assert_eq!(passed(&mut limiter, &anonymous(2), 0), 0);
    assert_eq!(passed(&mut limiter, &known("a", None), 0), 2);
    let mut limiter = limiter_by(&tiered(vec![two_a_minute(&[KeyPart::Header("x-team".into())])]));
    assert_eq!(passed(&mut limiter, &anonymous(1), 0), 2);
    assert_eq!(passed(&mut limiter, &anonymous(2), 0), 0);
    assert_eq!(passed(&mut limiter, &with_team("red"), 0), 2);
    assert_eq!(passed(&mut limiter, &with_team("blue"), 0), 2);
}

#[test]
fn the_scale_of_a_tier_multiplies_what_is_each_client_s_own() {
    let mut limiter = limiter_by(&tiered(vec![two_a_minute(&[KeyPart::Client])]));
    let of = |limiter: &mut Limiter, name, tier| passed(limiter, &known(name, Some(tier)), 0);
    assert_eq!(of(&mut limiter, "a", "free"), 2);
    assert_eq!(of(&mut limiter, "b", "pro"), 4);
    assert_eq!(of(&mut limiter, "c", "half"), 1);
    assert_eq!(of(&mut limiter, "d", "unknown"), 2);
    assert_eq!(passed(&mut limiter, &anonymous(9), 0), 2);
    // Thirty seconds give the one back, fifteen the other.
    assert_eq!(passed(&mut limiter, &known("b", Some("pro")), 15 * SECOND), 1);
    assert_eq!(passed(&mut limiter, &known("a", Some("free")), 15 * SECOND), 0);
}

#[test]
fn no_scale_multiplies_a_bucket_that_all_share() {
    let mut limiter = limiter_by(&tiered(vec![two_a_minute(&[KeyPart::Model])]));
    assert_eq!(passed(&mut limiter, &known("b", Some("pro")), 0), 2);
    let mut by_tier = limiter_by(&tiered(vec![two_a_minute(&[KeyPart::Tier])]));
    assert_eq!(passed(&mut by_tier, &known("b", Some("pro")), 0), 4);
    assert_eq!(passed(&mut by_tier, &known("c", Some("pro")), 0), 0);
    assert_eq!(passed(&mut by_tier, &known("d", Some("max")), 0), 4);
    // A team's clients are of any tier, and what the team may is written once.
    let team = |name, tier| HeadFacts { headers: with_team("red").headers, ..known(name, Some(tier)) };
    let mut by_team = limiter_by(&tiered(vec![two_a_minute(&[KeyPart::Header("x-team".into())])]));
    assert_eq!(passed(&mut by_team, &team("b", "pro"), 0), 2);
    assert_eq!(passed(&mut by_team, &team("c", "free"), 0), 0);
    assert_eq!(passed(&mut by_team, &team("d", "half"), 0), 0);
}

#[test]
fn the_default_tier_is_for_whoever_has_none() {
    let mut doc = tiered(vec![two_a_minute(&[KeyPart::Client])]);
    doc.default_tier = Some("pro".into());
    let mut limiter = limiter_by(&doc);
    assert_eq!(passed(&mut limiter, &anonymous(1), 0), 4);
    assert_eq!(passed(&mut limiter, &known("a", Some("free")), 0), 2);
}

#[test]
fn a_tier_whose_scale_changes_keeps_what_is_used_and_who_changes_tier_starts_fresh() {
    let mut doc = tiered(vec![two_a_minute(&[KeyPart::Client])]);
    let mut limiter = limiter_by(&doc);
    let pro = known("b", Some("pro"));
    assert_eq!(passed(&mut limiter, &pro, 0), 4);
    doc.tiers[1].scale_milli = 3000;
    limiter.swap(plan_of(&doc), pods(1), Nanos(0));
    // The tier `max` has the scale of before, and with it the store; what was new begins anew.
    assert_eq!(passed(&mut limiter, &known("c", Some("max")), 0), 4);
    assert_eq!(passed(&mut limiter, &pro, 0), 6);
    doc.tiers[1].scale_milli = 4000;
    limiter.swap(plan_of(&doc), pods(1), Nanos(0));
    // Six of eight are used.
    assert_eq!(passed(&mut limiter, &pro, 0), 2);
    assert_eq!(passed(&mut limiter, &known("b", Some("free")), 0), 2);
}

#[test]
fn a_limit_covers_what_all_its_conditions_cover() {
    let narrow = LimitDoc {
        endpoints: vec![EndpointClass::Chat],
        paths: vec![PathDoc::Prefix("/v1".into()), PathDoc::Exact("/api/chat".into())],
        models: vec!["llama3*".into()],
        tiers: vec!["pro".into()],
        headers: vec![HeaderDoc { name: "x-team".into(), value: "red".into() }],
        cidrs: vec!["0.0.0.0/30".into()],
        ..two_a_minute(&[KeyPart::Client])
    };
    let doc = tiered(vec![narrow]);
    let head = HeadFacts { headers: with_team("red").headers, ..known("a", Some("pro")) };
    let models = ["llama3.2:3b", "tiny"].map(|name| ModelName::parse(name).unwrap());
    let why = |head: &HeadFacts, model: usize| {
        let limiter = limiter_by(&doc);
        let body = BodyFacts { model: Some(&models[model]), ..BodyFacts::default() };
        limiter.explain(head, &body, Nanos(0)).last().unwrap().mismatch
    };
    assert_eq!(why(&head, 0), None);
    assert_eq!(why(&head, 1), Some(Mismatch::Model));
    assert_eq!(why(&HeadFacts { path: "/v1/messages", ..head.clone() }, 0), None);
    assert_eq!(why(&HeadFacts { path: "/v12", ..head.clone() }, 0), Some(Mismatch::Path));
    assert_eq!(
        why(&HeadFacts { endpoint: EndpointClass::Embed, ..head.clone() }, 0),
        Some(Mismatch::Endpoint)
    );
    assert_eq!(why(&HeadFacts { client: None, ..head.clone() }, 0), Some(Mismatch::Tier));
    assert_eq!(why(&HeadFacts { headers: vec![], ..head.clone() }, 0), Some(Mismatch::Header));
    let far = HeadFacts { client_ip: Ipv4Addr::from(4).into(), ..head.clone() };
    assert_eq!(why(&far, 0), Some(Mismatch::Address));
    let mut limiter = limiter_by(&doc);
    assert_eq!(passed_for(&mut limiter, &head, "llama3.2:3b", 0), 4);
    assert_eq!(passed_for(&mut limiter, &head, "tiny", 0), 10);
}

#[test]
fn exempt_clients_are_not_counted_but_for_a_metric() {
    let mut doc = tiered(vec![two_a_minute(&[KeyPart::ClientIP])]);
    let exempt = |policy: Option<&str>| ExemptDoc {
        policy: policy.map(Into::into),
        cidrs: vec!["0.0.0.8/32".into()],
        clients: vec!["ci".into(), "bot".into()],
    };
    doc.exempt = vec![exempt(Some("llm/other"))];
    let mut limiter = limiter_by(&doc);
    assert_eq!(passed(&mut limiter, &known("ci", None), 0), 2);
    for policy in [None, Some("llm/fair-use")] {
        doc.exempt = vec![exempt(policy)];
        let mut limiter = limiter_by(&doc);
        assert_eq!(passed(&mut limiter, &known("ci", None), 0), 10);
        assert_eq!(passed(&mut limiter, &anonymous(8), 0), 10);
        assert_eq!(passed(&mut limiter, &known("a", None), 0), 2);
        assert_eq!((stats(&limiter).exempt, stats(&limiter).admitted), (20, 2));
    }
    // What protects the pod itself is nobody's policy.
    let metadata = HeadFacts { endpoint: EndpointClass::Metadata, path: "/api/tags", ..known("ci", None) };
    assert_eq!((0..3).map(|_| passed(&mut limiter_by(&doc), &metadata, 0)).sum::<usize>(), 30);
    let mut limiter = limiter_by(&doc);
    assert_eq!((0..3).map(|_| passed(&mut limiter, &metadata, 0)).sum::<usize>(), 20);
}

#[test]
fn concurrency_is_scaled_by_tier_too() {
    let two = LimitDoc { concurrency: Some(2), ..limit("l", &[KeyPart::Client]) };
    let mut limiter = limiter_by(&tiered(vec![two]));
    let head = known("b", Some("pro"));
    let tickets: Vec<_> = (0..9).filter_map(|_| limiter.enter(&head, Nanos(0)).ok()).collect();
    assert_eq!(tickets.len(), 4);
    for ticket in tickets {
        limiter.abandon(ticket, Nanos(0));
    }
    assert_eq!(stats(&limiter).keys, 0);
}
