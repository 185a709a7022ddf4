//! What crosses between Corral's operator and its sidecars, and nothing else.
//!
//! The operator and the sidecar know each other only through this crate: a versioned [`PlanDoc`] says what a pod
//! enforces, a [`Directive`] carries it to the pod, a [`Report`] comes back, and [`signature`] makes each of
//! them worth believing. Plain serde: no clock, no network, no Kubernetes.
//!
//! ```text
//! operator ── Signed<Directive> ──▶ sidecar
//! operator ◀── Signed<Report> ──── sidecar
//! operator ── Signed<Duty> ──▶ activator ── Forwarded, a header ──▶ sidecar
//! operator ◀── Signed<Holding> ── activator
//! plan Secret, key plan.v1.json ── kubelet mount ──▶ sidecar
//! ```

pub mod activation;
pub mod api_key;
pub mod exchange;
pub mod forwarded;
pub mod plan;
pub mod ports;
pub mod signature;

pub use activation::{Backend, Duty, Holding};
pub use api_key::KeyDigester;
pub use exchange::{Counters, Directive, Gauges, OffGpu, PlanState, Relief, Report, ServePermission};
pub use forwarded::{Forwarded, NotForwarded, RequestLine};
pub use plan::{
    Action, AdaptiveDoc, Algorithm, ApiKeyDoc, BadKeyPart, CostModel, EndpointClass, EndpointPriorityDoc,
    ExceedDoc, ExemptDoc, HeaderDoc, IdentityDoc, KeyPart, LimitDoc, Mode, Oversize, PLAN_VERSION, PathDoc,
    PlanDoc, PoolRef, PriorityDoc, QueueDoc, RateDoc, ResetDoc, Scope, TierDoc, TokensDoc, Unauthenticated,
};
pub use signature::{BadKey, PoolKeys, Position, Purpose, Signed, VerifyError};
