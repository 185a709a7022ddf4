//! How the client behind a connection is known.

use serde::{Deserialize, Serialize};

#[cfg(feature = "kube")]
use crate::{bounds, rules};

/// How the client behind a connection is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// CIDRs of the proxies whose `X-Forwarded-For` is believed, counted from the right; at most 64, each of at
    /// most 43 characters. Empty: the peer of the TCP connection is the client, whatever headers it sends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::trusted_networks"))]
    pub trusted_proxies: Vec<String>,
    /// The Secrets with the API keys that are known, all in the pool's namespace; at most 16, with at most 4096 keys in all.
    ///
    /// Each entry of a Secret's `data` is one client: the entry's name is the client's name (1 to 63 letters, digits, `-`,
    /// `_` and `.`), and its value is the client's API key, or two of them, one a line, while one is rotated out. A key has 8
    /// to 512 visible ASCII characters. A key that two clients have counts for neither. Clients send it as
    /// `Authorization: Bearer <key>` or `x-api-key`. What is taken out of a Secret no longer counts within seconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_KEY_SECRETS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["secretName"])))]
    pub api_keys: Vec<ApiKeySecret>,
    /// What becomes of a request without a known API key: `Allow` (the default) charges it to its address, in the default tier;
    /// `Reject` answers 401.
    pub unauthenticated: Unauthenticated,
    /// Headers that limits may go by, such as `x-team`, in lower case: somebody in front of the pool sets them, or every
    /// client may say what it likes. At most 16, each of at most 64 characters. Headers of the connection or of the way of a message,
    /// such as `host` or `x-forwarded-for`, are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::header_names"))]
    pub trusted_headers: Vec<String>,
    /// The header that says how urgent a request is, such as `x-priority`, in lower case, at most 64 characters: its value is
    /// `critical`, `high`, `medium` or `low`, in capitals or not; any other value counts as if the header were not there, and of
    /// several lines the last counts. It goes before what tiers and endpoints say, so somebody in front of the pool has to set
    /// it, or every client may put itself before all others. Refused are the names that `trustedHeaders` refuses. Default: no header
    /// says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_HEADER_NAME), extend("x-kubernetes-validations" = rules::cel(&rules::TRUSTED_HEADER))))]
    pub priority_header: Option<String>,
}

/// A Secret with API keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ApiKeySecret {
    /// The Secret's name, 1 to 253 characters.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_NAME)))]
    pub secret_name: String,
    /// The tier of its clients, as policies of the pool call it; at most 63 characters. Default: the tier of whoever has no
    /// other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_LIMIT_NAME), extend("x-kubernetes-validations" = rules::cel(&[rules::TIER_NAME]))))]
    pub tier: Option<String>,
}

/// What becomes of a request without a known API key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Unauthenticated {
    /// It is charged to its address, in the default tier.
    #[default]
    Allow,
    /// It is answered 401.
    Reject,
}
