//! `RateLimitPolicy`: who may use how much of the pools it names.

mod clients;
mod exceed;
mod limit;
mod matches;
mod priority;
mod target;

use serde::{Deserialize, Serialize};

pub(crate) use self::exceed::wait_ms;
pub use self::{
    clients::{Exempt, Scale, Tier},
    exceed::{Action, Adaptive, OnExceed, Oversize},
    limit::{Algorithm, Burst, Limit, Scope, WrittenRate},
    matches::{Endpoint, HeaderMatch, Match, PathMatch, PathType},
    priority::{EndpointPriority, Priority},
    target::{LabelRequirement, LabelSelector, SelectorOperator, TARGET_KIND, TargetRef},
};
#[cfg(feature = "kube")]
use crate::{bounds, rules};

/// What a policy asks for. Every limit of every policy that targets a pool applies to it, but for what `precedence` says; a
/// request passes when all of them admit it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource, schemars::JsonSchema))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "corral.dev",
        version = "v1alpha1",
        kind = "RateLimitPolicy",
        plural = "ratelimitpolicies",
        namespaced,
        shortname = "rlp",
        category = "corral",
        status = "crate::status::RateLimitPolicyStatus",
        derive = "PartialEq",
        doc = "Who may use how much of the pools it names: every limit of every policy on a pool applies.",
        printcolumn(name = "Targets", type_ = "string", json_path = ".status.targets"),
        printcolumn(name = "Limits", type_ = "integer", json_path = ".status.limitCount"),
        printcolumn(name = "Priorities", type_ = "string", json_path = ".status.priorities"),
        printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
        printcolumn(name = "Precedence", type_ = "string", json_path = ".spec.precedence", priority = 1),
        printcolumn(
            name = "Accepted",
            type_ = "string",
            json_path = r#".status.conditions[?(@.type=="Accepted")].status"#,
            priority = 1
        ),
        printcolumn(
            name = "Programmed",
            type_ = "string",
            json_path = r#".status.conditions[?(@.type=="Programmed")].status"#
        ),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )
)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::ONE_AIM, rules::TIERS_KNOWN, rules::DEFAULT_TIER_KNOWN]))))]
pub struct RateLimitPolicySpec {
    /// The pools it applies to by name, all in its own namespace; 1 to 16. Either this or `targetSelector`. A standalone sidecar
    /// whose files hold no pool takes every policy for its own; where they hold one, it refuses a policy that does not
    /// target it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_TARGETS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"])))]
    pub target_refs: Option<Vec<TargetRef>>,
    /// The pools it applies to by their labels, all in its own namespace; `{}` selects every one. Either this or `targetRefs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_selector: Option<LabelSelector>,
    /// How it stands to limits of the same name in other policies of a pool. `Normal` (the default): all apply side by side.
    /// `Default`: a limit of it is dropped where a policy that is no default has one of the same name. `Override`: a limit of
    /// it replaces those of the same name in all others. What is in `Shadow` replaces nothing.
    #[serde(default)]
    pub precedence: Precedence,
    /// Whether its limits refuse (`Enforce`, the default) or only count what they would refuse (`Shadow`).
    #[serde(default)]
    pub mode: Mode,
    /// Classes of clients, by name; at most 16. API keys are in the tier that the pool gives their Secret. Where two policies
    /// of a pool have a tier of the same name, that of one counts for all, with its scale, weight and priority: `Override` before `targetRefs` before
    /// `targetSelector` before `Default` before whatever is in `Shadow`, then the older policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_TIERS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub tiers: Vec<Tier>,
    /// The tier of clients that have no other, one of `tiers`; at most 63 characters. Default: they are in no tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_LIMIT_NAME)))]
    pub default_tier: Option<String>,
    /// How urgent requests are by what they ask for, where neither a trusted header nor the tier of their client says so; each
    /// class of endpoints once, at most 3. Default: `medium`. Where two policies of a pool name the same class, one counts, as of
    /// tiers; that of a policy in `Shadow` counts for nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_PRIORITIES), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["endpoint"])))]
    pub endpoint_priorities: Vec<EndpointPriority>,
    /// Whom its limits do not apply to. With `precedence: Override` the limits of all policies of the pool do not apply to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exempt: Option<Exempt>,
    /// Its limits, 1 to 32, each with a name of its own. Their order changes nothing.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_LIMITS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub limits: Vec<Limit>,
}

