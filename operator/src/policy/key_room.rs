//! API keys and the room of a plan. Pure.
//!
//! Limits that are in force are not pushed out by new keys, and nothing keeps a revoked key in force. So where a plan would
//! become too large by its keys, no client has more of them than it had; and where there is no new plan at all, the last one
//! goes on with the keys of now.

use std::collections::BTreeMap;

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
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for key in &last.identity.api_keys {
        *left.entry(&key.client).or_default() += 1;
    }
    ring.keys.retain(|key| {
        let had = left.get_mut(key.client.as_str()).filter(|had| **had > 0);
        had.map(|had| *had -= 1).is_some()
    });
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
        plan.tiers = vec![TierDoc { name: "gold".to_owned(), scale_milli: 1000 }];
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
}
