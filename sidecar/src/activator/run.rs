//! Starts an activator: the two listeners of a sidecar, without an Ollama behind them.

use std::sync::Arc;

use corral_limiter::queue::Slots;
use tokio::sync::oneshot;
use tracing::info;

use super::Activator;
use super::duty::{Activation, Identity};
use super::hold::{Hold, Ways};
use crate::admin::Admin;
use crate::config::ActivatorSettings;
use crate::exchange::{Exchange, keys};
use crate::health::Sign;
use crate::plan::PlanStore;
use crate::run::{Control, RunError, Running, Source, bind, new_core};
use crate::server;

/// The most clients that one limit tells apart. None is charged here.
const KEYS_PER_LIMIT: usize = 1;

/// Starts an activator. When this returns both ports are bound.
pub async fn start(settings: ActivatorSettings) -> Result<Running, RunError> {
    info!(pool = ?settings.pool, pod = settings.pod_name, uid = settings.pod_uid, "activator of a pool");
    let core = new_core(KEYS_PER_LIMIT, Slots { per_model: 1, models: 1 })?;
    keys::recognise(&settings.keys_dir, &core);
    let hold = Hold::new(settings.hold, *core.clock());
    core.hold(Arc::clone(&hold));
    let store = Arc::new(PlanStore::open(Arc::clone(&core), settings.pool.clone(), None));
    // It has no Ollama that could be down, and is in no D: only the plan is waited for.
    store.serve_untold();
    core.health.saw(Sign::Answer);
    let epoch = getrandom::u64().map_err(RunError::Random)?;
    let (keys_dir, pod_uid) = (settings.keys_dir.clone(), settings.pod_uid.clone());
    let exchange = Exchange::new(keys_dir.clone(), pod_uid.clone(), Arc::clone(&store), epoch);
    let identity = Identity { keys_dir: keys_dir.clone(), pod_uid, pool: settings.pool.clone(), epoch };
    let connect_timeout = settings.proxy.connect_timeout;
    let ways = Ways { connect_timeout, metrics: Arc::clone(&core.metrics) };
    let activation = Activation::new(identity, Arc::clone(&core), Arc::clone(&hold), ways);
    let (listener, clients) = bind(settings.listen).await?;
    let (admin_listener, admin) = bind(settings.admin_listen).await?;
    let control = Control {
        listener: admin_listener.into_std().map_err(RunError::Control)?,
        admin: Arc::new(Admin::new(Arc::clone(&core), Some(exchange), settings.drain).activating(activation)),
        store,
        source: Source::Mounted { plan_file: settings.plan_file, keys_dir },
        ollama: None,
        drain: settings.drain,
    };
    let (end_control, control_ended) = oneshot::channel();
    let control = control.spawn(control_ended).map_err(RunError::Control)?;
    let (end_server, server_ended) = oneshot::channel::<()>();
    let activator = Arc::new(Activator::new(Arc::clone(&core), settings.proxy, hold));
    let server = tokio::spawn(server::serve_with(listener, activator, async {
        // A dropped sender ends it too.
        let _ = server_ended.await;
    }));
    info!(listen = %clients, %admin, version = env!("CARGO_PKG_VERSION"), "holding");
    Ok(Running { core, clients, admin, server, end_server, end_control, control })
}
