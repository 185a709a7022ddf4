//! Which policies a plan has no room for: it holds so many limits, in so many bytes. Pure.
//!
//! What is in force stays: a policy that is new or grows pushes no other out. Those that take no more than they have are
//! taken first, then the others in the order in which they are handed in, each whole or not at all.

use std::collections::BTreeMap;

use corral_crds::bounds::MAX_POOL_LIMITS;
use corral_wire::{ExemptDoc, LimitDoc, PlanDoc};

use crate::pool::build::secrets::MAX_PLAN_BYTES;

/// How much of a plan something takes up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    limits: usize,
    bytes: usize,
}

impl Size {
    const WHOLE: Self = Self { limits: MAX_POOL_LIMITS, bytes: MAX_PLAN_BYTES };

    fn plus(self, other: Self) -> Self {
        Self {
            limits: self.limits.saturating_add(other.limits),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            limits: self.limits.saturating_sub(other.limits),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn is_within(self, other: Self) -> bool {
        self.limits <= other.limits && self.bytes <= other.bytes
    }
}

/// One policy, `namespace/name`.
struct Share<'a> {
    policy: &'a str,
    /// What it has in the plan in force.
    held: Vec<&'a LimitDoc>,
    /// What it asks for; what it has, where that is faulty.
    asked: Vec<&'a LimitDoc>,
    /// Whom it exempts from its own limits, as `held` and `asked`.
    exempt: [Vec<&'a ExemptDoc>; 2],
}

/// The policies that there is no room for, and why. `wanted` is the plan with all that the sound ones ask for, `last`
/// the plan in force; `policies` are all of them, the ones to be taken first ahead, and whether each is sound.
pub fn without_room(
    wanted: &PlanDoc,
    last: Option<&PlanDoc>,
    policies: &[(&str, bool)],
) -> Result<BTreeMap<String, String>, serde_json::Error> {
    let mut shares: Vec<Share<'_>> =
        policies.iter().map(|(policy, is_sound)| share(wanted, last, policy, *is_sound)).collect();
    let mut used = frame(wanted)?;
    let mut all = used;
    for share in &shares {
        used = used.plus(share.held()?);
        all = all.plus(share.asked()?);
    }
    let mut refused = BTreeMap::new();
    if all.is_within(Size::WHOLE) {
        return Ok(refused);
    }
    shares.retain(|share| share.asked != share.held || share.exempt[0] != share.exempt[1]);
    let mut steps = Vec::with_capacity(shares.len());
    for share in shares {
        steps.push((share.policy, share.held()?, share.asked()?));
    }
    steps.sort_by_key(|(_, held, asked)| !asked.is_within(*held));
    for (policy, held, asked) in steps {
        let next = used.minus(held).plus(asked);
        if next.is_within(Size::WHOLE) {
            used = next;
        } else {
            refused.insert(policy.to_owned(), why(next));
        }
    }
    Ok(refused)
}

fn share<'a>(wanted: &'a PlanDoc, last: Option<&'a PlanDoc>, policy: &'a str, is_sound: bool) -> Share<'a> {
    let of =
        |plan: &'a PlanDoc| plan.limits.iter().filter(|limit| limit.policy == policy).collect::<Vec<_>>();
    let held = last.map(of).unwrap_or_default();
    let asked = if is_sound { of(wanted) } else { held.clone() };
    let exempt =
        |plan: &'a PlanDoc| plan.exempt.iter().filter(|exempt| exempt.policy.as_deref() == Some(policy));
    let exempted: Vec<&ExemptDoc> = last.into_iter().flat_map(exempt).collect();
    let asked_exempt = if is_sound { exempt(wanted).collect() } else { exempted.clone() };
    Share { policy, held, asked, exempt: [exempted, asked_exempt] }
}

impl Share<'_> {
    fn held(&self) -> Result<Size, serde_json::Error> {
        size(&self.held, &self.exempt[0])
    }

    fn asked(&self) -> Result<Size, serde_json::Error> {
        size(&self.asked, &self.exempt[1])
    }
}

/// The plan without what belongs to one policy, with the longest sequence.
fn frame(plan: &PlanDoc) -> Result<Size, serde_json::Error> {
    let mut frame = PlanDoc { limits: Vec::new(), sequence: u64::MAX, ..plan.clone() };
    frame.exempt.retain(|exempt| exempt.policy.is_none());
    Ok(Size { limits: 0, bytes: serde_json::to_vec(&frame)?.len() })
}

/// Each item has a comma, and the list of exemptions a name.
fn size(limits: &[&LimitDoc], exempt: &[&ExemptDoc]) -> Result<Size, serde_json::Error> {
    let mut size = Size { limits: limits.len(), bytes: limits.len() };
    for limit in limits {
        size.bytes = size.bytes.saturating_add(serde_json::to_vec(limit)?.len());
    }
    for exempt in exempt {
        size.bytes = size.bytes.saturating_add(serde_json::to_vec(exempt)?.len()).saturating_add(16);
    }
    Ok(size)
}

