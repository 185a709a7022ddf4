//! Starts a sidecar and ends it: two listeners, two threads.
//!
//! The data path runs on the caller's runtime; everything else (admin port, prober, plan sources, drain) on a thread of
//! its own, so that no load delays a probe or a new plan.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use corral_limiter::LimiterSettings;
use corral_limiter::queue::Slots;
use corral_wire::{KeyDigester, ports};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::api_keys;
use crate::config::{DrainSettings, HealthSettings, Mode, PodSettings, Policies, Settings};
use crate::core::{Core, CoreSettings};
use crate::exchange::{Exchange, keys};
use crate::health::overload::{self, OverloadSettings};
use crate::health::{Drain, Health, probe};
use crate::metrics::{Metrics, PlanSource};
use crate::plan::files::{self, FileError, PolicyFiles, Standalone};
use crate::plan::{PlanStore, StateDir, mount};
use crate::proxy::ProxySettings;
use crate::shutdown::{drive, reached};
use crate::{control_socket, server};

/// Why a sidecar does not start, or ends before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The policy files are wrong.
    #[error(transparent)]
    Policies(#[from] FileError),
    /// A port is taken, or not ours to take.
    #[error("cannot listen on {address}: {error}{}", hint(*address, error))]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The thread of the control side cannot be started.
    #[error("cannot start the control thread: {0}")]
    Control(io::Error),
    /// There is no randomness to key the limiter's hash with.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// The task that serves clients has ended before its time.
    #[error("clients are no longer served: {0}")]
    Serve(String),
}

/// What a taken port most probably means.
fn hint(address: SocketAddr, error: &io::Error) -> &'static str {
    match (error.kind(), address.port()) {
        (io::ErrorKind::AddrInUse, ports::CLIENT) => {
            "; is Ollama itself on it? Start Ollama with OLLAMA_HOST=127.0.0.1:11435"
        }
        (io::ErrorKind::AddrInUse, _) => {
            "; is another sidecar on it? Choose other ports with --listen and --admin-listen"
        }
        _ => "",
    }
}

/// A sidecar that serves.
pub struct Running {
    pub(crate) core: Arc<Core>,
    pub(crate) clients: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) server: JoinHandle<()>,
    pub(crate) end_server: oneshot::Sender<()>,
    pub(crate) end_control: oneshot::Sender<()>,
    pub(crate) control: thread::JoinHandle<()>,
}

/// Serves until `shutdown` resolves and the drain that it begins is over.
pub async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    start(settings).await?.until(shutdown, std::future::pending()).await
}

/// Starts a sidecar. When this returns both ports are bound.
pub async fn start(settings: Settings) -> Result<Running, RunError> {
    let Prepared { store, source, exchange } = Prepared::from(&settings)?;
    tell_room(&settings);
    let core = Arc::clone(store.core());
    let upstream = settings.proxy.upstream;
    let (listener, clients) = bind(settings.listen).await?;
    let (admin_listener, admin) = bind(settings.admin_listen).await?;
    let control = Control {
        listener: admin_listener.into_std().map_err(RunError::Control)?,
        admin: Arc::new(Admin::new(Arc::clone(&core), exchange, settings.drain)),
        store,
        source,
        ollama: Some(Ollama { address: upstream, health: settings.health, overload: settings.overload }),
        drain: settings.drain,
    };
    let (end_control, control_ended) = oneshot::channel();
    let control = control.spawn(control_ended).map_err(RunError::Control)?;
    let (end_server, server_ended) = oneshot::channel::<()>();
    let serving = server::serve(listener, Arc::clone(&core), settings.proxy, async {
        // A dropped sender ends it too.
        let _ = server_ended.await;
    });
    let server = tokio::spawn(serving);
    info!(listen = %clients, %admin, upstream = %format_args!("http://{upstream}"), version = env!("CARGO_PKG_VERSION"), "serving");
    Ok(Running { core, clients, admin, server, end_server, end_control, control })
}

/// Bodies that must be smaller than usual surprise clients: whoever looks for the reason finds it here.
fn tell_room(settings: &Settings) {
    let ProxySettings { max_body_bytes, body_budget_bytes, max_connections, .. } = settings.proxy;
    let memory_limit_bytes = settings.memory_limit_bytes;
    info!(memory_limit_bytes, max_body_bytes, body_budget_bytes, max_connections, "room for clients");
    let usual = ProxySettings::new(settings.proxy.upstream).max_body_bytes;
    if memory_limit_bytes.is_some() && max_body_bytes == body_budget_bytes && max_body_bytes < usual {
        warn!(
            max_body_bytes,
            "the memory limit is low: request bodies must be smaller than the usual 32 MiB"
        );
    }
}

