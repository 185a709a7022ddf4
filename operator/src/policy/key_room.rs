//! API keys and the room of a plan. Pure.
//!
//! Limits that are in force are not pushed out by new keys, and nothing keeps a revoked key in force. So where a plan would
//! become too large by its keys, no client has more of them than it had; and where there is no new plan at all, the last one
//! goes on with the keys of now.

use std::collections::{BTreeMap, BTreeSet};

use corral_crds::api_keys::KeyRing;
use corral_crds::merge::Merged;
use corral_crds::valid::Problem;
use corral_wire::{ApiKeyDoc, LimitDoc, PlanDoc};

use crate::pool::build::secrets::MAX_PLAN_BYTES;

/// The keys to go by where there is no room for all of them beside the limits that are in force; none where there is.
pub fn keys_that_fit(merged: &Merged, last: &PlanDoc) -> Result<Option<KeyRing>, serde_json::Error> {
    if bytes(&merged.doc, &last.limits)? <= MAX_PLAN_BYTES {
        return Ok(None);
    }
    let mut ring = merged.keys().clone();
    let before = ring.keys.len();
    let known: BTreeSet<&str> = last.identity.api_keys.iter().map(|key| key.digest.as_str()).collect();
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for key in &last.identity.api_keys {
        *left.entry(&key.client).or_default() += 1;
    }
    // The very keys that are in force go first; those of a client that has others now take their places.
    ring.keys.sort_by_key(|key| !known.contains(key.digest.as_str()));
    ring.keys.retain(|key| {
        let had = left.get_mut(key.client.as_str()).filter(|had| **had > 0);
        had.map(|had| *had -= 1).is_some()
    });
    ring.keys.sort_by(|a, b| (&a.client, &a.digest).cmp(&(&b.client, &b.digest)));
    let more = before.saturating_sub(ring.keys.len());
    if more == 0 {
        return Ok(None);
    }
    let message = format!(
        "the plan of the pool has no room for {more} more API keys beside its limits: they do not count"
    );
    ring.problems.push(Problem { path: "spec.identity.apiKeys".to_owned(), message });
    Ok(Some(ring))
}

/// How long the plan is with these limits in place of its own.
fn bytes(plan: &PlanDoc, limits: &[LimitDoc]) -> Result<usize, serde_json::Error> {
    let whole = PlanDoc { limits: limits.to_vec(), sequence: u64::MAX, ..plan.clone() };
    Ok(serde_json::to_vec(&whole)?.len())
}

/// A plan with other keys: those that it has a tier for are in it.
pub fn with_keys(plan: &PlanDoc, ring: &KeyRing) -> PlanDoc {
    let mut plan = plan.clone();
    let known = |tier: &String| plan.tiers.iter().any(|known| known.name == *tier);
    let of = |key: &ApiKeyDoc| ApiKeyDoc { tier: key.tier.clone().filter(known), ..key.clone() };
    let keys: Vec<ApiKeyDoc> = ring.keys.iter().map(of).collect();
    let fits = keys.len() <= plan.identity.api_keys.len();
    let had: Vec<String> = plan.identity.api_keys.iter().map(|key| key.client.clone()).collect();
    // Without a plan of its own there is no telling how much room there is: nobody new comes in.
    plan.identity.api_keys =
        if fits { keys } else { keys.into_iter().filter(|key| had.contains(&key.client)).collect() };
    plan.identity.digest_key.clone_from(&ring.digest_key);
    plan
}

#[cfg(test)]
mod tests {
    use corral_crds::api_keys::MAX_KEY_BYTES;
    use corral_crds::merge::{PolicyInput, PoolInputs, merge};
    use corral_crds::policy::{LabelSelector, Limit, Match, RateLimitPolicySpec};
    use corral_crds::pool::OllamaPoolSpec;
    use corral_wire::TierDoc;

    use super::*;

    fn key(client: &str, digest: u8, tier: Option<&str>) -> ApiKeyDoc {
        let digest = format!("{digest:064x}");
        ApiKeyDoc { digest, client: client.to_owned(), tier: tier.map(str::to_owned) }
    }

