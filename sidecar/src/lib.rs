//! The proxy in front of one Ollama: it enforces the plan, keeps the queue, and tells the operator and the client
//! the truth.
//!
//! ```text
//! client ─ server ─ proxy::{head, route, identify, inspect} ─ proxy::admission ─ proxy::forward ─▶ Ollama
//!                                                                  │
//! plan sources ─ take_plan ─▶ core::Core { limiter, queue } ◀──────┘
//! ```
//!
//! [`activator`] is the same binary in another place: it holds requests while no pod of a pool is ready.
//!
//! [`core`] is the seam: the data path asks it for decisions, the control side hands it plans and reads its gauges.

pub mod activator;
pub mod admin;
pub mod api_keys;
pub mod clients;
pub mod clock;
pub mod config;
pub mod control_socket;
pub mod core;
pub mod exchange;
pub mod explain;
pub mod health;
pub mod metrics;
pub mod plan;
pub mod proxy;
pub mod run;
pub mod selftest;
pub mod server;
pub mod shutdown;
mod tally;
pub mod top;
