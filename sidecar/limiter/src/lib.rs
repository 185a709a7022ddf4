//! Decides what a request may do under a plan of limits, and in which order requests get a slot of Ollama.
//!
//! Pure and synchronous: no clock, no I/O, no thread of its own. Time is handed in as [`Nanos`]; whoever calls puts
//! [`Limiter`] and [`queue::FairQueue`] behind one lock, so that limits and queue decide as one.
//!
//! ```text
//! PlanDoc ── compile ──▶ Plan ── Limiter::swap ──▶ buckets, carried over by key
//!
//! head read ── enter ──▶ Ticket (guards taken, rates looked at) ─┐
//! body read ── commit ─▶ every limit and the queue's arrival check, all or none
//!                          ├─ Err ▶ Refusal: every limit exceeded, and when to come back
//!                          └─ Ok ─▶ finish: settled to what it really cost · abandon: given back as far as it has not leaked
//! ```
//!
//! A limit of two a minute, asked three times at one instant:
//! ```
//! # use std::{net::Ipv4Addr, num::NonZeroU32, sync::Arc};
//! # use corral_limiter::{BodyFacts, CommitError, HeadFacts, Limiter, LimiterSettings, ModelName, Nanos, compile};
//! # use corral_wire::EndpointClass;
//! # let doc = serde_json::from_str(r#"{
//! #   "version": 1, "pool": {"namespace": "llm", "name": "chat"}, "sequence": 1,
//! #   "identity": {"trustedProxies": []}, "queue": {"maxDepth": 9, "maxWaitMs": 1000},
//! #   "limits": [{"policy": "llm/fair-use", "name": "per-client", "mode": "Enforce", "per": ["Client"],
//! #     "scope": "Pool", "requests": {"countMilli": 2000, "windowSeconds": 60, "burst": 2}}]}"#)?;
//! let mut limiter = Limiter::new(LimiterSettings { hash_key: [7; 16], keys_per_limit: 100_000 });
//! limiter.swap(Arc::new(compile(&doc)?), NonZeroU32::MIN, Nanos::ZERO);
//!
//! let head = HeadFacts::new(Ipv4Addr::LOCALHOST.into(), EndpointClass::Chat, "/api/chat");
//! let model = ModelName::parse("tiny")?;
//! let now = Nanos::from_secs(1);
//! for _ in 0..2 {
//!     let mut ticket = limiter.enter(&head, now).expect("the burst is two");
//!     let queued = limiter.commit(&mut ticket, &BodyFacts { model: Some(&model), ..BodyFacts::default() }, now, |_| Ok::<_, ()>("started"));
//!     assert_eq!(queued, Ok("started"));
//!     limiter.finish(ticket, None, now);
//! }
//! let refusal = limiter.enter(&head, now).expect_err("a third is too many");
//! assert_eq!(refusal.retry.wait, Nanos::from_secs(30));
//! let exceeded = &refusal.violations[0];
//! assert_eq!(exceeded.limit.to_string(), "llm/fair-use/per-client");
//! assert_eq!((exceeded.used, exceeded.allowed), (2, 2));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::float_arithmetic)
)]

pub mod adaptive;
pub mod algo;
pub mod calendar;
mod decision;
pub mod handoff;
mod judge;
mod key;
mod limiter;
mod meter;
mod model_name;
mod network;
mod pattern;
mod plan;
pub mod queue;
mod reserve;
mod standing;
mod state;
mod store;
mod time;
mod timeline;

pub use decision::{Oversized, Refusal, Retry, Unit, Violation};
pub use limiter::{Explained, LimitStats, Limiter, LimiterSettings, Place, SwapSummary, UnitStats, Would};
pub use model_name::{BadModelName, ModelName};
pub use network::network;
pub use pattern::{BadPattern, Pattern};
pub use plan::{
    BUILT_IN_POLICY, Bound, CompileError, CompileErrors, Limit, LimitInfo, Mismatch, Plan, Rate, compile,
};
pub use queue::QueueBounds;
pub use reserve::{Blocked, BodyFacts, BucketId, CommitError, HeadFacts, KnownClient, Terms, Ticket, Usage};
pub use standing::Standing;
pub use time::Nanos;
