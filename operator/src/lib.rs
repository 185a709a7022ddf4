//! Corral's controllers: they make the cluster what `OllamaPool` and `RateLimitPolicy` say, and tell how far it is.
//!
//! ```text
//! watch ─▶ observe ─▶ validate ─▶ build ─▶ apply ─▶ status
//!                        (pure)    (pure)
//! exchange ─▶ every pool pod: Directive out, Report back ─▶ divisor (pure), Programmed n/m
//! scaling  ─▶ how many pods, and who goes (pure) ─▶ deletion costs, orders to retire
//! keda     ◀─ a KEDA that asks how much a pool has to do
//! ```
//! Only the leader acts ([`lease`]). Only [`apply`] and [`pool::apply`] change objects other than a status.

pub mod activation;
pub mod admin;
pub mod answer;
pub mod apply;
pub mod backoff;
pub mod broken;
pub mod clock;
pub mod config;
pub mod context;
pub mod controllers;
pub mod drift;
pub mod error;
pub mod events;
pub mod exchange;
pub mod freshness;
pub mod keda;
pub mod key_watches;
pub mod lease;
pub mod listeners;
pub mod listmap;
pub mod metrics;
pub mod names;
pub mod policy;
pub mod pool;
pub mod rbac;
pub mod run;
pub mod scaling;
pub mod scope;
pub mod watches;