fn why(with_it: Size) -> String {
    if with_it.limits > MAX_POOL_LIMITS {
        return format!(
            "a pool has at most {MAX_POOL_LIMITS} limits, of all its policies together; with this one it would have {}",
            with_it.limits
        );
    }
    format!(
        "with it, the plan of the pool would be larger than {} KiB and not fit its Secret",
        MAX_PLAN_BYTES / 1024
    )
}

#[cfg(test)]
mod tests {
    use corral_wire::{IdentityDoc, KeyPart, Mode, PLAN_VERSION, PoolRef, QueueDoc, Scope};
    use proptest::prelude::*;

    use super::*;

    fn limit(policy: &str, name: usize, models: usize) -> LimitDoc {
        LimitDoc {
            policy: policy.to_owned(),
            name: format!("l{name}"),
            mode: Mode::Enforce,
            endpoints: Vec::new(),
            models: (0..models).map(|place| format!("{place:0500}")).collect(),
            per: vec![KeyPart::Client],
            scope: Scope::Pool,
            requests: None,
            concurrency: Some(1),
            ..LimitDoc::default()
        }
    }

    fn plan(policies: &[(String, usize, usize)]) -> PlanDoc {
        let limits = policies
            .iter()
            .flat_map(|(policy, limits, models)| (0..*limits).map(|name| limit(policy, name, *models)));
        PlanDoc {
            version: PLAN_VERSION,
            pool: PoolRef { namespace: "llm".into(), name: "chat".into() },
            sequence: 1,
            identity: IdentityDoc::default(),
            queue: QueueDoc { max_depth: 64, max_wait_ms: 60_000, ..QueueDoc::default() },
            limits: limits.collect(),
            ..PlanDoc::default()
        }
    }

    fn fits(plan: &PlanDoc) -> bool {
        plan.limits.len() <= MAX_POOL_LIMITS && serde_json::to_vec(plan).unwrap().len() <= MAX_PLAN_BYTES
    }

    fn some_policies() -> impl Strategy<Value = Vec<(String, usize, usize)>> {
        let sizes = proptest::collection::vec((0..=32_usize, 0..=64_usize), 0..14);
        sizes.prop_map(|sizes| {
            let named = sizes.into_iter().enumerate();
            named.map(|(place, (limits, models))| (format!("llm/p{place}"), limits, models)).collect()
        })
    }

    /// What is in the plan in the end.
    fn taken(wanted: &PlanDoc, last: Option<&PlanDoc>, refused: &BTreeMap<String, String>) -> PlanDoc {
        let kept = last.into_iter().flat_map(|last| &last.limits).filter(|l| refused.contains_key(&l.policy));
        let new = wanted.limits.iter().filter(|limit| !refused.contains_key(&limit.policy));
        PlanDoc { limits: new.chain(kept).cloned().collect(), ..wanted.clone() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn what_is_taken_fits_and_nothing_is_refused_without_need(before in some_policies(), after in some_policies()) {
            let all = |policies: &[(String, usize, usize)]| {
                policies.iter().map(|(policy, ..)| policy.clone()).collect::<Vec<_>>()
            };
            let (first, names) = (plan(&before), all(&before));
            let sound: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
            let last = taken(&first, None, &without_room(&first, None, &sound).unwrap());
            prop_assert!(fits(&last));
            let (wanted, names) = (plan(&after), all(&after));
            let sound: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
            let refused = without_room(&wanted, Some(&last), &sound).unwrap();
            prop_assert!(fits(&taken(&wanted, Some(&last), &refused)));
            prop_assert!(refused.is_empty() || !fits(&wanted));
            for policy in refused.keys() {
                let of = |plan: &PlanDoc| plan.limits.iter().filter(|l| l.policy == *policy).cloned().collect::<Vec<_>>();
                prop_assert!(of(&wanted) != of(&last), "{} has not changed", policy);
            }
        }
    }

    #[test]
    fn the_first_are_taken_and_each_is_told_what_is_short() {
        let of = |limits, models| plan(&[("llm/a".into(), 32, 0), ("llm/b".into(), limits, models)]);
        let names = [("llm/a", true), ("llm/b", true)];
        let refused = without_room(&of(225, 0), None, &names).unwrap();
        assert_eq!(refused.keys().collect::<Vec<_>>(), ["llm/b"]);
        assert!(
            refused["llm/b"].contains("at most 256 limits") && refused["llm/b"].ends_with("257"),
            "{refused:?}"
        );
        let refused = without_room(&of(32, 64), None, &names).unwrap();
        assert!(refused["llm/b"].contains("900 KiB"), "{refused:?}");
        assert!(without_room(&of(224, 0), None, &names).unwrap().is_empty());
    }
}
