//! Corral's Kubernetes API: `OllamaPool` says what runs, `RateLimitPolicy` says who may use how much.
//!
//! Without features the crate is plain serde structs, which is all that a standalone sidecar needs; the `kube` feature
//! makes them custom resources with schema, rules and status, and `cel` runs the rules in process.
//!
//! A field that nothing reads is not here: it arrives together with its effect.
#![cfg_attr(
    feature = "kube",
    expect(clippy::duplicated_attributes, reason = "every printer column has its own type and path")
)]

pub mod api_keys;
mod blame;
pub mod bounds;
#[cfg(feature = "kube")]
pub mod condition;
#[cfg(feature = "kube")]
pub mod crd;
pub mod effective;
pub mod manifest;
pub mod merge;
pub mod patterns;
pub mod policy;
pub mod pool;
pub mod rules;
#[cfg(feature = "kube")]
mod schema;
#[cfg(feature = "kube")]
pub mod status;
pub mod units;
pub mod valid;
pub mod value;
#[cfg(feature = "kube")]
pub mod yaml;

pub use policy::{Burst, Endpoint, Limit, Match, Mode, Precedence, RateLimitPolicySpec, Scope, TargetRef};
pub use pool::OllamaPoolSpec;
pub use value::IntOrString;
#[cfg(feature = "kube")]
pub use {policy::RateLimitPolicy, pool::OllamaPool};

/// The API group of both kinds.
pub const GROUP: &str = "corral.dev";
/// The API version of both kinds.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of both kinds.
pub const API_VERSION: &str = "corral.dev/v1alpha1";