impl Running {
    /// Where clients connect.
    pub fn client_address(&self) -> SocketAddr {
        self.clients
    }

    /// Where probes, metrics and the exchange are answered.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Limits, queue, health and metrics.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Resolves when the sidecar is ready.
    pub async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.core.health.watch_readiness().wait_for(|readiness| readiness.ready()).await;
    }

    /// Serves until `shutdown`, then drains; `hurry` cuts short whatever still runs.
    pub async fn until(
        mut self,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        tokio::select! {
            ended = &mut self.server => {
                let cause = ended.err().map_or_else(|| "it has ended".to_owned(), |error| error.to_string());
                return Err(RunError::Serve(cause));
            }
            () = shutdown => {}
        }
        let health = Arc::clone(&self.core.health);
        health.begin_drain();
        let end = self.end();
        tokio::pin!(end);
        tokio::select! {
            () = &mut end => return Ok(()),
            () = hurry => {}
        }
        health.cut_running();
        health.drain_over();
        end.await;
        Ok(())
    }

    /// Drains, and ends when the drain is over.
    pub async fn stop(self) -> Result<(), RunError> {
        self.until(std::future::ready(()), std::future::pending()).await
    }

    async fn end(self) {
        reached(&self.core.health, Drain::Over).await;
        // Either may have ended already.
        let _ = self.end_server.send(());
        let _ = self.server.await;
        let _ = self.end_control.send(());
        let _ = tokio::task::spawn_blocking(move || self.control.join()).await;
        info!("ended");
    }
}

/// Where plans will come from once the first is in force.
pub(crate) enum Source {
    /// As in a pod, but for what only one with an Ollama does.
    Mounted {
        plan_file: PathBuf,
        keys_dir: PathBuf,
    },
    Pod(Box<PodSettings>),
    Files(Box<PolicyFiles>),
    Fixed,
}

/// All that can go wrong before a port is bound.
struct Prepared {
    store: Arc<PlanStore>,
    source: Source,
    exchange: Option<Exchange>,
}

impl Prepared {
    fn from(settings: &Settings) -> Result<Self, RunError> {
        match &settings.mode {
            Mode::Pod(pod) => Self::pod(settings, pod),
            Mode::Standalone(policies) => {
                let digester = api_keys::random().map_err(RunError::Random)?;
                let (first, source) = match policies {
                    Policies::Files(paths) => {
                        let (files, first) =
                            PolicyFiles::open(paths.clone(), settings.slots, digester.clone())?;
                        (first, Source::Files(Box::new(files)))
                    }
                    Policies::Text(text) => (files::from_text(text, &digester)?, Source::Fixed),
                };
                Self::standalone(settings, first, source, digester)
            }
        }
    }

    fn pod(settings: &Settings, pod: &PodSettings) -> Result<Self, RunError> {
        info!(pool = ?pod.pool, pod = pod.pod_name, uid = pod.pod_uid, "sidecar of a pool pod");
        let disk = StateDir::new(pod.state_dir.clone(), pod.pod_uid.clone());
        let core = core(settings, None)?;
        core.vouchers.for_pod(&pod.pod_uid);
        keys::recognise(&pod.keys_dir, &core);
        let store = Arc::new(PlanStore::open(core, pod.pool.clone(), Some(disk)));
        let epoch = getrandom::u64().map_err(RunError::Random)?;
        let exchange = Exchange::new(pod.keys_dir.clone(), pod.pod_uid.clone(), Arc::clone(&store), epoch);
        Ok(Self { store, source: Source::Pod(Box::new(pod.clone())), exchange: Some(exchange) })
    }

    fn standalone(
        settings: &Settings,
        first: Standalone,
        source: Source,
        digester: KeyDigester,
    ) -> Result<Self, RunError> {
        let core = core(settings, first.slots_per_model)?;
        core.digesters.replace([digester]);
        let store = Arc::new(PlanStore::open(core, files::own_pool(), None));
        store.offer(Ok(first.doc), NonZeroU32::MIN, PlanSource::File);
        store.serve_untold();
        Ok(Self { store, source, exchange: None })
    }
}

fn core(settings: &Settings, in_file: Option<NonZeroU32>) -> Result<Arc<Core>, RunError> {
    new_core(settings.keys_per_limit, settings.slots.bounds(in_file))
}

