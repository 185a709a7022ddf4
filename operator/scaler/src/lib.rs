//! Decides how many pods a pool should have, and which of them go.
//!
//! Pure and synchronous: no clock, no I/O, no Kubernetes. Time is handed in, as what has passed since any fixed moment.
//!
//! ```text
//! reports ─ counters ─▶ what happened ─ rate, service, startup ─▶ λ, S, L ─ need, panic, trend ─▶ N
//!    N ─ size (bounds, descent, idle) ─▶ desired ─ shrink (victims, order) ─▶ replicas, who retires, who is priced
//! ```
//!
//! A pool with one pod of four slots, to which forty requests a second come:
//! ```
//! # use std::time::Duration;
//! # use corral_scaler::{Config, Heard, Observation, Phase, PodSeen, Reason, Scaler};
//! let config = Config { max: 200, slots_per_pod: 4, expected_service: Duration::from_secs(8), ..Config::default() };
//! let mut scaler = Scaler::new(Duration::ZERO);
//! let mut pod = PodSeen { uid: "a".into(), phase: Phase::Running, ready: true, ..PodSeen::default() };
//! let mut desired = Vec::new();
//! for second in 0..=10 {
//!     let mut heard = Heard { at: Duration::from_secs(second), ready: true, ..Heard::default() };
//!     heard.counters.arrivals = 40 * second;
//!     pod.heard = Some(heard);
//!     let seen = Observation { replicas: 1, pods: vec![pod.clone()], ..Observation::default() };
//!     let decision = scaler.decide(&config, &seen, Duration::from_secs(second));
//!     desired.push((decision.desired, decision.reason));
//! }
//! assert_eq!(desired[0], (1, Reason::Steady));
//! // 40 requests a second, of 8 s each, on 4 slots a pod of which three quarters are to be busy: 107 pods.
//! assert!(desired[10].0 >= 96, "{desired:?}");
//! ```

mod config;
mod counters;
mod decision;
mod descent;
mod extremes;
mod idle;
mod load;
mod need;
mod observation;
mod order;
mod panic;
mod range;
mod rate;
mod reports;
mod scaler;
mod service;
mod shrink;
mod size;
mod startup;
mod timeline;
mod trend;
mod victims;

pub use config::{Config, Down, Holder, Preset, Sizing};
pub use decision::{Decision, Limited, Numbers, Reason, VICTIM_COST};
pub use observation::{Heard, Held, Observation, Phase, PodSeen, Scarce, Shortage};
pub use order::deletion_order;
pub use scaler::Scaler;
