//! The life of the process: answer probes, wait for the lead, lead, and end with it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tower::timeout::TimeoutLayer;

use crate::activation::Activations;
use crate::admin::{self, Readiness};
use crate::apply::Writer;
use crate::backoff::Backoff;
use crate::clock::{SharedClock, SystemClock};
use crate::config::Settings;
use crate::context::Context;
use crate::controllers;
use crate::events::Events;
use crate::exchange::{Exchange, transport::Transport};
use crate::keda;
use crate::lease::{Lease, LeaseSettings};
use crate::metrics::Metrics;
use crate::policy::record::Records;
use crate::pool::build::Defaults;
use crate::pool::shortage::Shortages;
use crate::scaling::Scalings;
use crate::scope::Scope;

/// For the head of an answer of the API server: one that hangs must not hold a pool's reconcile up for long. Watches answer
/// at once, and go on for as long as they like.
const API_TIMEOUT: Duration = Duration::from_secs(15);

/// What the process is made of, so that tests can bring their own.
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// The time.
    pub clock: SharedClock,
    /// The way to the pods.
    pub transport: Arc<dyn Transport>,
    /// Unique for the life of the process.
    pub identity: String,
}

impl Parts {
    /// The real ones.
    pub async fn real(settings: &Settings) -> anyhow::Result<Self> {
        let config = Config::infer().await.context("no way to the API server")?;
        let client = ClientBuilder::try_from(config).context("no way to the API server")?;
        let client = client.with_layer(&TimeoutLayer::new(API_TIMEOUT)).build();
        let mut tail = [0_u8; 4];
        getrandom::fill(&mut tail)?;
        Ok(Self {
            client,
            clock: SystemClock::shared(),
            transport: Arc::new(crate::exchange::transport::Network { port: corral_wire::ports::ADMIN }),
            identity: format!("{}_{}", settings.pod_name, hex::encode(tail)),
        })
    }
}

/// Runs until `stop` resolves or the lead is lost. Losing the lead is an error: the process must not go on, and the
/// kubelet starts a fresh one.
pub async fn run(settings: Settings, parts: Parts, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    let (readiness, metrics) = (Arc::new(Readiness::default()), Arc::new(Metrics::new()));
    let probes = tokio::spawn(admin::serve(listener, Arc::clone(&readiness), Arc::clone(&metrics)));
    let lease_settings = LeaseSettings::new(&settings.namespace, &settings.lease, &parts.identity);
    let lease = Arc::new(Lease::new(parts.client.clone(), lease_settings, Arc::clone(&parts.clock)));
    let outcome = tokio::select! {
        () = stop => Ok(()),
        outcome = serve(&settings, &parts, &lease, &readiness, &metrics) => outcome,
    };
    readiness.set(false);
    metrics.leads(false);
    lease.release().await;
    probes.abort();
    outcome
}

async fn serve(
    settings: &Settings,
    parts: &Parts,
    lease: &Arc<Lease>,
    readiness: &Arc<Readiness>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<()> {
    // One that waits for its turn is as ready as it can be: a second replica must not hold up a rollout.
    readiness.set(true);
    tracing::info!(identity = parts.identity, "waiting for the lead");
    lease.acquire().await;
    tracing::info!("leading");
    metrics.leads(true);
    let keda = keda_listener(settings).await?;
    tokio::select! {
        () = lease.keep() => anyhow::bail!("the lead was lost"),
        () = lead(settings, parts, (lease, metrics), keda) => anyhow::bail!("the controllers ended"),
    }
}

/// Where KEDA is answered. Only who leads listens.
async fn keda_listener(settings: &Settings) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = settings.keda_listen else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    listener.map(Some).with_context(|| format!("cannot listen on {address} for KEDA"))
}

async fn lead(
    settings: &Settings,
    parts: &Parts,
    (lease, metrics): (&Arc<Lease>, &Arc<Metrics>),
    keda: Option<TcpListener>,
) {
    let exchange = Exchange::new(Arc::clone(&parts.transport), Arc::clone(lease), Arc::clone(&parts.clock));
    let activations =
        Activations::new(Arc::clone(&parts.transport), Arc::clone(lease), Arc::clone(&parts.clock));
    let events = Events::new(parts.client.clone(), parts.identity.clone());
    let (mut contexts, mut scopes) = (Vec::new(), Vec::new());
    for namespace in settings.scopes() {
        let scope = Scope { client: parts.client.clone(), namespace };
        let watches = controllers::watch(&scope);
        let ctx = Arc::new(Context {
            writer: Writer::new(parts.client.clone(), Arc::clone(lease)),
            stores: watches.stores.clone(),
            exchange: exchange.clone(),
            records: Records::default(),
            shortages: Shortages::default(),
            activations: activations.clone(),
            scalings: Scalings::default(),
            events: events.clone(),
            clock: Arc::clone(&parts.clock),
            defaults: Defaults { sidecar_image: settings.sidecar_image.clone() },
            metrics: Arc::clone(metrics),
            pool_failures: Backoff::default(),
            policy_failures: Backoff::default(),
        });
        contexts.push(Arc::clone(&ctx));
        scopes.push(controllers::run(scope, watches, ctx));
    }
    let told = async {
        if let Some(listener) = keda {
            keda::run(listener, contexts, Arc::clone(lease)).await;
        }
    };
    tokio::join!(join_all(scopes), exchange.run(), told);
}
