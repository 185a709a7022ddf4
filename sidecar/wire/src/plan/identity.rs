//! Whom a request is charged to, and who is charged otherwise than others.

use serde::{Deserialize, Serialize};

use super::PriorityDoc;

/// How the client behind a request is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentityDoc {
    /// CIDRs of proxies whose `X-Forwarded-For` is believed, counted from the right. Empty: the TCP peer is the client.
    pub trusted_proxies: Vec<String>,
    /// The API keys that are known, as digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api_keys: Vec<ApiKeyDoc>,
    /// Names the key that the digests were made with, [`crate::KeyDigester::id`]; none when there are no API keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest_key: Option<String>,
    /// What becomes of a request without a known key.
    #[serde(default, skip_serializing_if = "Unauthenticated::is_allowed")]
    pub unauthenticated: Unauthenticated,
    /// Headers that limits may go by, in lower case: somebody in front of the pool sets them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_headers: Vec<String>,
    /// The header that says how urgent a request is, in lower case: somebody in front of the pool sets it. None: no header
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_header: Option<String>,
}

/// One API key. Several of one client are one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiKeyDoc {
    /// [`crate::KeyDigester::digest`] of the key, 64 lower-case hex digits.
    pub digest: String,
    /// Whose it is, as the person who runs the pool calls it.
    pub client: String,
    /// The tier of the client; none: the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
}

/// What becomes of a request without a known API key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unauthenticated {
    /// It is charged to its address, in the default tier.
    #[default]
    Allow,
    /// It is answered 401.
    Reject,
}

impl Unauthenticated {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
    fn is_allowed(&self) -> bool {
        *self == Self::Allow
    }
}

/// A class of clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TierDoc {
    /// What API keys and limits call it.
    pub name: String,
    /// What rates, bursts and concurrency are multiplied by, in thousandths, in limits that tell clients or tiers apart;
    /// 1 to 1,000,000.
    pub scale_milli: u32,
    /// The share of each of its clients in the queue, against other clients of the same priority; 1 to 1000.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
    /// How urgent the requests of its clients are; none: as their endpoints say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<PriorityDoc>,
    /// `namespace/name` of the policy that gives it a weight or a priority; none where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

impl Default for TierDoc {
    fn default() -> Self {
        Self { name: String::new(), scale_milli: 1000, weight: 1, priority: None, policy: None }
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_one(weight: &u32) -> bool {
    *weight == 1
}

/// Whom some limits do not apply to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExemptDoc {
    /// `namespace/name` of the policy whose limits are meant; none: those of every policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Addresses of clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<String>,
    /// Clients by the names of their API keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<String>,
}