/// A core that nobody can foresee the hashes of.
pub(crate) fn new_core(keys_per_limit: usize, slots: Slots) -> Result<Arc<Core>, RunError> {
    let mut hash_key = [0; 16];
    getrandom::fill(&mut hash_key).map_err(RunError::Random)?;
    let settings = CoreSettings { limiter: LimiterSettings { hash_key, keys_per_limit }, slots };
    Ok(Arc::new(Core::new(settings, Arc::new(Health::new()), Arc::new(Metrics::new()))))
}

/// Binds; where there is no IPv6, everybody is everybody on IPv4.
pub(crate) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let listener = match TcpListener::bind(address).await {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            let everybody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            TcpListener::bind(everybody).await
        }
        bound => bound,
    };
    let told = |error| RunError::Listen { address, error };
    let listener = listener.map_err(told)?;
    let bound = listener.local_addr().map_err(told)?;
    Ok((listener, bound))
}

/// Where Ollama is, and how it is judged.
pub(crate) struct Ollama {
    address: SocketAddr,
    health: HealthSettings,
    overload: OverloadSettings,
}

/// Everything that is not the data path.
pub(crate) struct Control {
    pub(crate) listener: std::net::TcpListener,
    pub(crate) admin: Arc<Admin>,
    pub(crate) store: Arc<PlanStore>,
    pub(crate) source: Source,
    /// None where there is none.
    pub(crate) ollama: Option<Ollama>,
    pub(crate) drain: DrainSettings,
}

impl Control {
    pub(crate) fn spawn(self, ended: oneshot::Receiver<()>) -> io::Result<thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(8)
            .thread_keep_alive(Duration::from_mins(1))
            .build()?;
        thread::Builder::new().name("control".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    // A dropped sender ends it too.
                    _ = ended => {}
                    () = self.work() => {}
                }
            });
            // A disk that hangs must not keep the process from ending.
            runtime.shutdown_background();
        })
    }

    async fn work(self) {
        let listener = match TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return warn!(%error, "no admin port"),
        };
        let core = Arc::clone(self.store.core());
        let busy = || {
            let gauges = core.gauges();
            gauges.in_flight.saturating_add(gauges.queued)
        };
        tokio::join!(
            admin::serve(listener, self.admin),
            judge(self.ollama.as_ref(), &core),
            drive(&core.health, self.drain, busy),
            follow(self.source, self.store),
            tell_readiness(&core.health),
        );
    }
}

async fn judge(ollama: Option<&Ollama>, core: &Arc<Core>) {
    let Some(ollama) = ollama else { return };
    tokio::join!(
        probe::watch(ollama.address, ollama.health, Arc::clone(&core.health)),
        overload::watch(Arc::clone(core), ollama.overload),
    );
}

/// Logs each change: it is what a person looks for first.
async fn tell_readiness(health: &Health) {
    let mut readiness = health.watch_readiness();
    loop {
        let now = *readiness.borrow_and_update();
        info!(ready = now.ready(), reason = now.reason.word(), "readiness");
        if readiness.changed().await.is_err() {
            return;
        }
    }
}

async fn follow(source: Source, store: Arc<PlanStore>) {
    match source {
        Source::Fixed => {}
        Source::Files(files) => files::watch(*files, store).await,
        Source::Mounted { plan_file, keys_dir } => {
            let core = Arc::clone(store.core());
            tokio::join!(mount::watch(plan_file, store), keys::watch(keys_dir, core));
        }
        Source::Pod(pod) => {
            let core = Arc::clone(store.core());
            tokio::join!(
                mount::watch(pod.plan_file.clone(), Arc::clone(&store)),
                keys::watch(pod.keys_dir.clone(), Arc::clone(store.core())),
                core.health.watch_retirement(core.clock(), pod.retire_lease),
                serve_when_undirected(store, pod.serve_without_directive),
                control_socket::serve(&pod.state_dir, Arc::clone(&core)),
            );
        }
    }
}

async fn serve_when_undirected(store: Arc<PlanStore>, patience: Duration) {
    let clock = *store.core().clock();
    loop {
        let store = Arc::clone(&store);
        let asked = tokio::task::spawn_blocking(move || store.serve_if_undirected(patience));
        match asked.await {
            Ok(Some(due)) => tokio::time::sleep_until(clock.instant(due)).await,
            Ok(None) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_comes_with_what_to_do() {
        let told = |port, kind: io::ErrorKind| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            RunError::Listen { address, error: kind.into() }.to_string()
        };
        assert!(told(11434, io::ErrorKind::AddrInUse).contains("OLLAMA_HOST=127.0.0.1:11435"));
        assert!(told(11436, io::ErrorKind::AddrInUse).contains("--admin-listen"));
        assert!(told(11434, io::ErrorKind::PermissionDenied).ends_with("permission denied"));
    }
}
