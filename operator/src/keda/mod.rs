//! KEDA's external scaler: what the operator knows of its pools, told to a KEDA that scales them, or something else, by it.
//!
//! ```text
//! ScaledObject ─▶ metadata ─▶ Wanted ─┐
//! exchange, sizes ─▶ pools ─▶ Numbers ┴─▶ measure ─▶ IsActive, GetMetricSpec, GetMetrics   (all from memory)
//! ```
//! gRPC on a port of its own, where `--keda-listen` names one. Only the leader opens it, for nobody else hears of the pods: a
//! replica that waits refuses the connection, and KEDA's client, which keeps one to each address of the headless Service,
//! asks the one that answers. [`externalscaler`] is made from `operator/proto/externalscaler.proto`.

pub mod measure;
pub mod metadata;
pub mod pools;
pub mod scaler;
pub mod server;
pub mod source;
mod watcher;

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::context::Context;
use crate::lease::Lease;
use pools::Pools;

/// KEDA's interface. The client is for tests.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; operator/tests/keda_interface.rs compares it with its source, and writes it anew"
)]
pub mod externalscaler {
    include!("externalscaler.rs");
}

/// Answers on `listener` for as long as it is polled, once the pools of every scope have been seen.
pub async fn run(listener: TcpListener, scopes: Vec<Arc<Context>>, lease: Arc<Lease>) {
    for scope in &scopes {
        scope.stores.ready().await;
    }
    server::serve(listener, Arc::new(Pools::new(scopes, lease))).await;
}
