//! Which of several policies has its way on a pool. Pure.
//!
//! A limit's identity is its policy and its name, so limits of the same name stand side by side, with two exceptions: one of
//! a `Default` policy gives way where a policy that is none has a limit of the name, and one of an `Override` policy replaces
//! those of the name in all others. What only counts replaces nothing. Of two that both override, the better rank wins.

use std::collections::BTreeMap;

use corral_wire::{LimitDoc, Mode, PlanDoc, TierDoc};

use super::{
    Fate, LimitOutcome, LostPriority,
    form::Form,
    priorities::{lost, of_endpoints},
};
use crate::{bounds::MAX_POOL_TIERS, policy::Precedence};

/// What became of one policy among others.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) limits: Vec<LimitOutcome>,
    pub(super) lost_priorities: Vec<LostPriority>,
}

/// Puts limits, tiers, priorities and exemptions of all policies into a plan, and says what became of each policy.
pub(super) fn resolve(forms: &[Form], doc: &mut PlanDoc) -> BTreeMap<String, Resolved> {
    let mut ranked: Vec<&Form> = forms.iter().collect();
    ranked.sort_by(|a, b| a.rank.cmp(&b.rank));
    doc.limits.clear();
    let mut outcomes = BTreeMap::new();
    for form in forms {
        let mut of_policy = Vec::with_capacity(form.limits.len());
        for limit in &form.limits {
            let fate = fate(form, limit, &ranked);
            if matches!(fate, Fate::Enforced | Fate::Shadow) {
                doc.limits.push(limit.clone());
            }
            of_policy.push(LimitOutcome { name: limit.name.clone(), fate });
        }
        let resolved = Resolved { limits: of_policy, lost_priorities: lost(form, &ranked) };
        outcomes.insert(form.identity.clone(), resolved);
    }
    doc.limits.sort_by(|a, b| (&a.policy, &a.name).cmp(&(&b.policy, &b.name)));
    clients(&ranked, doc);
    doc.endpoint_priorities = of_endpoints(&ranked);
    outcomes
}

/// What becomes of a limit of a policy; `ranked` are all policies, the best first.
fn fate(form: &Form, limit: &LimitDoc, ranked: &[&Form]) -> Fate {
    let others =
        || ranked.iter().filter(|other| other.identity != form.identity && other.enforces(&limit.name));
    let overriding = others().find(|other| other.precedence == Precedence::Override);
    if let Some(winner) = overriding
        && winner.rank < form.rank
    {
        return Fate::Overridden { by: winner.identity.clone() };
    }
    let instead = others().find(|other| other.precedence != Precedence::Default);
    match instead {
        Some(winner) if form.precedence == Precedence::Default => {
            Fate::Replaced { by: winner.identity.clone() }
        }
        _ if limit.mode == Mode::Shadow => Fate::Shadow,
        _ => Fate::Enforced,
    }
}

/// Tiers by name, the default one, and who is exempt. What only counts changes no tier that others have.
fn clients(ranked: &[&Form], doc: &mut PlanDoc) {
    let (counting, enforcing): (Vec<&Form>, Vec<&Form>) = ranked.iter().partition(|form| form.shadow);
    let mut tiers: BTreeMap<&str, &TierDoc> = BTreeMap::new();
    let mut default_tier = None;
    for form in enforcing.iter().chain(&counting) {
        let known_before =
            default_tier.is_some() || (form.shadow && names(&tiers, form.default_tier.as_deref()));
        if !known_before {
            default_tier.clone_from(&form.default_tier);
        }
        for tier in &form.tiers {
            // One more than a plan has room for is missed by the limits that name it, and so by their author.
            if tiers.len() < MAX_POOL_TIERS || tiers.contains_key(tier.name.as_str()) {
                tiers.entry(&tier.name).or_insert(tier);
            }
        }
    }
    doc.tiers = tiers.values().map(|tier| (*tier).clone()).collect();
    doc.default_tier = default_tier.filter(|tier| tiers.contains_key(tier.as_str()));
    doc.exempt = ranked.iter().flat_map(|form| form.exempt.clone()).collect();
    doc.exempt.sort_by(|a, b| (&a.policy, &a.cidrs, &a.clients).cmp(&(&b.policy, &b.cidrs, &b.clients)));
}

fn names(tiers: &BTreeMap<&str, &TierDoc>, tier: Option<&str>) -> bool {
    tier.is_some_and(|tier| tiers.contains_key(tier))
}