/// How a policy stands to limits of the same name in others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Precedence {
    /// Its limits give way to those of others.
    Default,
    /// Its limits apply beside those of others.
    #[default]
    Normal,
    /// Its limits replace those of others.
    Override,
}

/// Whether limits refuse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Mode {
    /// They refuse what exceeds them.
    #[default]
    Enforce,
    /// They count what they would refuse, in buckets of their own, and change nothing that a client can see.
    Shadow,
}

/// The labels of a pool.
pub type Labels = std::collections::BTreeMap<String, String>;

impl RateLimitPolicySpec {
    /// Whether the policy targets this pool of its own namespace, by its name or by its labels. That it means no pool by
    /// the name is another matter, of which [`crate::valid::check_policy`] tells.
    pub fn targets(&self, pool: &str, labels: &Labels) -> bool {
        self.names(pool) || self.target_selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// Whether the policy names this pool of its own namespace.
    pub fn names(&self, pool: &str) -> bool {
        self.target_refs.iter().flatten().any(|target| target.name == pool)
    }

    /// Its pools for one column of a table: the names of the first three and how many more there are, or the selector.
    pub fn targets_in_short(&self) -> String {
        const SHOWN: usize = 3;
        if let Some(selector) = &self.target_selector {
            return selector.to_string();
        }
        let all = self.target_refs.as_deref().unwrap_or_default();
        let names: Vec<_> = all.iter().take(SHOWN).map(|target| target.name.as_str()).collect();
        match all.len().saturating_sub(SHOWN) {
            0 => names.join(","),
            more => format!("{} +{more}", names.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pools: &[&str]) -> RateLimitPolicySpec {
        let target =
            |name: &&str| TargetRef { group: None, kind: TARGET_KIND.to_owned(), name: (*name).to_owned() };
        RateLimitPolicySpec {
            target_refs: Some(pools.iter().map(target).collect()),
            ..RateLimitPolicySpec::default()
        }
    }

    fn labelled(labels: &[(&str, &str)]) -> Labels {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_policy_targets_the_pools_it_names() {
        assert!(of(&["a", "b"]).targets("b", &Labels::new()));
        assert!(!of(&["a", "b"]).targets("c", &Labels::new()));
    }

    #[test]
    fn a_policy_targets_the_pools_that_it_selects() {
        let selector =
            LabelSelector { match_labels: labelled(&[("gpu", "big")]), ..LabelSelector::default() };
        let spec = RateLimitPolicySpec { target_selector: Some(selector), ..RateLimitPolicySpec::default() };
        assert!(spec.targets("any", &labelled(&[("gpu", "big"), ("team", "a")])));
        assert!(!spec.targets("any", &labelled(&[("gpu", "small")])));
        assert!(!spec.targets("any", &Labels::new()));
    }

    #[test]
    fn a_column_shows_three_pools_and_counts_the_rest_or_the_selector() {
        assert_eq!(of(&["a", "b", "c"]).targets_in_short(), "a,b,c");
        assert_eq!(of(&["a", "b", "c", "d", "e"]).targets_in_short(), "a,b,c +2");
        let selector =
            LabelSelector { match_labels: labelled(&[("gpu", "big")]), ..LabelSelector::default() };
        let spec = RateLimitPolicySpec { target_selector: Some(selector), ..RateLimitPolicySpec::default() };
        assert_eq!(spec.targets_in_short(), "gpu=big");
    }
}
