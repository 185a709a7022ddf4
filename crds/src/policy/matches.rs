//! What a limit covers.

use serde::{Deserialize, Serialize};

#[cfg(feature = "kube")]
use crate::{bounds, rules};

/// What a limit covers: a request that fits every part given here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// The endpoint classes, at most 4. Empty: every inference class, but not `Metadata`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_ENDPOINTS), extend("x-kubernetes-list-type" = "set")))]
    pub endpoints: Vec<Endpoint>,
    /// The paths, of the classes in `endpoints`; at most 16. Empty: every path of these classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_PATHS), extend("x-kubernetes-list-type" = "atomic")))]
    pub paths: Vec<PathMatch>,
    /// The models, in any spelling that Ollama takes: `llama3`, `llama3:latest` and `library/llama3` are one model. With `*`
    /// for any run of characters: `llama3*` covers `llama3.2:3b`, `*:70b` every model with that tag; without a tag, a
    /// pattern covers all tags. Empty: every model. At most 64, each of 1 to 512 characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_MODELS), inner(length(min = 1, max = bounds::MAX_MODEL)), extend("x-kubernetes-list-type" = "set")))]
    pub models: Vec<String>,
    /// The tiers, by their names in `tiers` of this policy; at most 16, each of at most 63 characters. Empty: every client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_TIERS), inner(length(min = 1, max = bounds::MAX_LIMIT_NAME)), extend("x-kubernetes-list-type" = "set")))]
    pub tiers: Vec<String>,
    /// Headers that a request must have, all of them; each is one of the pool's `identity.trustedHeaders`. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_HEADERS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub headers: Vec<HeaderMatch>,
    /// Where a client comes from, as CIDRs; at most 64, each of at most 43 characters. Empty: anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::networks"))]
    pub cidrs: Vec<String>,
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

/// Paths of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// How a path compares with `value`.
    #[serde(rename = "type")]
    pub kind: PathType,
    /// The path, or how it begins, such as `/v1`; at most 256 characters.
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_REQUEST_PATH), extend("x-kubernetes-validations" = rules::cel(&[rules::REQUEST_PATH]))))]
    pub value: String,
}

/// How a path compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum PathType {
    /// It is the value.
    Exact,
    /// It begins with the value, whole segments only: `/v1` covers `/v1/messages`, not `/v12`.
    Prefix,
}

/// A header that a request must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Its name, in lower case, at most 64 characters.
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_HEADER_NAME), extend("x-kubernetes-validations" = rules::cel(&[rules::HEADER_NAME]))))]
    pub name: String,
    /// Its value, byte for byte; 1 to 256 characters.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_HEADER_VALUE)))]
    pub value: String,
}