    fn ring(keys: Vec<ApiKeyDoc>) -> KeyRing {
        KeyRing { keys, digest_key: Some("new".to_owned()), problems: Vec::new() }
    }

    fn plan(keys: Vec<ApiKeyDoc>) -> PlanDoc {
        let mut plan = PlanDoc::default();
        plan.identity.api_keys = keys;
        plan.identity.digest_key = Some("old".to_owned());
        plan.tiers = vec![TierDoc { name: "gold".to_owned(), scale_milli: 1000, ..TierDoc::default() }];
        plan
    }

    #[test]
    fn a_revoked_key_does_not_live_on_in_the_last_plan() {
        let last = plan(vec![key("alice", 1, Some("gold")), key("bob", 2, None)]);
        let found = with_keys(&last, &ring(vec![key("bob", 3, Some("gold"))]));
        assert_eq!(found.identity.api_keys, [key("bob", 3, Some("gold"))]);
        assert_eq!(found.identity.digest_key.as_deref(), Some("new"));
        assert!(with_keys(&last, &KeyRing::default()).identity.api_keys.is_empty());
    }

    #[test]
    fn the_last_plan_takes_no_tier_that_it_has_not_and_no_more_clients_than_it_had() {
        let last = plan(vec![key("alice", 1, Some("gold"))]);
        let found = with_keys(&last, &ring(vec![key("alice", 1, Some("silver")), key("bob", 2, None)]));
        assert_eq!(found.identity.api_keys, [key("alice", 1, None)]);
    }

    /// A policy whose limits take so many times about 32 KiB of a plan.
    fn large(limits: usize) -> RateLimitPolicySpec {
        let models: Vec<String> = (0..64).map(|n| format!("{}/team/m{n}:1", "h".repeat(330))).collect();
        let limit = |n: usize| Limit {
            name: format!("l{n}"),
            per: vec!["Client".to_owned()],
            requests: Some("60/m".to_owned()),
            matches: Some(Match { models: models.clone(), ..Match::default() }),
            ..Limit::default()
        };
        RateLimitPolicySpec {
            target_selector: Some(LabelSelector::default()),
            limits: (0..limits).map(limit).collect(),
            ..RateLimitPolicySpec::default()
        }
    }

    fn merged(spec: &RateLimitPolicySpec, keys: &KeyRing) -> Merged {
        let pool = OllamaPoolSpec::default();
        let inputs = PoolInputs { namespace: "llm", name: "chat", spec: &pool, keys };
        merge(&inputs, &[PolicyInput { namespace: "llm", name: "p", created: 0, spec }], 1)
    }

    /// So many clients with long names.
    fn many(clients: usize) -> KeyRing {
        let one =
            |n: usize| ApiKeyDoc { digest: format!("{n:064x}"), client: format!("{n:063}"), tier: None };
        ring((0..clients).map(one).collect())
    }

    #[test]
    fn new_keys_push_no_limit_out_and_those_that_are_known_stay() {
        let spec = large(28);
        let before = merged(&spec, &many(100));
        assert!(before.is_clean(), "{:?} {:?}", before.problems, before.policies);
        assert!(keys_that_fit(&before, &before.doc).unwrap().is_none(), "all have room");
        let clients = MAX_KEY_BYTES / 200;
        let after = merged(&spec, &many(clients));
        let fitting = keys_that_fit(&after, &before.doc).unwrap().unwrap();
        assert_eq!(fitting.keys, many(100).keys);
        let told = fitting.problems[0].to_string();
        assert!(told.contains(&format!("no room for {} more API keys", clients - 100)), "{told}");
    }

    #[test]
    fn a_new_key_of_the_pool_changes_every_digest_and_takes_nobody_out() {
        let spec = large(28);
        let before = merged(&spec, &many(600));
        let digests =
            many(600).keys.into_iter().map(|key| ApiKeyDoc { digest: key.digest.replace('0', "f"), ..key });
        let after = merged(&spec, &ring(digests.collect()));
        let kept = keys_that_fit(&after, &before.doc).unwrap().map_or(600, |ring| ring.keys.len());
        assert_eq!(kept, 600);
    }
}
