//! Whose tiers and endpoints say how urgent requests are, where several policies do.

use corral_wire::{EndpointClass, EndpointPriorityDoc, PlanDoc};

use super::form::Form;

/// How many priorities one column shows.
const SHOWN: usize = 6;

/// What a policy says of a tier or an endpoint in vain, for another policy says it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPriority {
    /// Of what, as in `tier premium` or `endpoint Embed`.
    pub of: String,
    /// `namespace/name` of the policy whose word counts.
    pub by: String,
}

/// The priority of each class of endpoints: that of the best policy that says one. What only counts says none.
pub(super) fn of_endpoints(ranked: &[&Form]) -> Vec<EndpointPriorityDoc> {
    let mut found: Vec<EndpointPriorityDoc> = Vec::new();
    for priority in ranked.iter().flat_map(|form| &form.endpoint_priorities) {
        if !found.iter().any(|better| better.endpoint == priority.endpoint) {
            found.push(priority.clone());
        }
    }
    found.sort_by_key(|priority| priority.endpoint);
    found
}

/// What a policy says in vain; `ranked` are all policies, the best first.
pub(super) fn lost(form: &Form, ranked: &[&Form]) -> Vec<LostPriority> {
    let other = |says: &dyn Fn(&Form) -> bool, of: String| {
        let winner = ranked.iter().find(|other| !other.shadow && says(other))?;
        let by = winner.identity.clone();
        (!by.is_empty() && by != form.identity).then_some(LostPriority { of, by })
    };
    let tiers = form.tiers.iter().filter(|tier| tier.policy.is_some()).filter_map(|tier| {
        let says = |other: &Form| other.tiers.iter().any(|theirs| theirs.name == tier.name);
        other(&says, format!("tier {}", tier.name))
    });
    let endpoints = form.endpoint_priorities.iter().filter_map(|own| {
        let says =
            |other: &Form| other.endpoint_priorities.iter().any(|theirs| theirs.endpoint == own.endpoint);
        other(&says, format!("endpoint {}", name(own.endpoint)))
    });
    tiers.chain(endpoints).collect()
}

/// The priorities that are in force because of a policy, `namespace/name`, for one column of a table: as in
/// `premium=high,Embed=low`, the first six and how many more there are. None where there are none.
pub fn priorities_in_short(doc: &PlanDoc, policy: &str) -> Option<String> {
    let tiers = doc.tiers.iter().filter(|tier| tier.policy.as_deref() == Some(policy));
    let tiers = tiers.filter_map(|tier| Some(format!("{}={}", tier.name, tier.priority?.as_str())));
    let endpoints = doc.endpoint_priorities.iter().filter(|priority| priority.policy == policy);
    let endpoints = endpoints.map(|own| format!("{}={}", name(own.endpoint), own.priority.as_str()));
    let all: Vec<String> = tiers.chain(endpoints).collect();
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(SHOWN) {
        0 => (!shown.is_empty()).then_some(shown),
        more => Some(format!("{shown} +{more}")),
    }
}

const fn name(endpoint: EndpointClass) -> &'static str {
    match endpoint {
        EndpointClass::Chat => "Chat",
        EndpointClass::Generate => "Generate",
        EndpointClass::Embed => "Embed",
        EndpointClass::Metadata => "Metadata",
    }
}
