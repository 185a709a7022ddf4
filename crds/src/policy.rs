//! `RateLimitPolicy`: who may use how much of the pools it names.

use serde::{Deserialize, Serialize};

#[cfg(feature = "kube")]
use crate::{bounds, rules};

/// The kind that a target names; there is no other yet.
pub const TARGET_KIND: &str = "OllamaPool";

/// What a policy asks for. Every limit of every policy that names a pool applies to it; a request passes when all of
/// them admit it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
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
pub struct RateLimitPolicySpec {
    /// The pools it applies to, all in its own namespace; 1 to 16. A standalone sidecar whose files hold no pool takes every
    /// policy for its own; where they hold one, it refuses a policy that does not name it.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_TARGETS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"])))]
    pub target_refs: Vec<TargetRef>,
    /// Whether its limits refuse (`Enforce`, the default) or only count what they would refuse (`Shadow`).
    #[serde(default)]
    pub mode: Mode,
    /// Its limits, 1 to 32, each with a name of its own. Their order changes nothing.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_LIMITS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub limits: Vec<Limit>,
}

impl RateLimitPolicySpec {
    /// Whether the policy names this pool of its own namespace. That it means no pool by the name is another matter, of
    /// which [`crate::valid::check_policy`] tells.
    pub fn targets(&self, pool: &str) -> bool {
        self.target_refs.iter().any(|target| target.name == pool)
    }

    /// The names of its pools for one column of a table, the first three of them and how many more there are.
    pub fn targets_in_short(&self) -> String {
        const SHOWN: usize = 3;
        let names: Vec<_> = self.target_refs.iter().take(SHOWN).map(|target| target.name.as_str()).collect();
        match self.target_refs.len().saturating_sub(SHOWN) {
            0 => names.join(","),
            more => format!("{} +{more}", names.join(",")),
        }
    }
}

/// Names a pool in the policy's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::TARGET_KIND, rules::TARGET_GROUP]))))]
pub struct TargetRef {
    /// The API group of the target: `corral.dev`, which is also the default; at most 63 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_TARGET_WORD)))]
    pub group: Option<String>,
    /// The kind of the target: `OllamaPool`; at most 63 characters.
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_TARGET_WORD)))]
    pub kind: String,
    /// The pool's name, 1 to 253 characters.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_NAME)))]
    pub name: String,
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

/// One named limit. It has at least one unit: `requests`, `concurrency` or both; a request passes when each admits it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::ONE_UNIT, rules::BURST_NEEDS_RATE]))))]
pub struct Limit {
    /// Its name, unique in the policy: refusals, headers, metrics and status call it by this. Counters live on by it
    /// when the policy changes. A DNS label of at most 63 characters.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_LIMIT_NAME), extend("x-kubernetes-validations" = rules::cel(&[rules::LIMIT_NAME]))))]
    pub name: String,
    /// What it covers. Without it: every model, on the inference endpoints (`Chat`, `Generate`, `Embed`).
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Match>,
    /// What a separate count is kept for: one count for each distinct combination of these, 1 to 4 of them.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_PER), extend("x-kubernetes-list-type" = "set"), extend("x-kubernetes-validations" = rules::cel(&[rules::GLOBAL_ALONE]))))]
    pub per: Vec<KeyPart>,
    /// Whether its numbers hold for the pool as a whole (`Pool`, the default) or for each pod (`Pod`).
    #[serde(default)]
    pub scope: Scope,
    /// The rate of requests, `<count>/<window>`: `60/m`, `1.5/s`, `2k/6h`, `100/15m`. At most 24 characters.
    ///
    /// It is a bucket that refills steadily and holds `burst.requests`, not a calendar window: `60/m` lets 10 requests
    /// through at one instant, refuses the 11th, and then admits one each second. Any window of length `t` admits at
    /// most burst + rate × t: for `60/m`, 70 in any minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_RATE), extend("x-kubernetes-validations" = rules::cel(&[rules::RATE]))))]
    pub requests: Option<String>,
    /// How many requests may be inside at one time, waiting for Ollama or running in it; 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_CONCURRENCY)))]
    pub concurrency: Option<u32>,
    /// How much may come at one instant, by unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
}

/// What a limit covers: a request that fits every part given here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// The endpoint classes, at most 4. Empty: every inference class, but not `Metadata`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_ENDPOINTS), extend("x-kubernetes-list-type" = "set")))]
    pub endpoints: Vec<Endpoint>,
    /// The models, in any spelling that Ollama takes: `llama3`, `llama3:latest` and `library/llama3` are one model.
    /// Empty: every model. At most 64, each of 1 to 512 characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_MODELS), inner(length(min = 1, max = bounds::MAX_MODEL)), extend("x-kubernetes-list-type" = "set")))]
    pub models: Vec<String>,
}

/// What an endpoint is for, whichever API family it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Endpoint {
    /// `/api/chat`, `/v1/chat/completions`, `/v1/messages`, `/v1/responses`.
    Chat,
    /// `/api/generate`, `/v1/completions`.
    Generate,
    /// `/api/embed`, `/api/embeddings`, `/v1/embeddings`.
    Embed,
    /// What takes no slot: tags, ps, show, version, the list of models, `/` and `/corral/v1/limits`.
    Metadata,
}

/// One part of what a separate count is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum KeyPart {
    /// Who is charged: the API key if one is known, else the client's IP address.
    Client,
    /// The client's IP address; for IPv6 its /64.
    ClientIP,
    /// The model, whichever way it is spelled.
    Model,
    /// The endpoint class, whichever API family is called.
    Endpoint,
    /// Everybody together. It stands alone.
    Global,
}

/// Whom the numbers of a limit are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Scope {
    /// The pool as a whole: each serving pod enforces its share.
    #[default]
    Pool,
    /// Each pod has the whole of it.
    Pod,
}

/// How much may come at one instant, by unit; each member needs the rate of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Burst {
    /// Requests at one instant, 1 to 1,000,000,000. Default: a sixth of the count in `requests`, rounded up
    /// (`1/s` → 1, `60/m` → 10, `3600/h` → 600).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_BURST)))]
    pub requests: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pools: &[&str]) -> RateLimitPolicySpec {
        let target =
            |name: &&str| TargetRef { group: None, kind: TARGET_KIND.to_owned(), name: (*name).to_owned() };
        RateLimitPolicySpec {
            target_refs: pools.iter().map(target).collect(),
            mode: Mode::Enforce,
            limits: Vec::new(),
        }
    }

    #[test]
    fn a_policy_targets_the_pools_it_names() {
        assert!(of(&["a", "b"]).targets("b"));
        assert!(!of(&["a", "b"]).targets("c"));
    }

    #[test]
    fn a_column_shows_three_pools_and_counts_the_rest() {
        assert_eq!(of(&["a", "b", "c"]).targets_in_short(), "a,b,c");
        assert_eq!(of(&["a", "b", "c", "d", "e"]).targets_in_short(), "a,b,c +2");
    }
}
