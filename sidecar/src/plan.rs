//! Where plans come from, and the one place that decides which is in force.
//!
//! ```text
//! mount (Secret) ──┐
//! exchange ────────┼──▶ PlanStore ── compile ──▶ Core      the highest sequence wins
//! files (laptop) ──┘        │
//!                           └──▶ StateDir: what a restarted sidecar must still know
//! ```
//!
//! A plan is taken whole or not at all: one that cannot be read, is for another pool, or does not compile leaves the
//! last good one in force and its error is told. It is never the other way round, that a bad plan opens the door.

pub mod disk;
pub mod files;
pub mod mount;
pub mod read;
pub mod store;

pub use disk::StateDir;
pub use read::PlanError;
pub use store::{Behind, Offered, Orders, PlanStore, StoreView};

/// A core without a plan.
#[cfg(test)]
pub(crate) fn core_for_tests() -> std::sync::Arc<crate::core::Core> {
    use crate::{core, health::Health, metrics::Metrics};
    use std::sync::Arc;
    let settings = core::CoreSettings {
        limiter: corral_limiter::LimiterSettings { hash_key: [7; 16], keys_per_limit: 100 },
        slots: corral_limiter::queue::Slots { per_model: 2, models: 3 },
    };
    Arc::new(core::Core::new(settings, Arc::new(Health::new()), Arc::new(Metrics::new())))
}
