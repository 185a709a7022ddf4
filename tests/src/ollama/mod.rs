//! A scripted Ollama on loopback: the behaviours of v0.32.15 that a proxy in front of it must survive.
//!
//! It is pinned to exchanges recorded from a real server (`fixtures/ollama-0.32.15`). It runs no model: it says the
//! alphabet at a settable pace. What it does as the real one does: routing of escaped paths, JSON as Go reads it,
//! spellings of model names, error shapes of the API families, the Host and Origin check, an unbounded FIFO per
//! loaded model, a bounded queue for loads only, connections that leak when their client leaves too early,
//! cancellation on disconnect, and dying in each family's own way. It must not know anything about Corral.
//!
//! ```text
//! connection ─ door ─ route ─ record ─ job ─ scheduler (loader | FIFO) ─ generation ─ voice ─▶ frames
//! ```

mod door;
mod fault;
mod generation;
mod go_fields;
mod go_json;
mod job;
mod metadata;
mod name;
mod record;
mod route;
mod sched;
mod serve;
mod settings;
mod voice;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use fault::Fault;
pub use record::{Arrival, Load, Outcome, Record};
pub use route::Endpoint;
pub use settings::{Gate, ModelSpec, Pace, Settings};

use serve::World;

/// The version that it answers like.
pub const VERSION: &str = "0.32.15";

/// A running server; it is gone when this is dropped.
pub struct ScriptedOllama {
    world: Arc<World>,
    address: SocketAddr,
    server: Option<JoinHandle<()>>,
}

impl ScriptedOllama {
    /// Starts one on a free loopback port.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("bind a loopback port")?;
        let address = listener.local_addr().context("read the bound port")?;
        let world = Arc::new(World::new(settings));
        let server = Some(tokio::spawn(serve::accept(listener, world.clone())));
        Ok(Self { world, address, server })
    }

    /// Starts one with [`Settings::default`].
    pub async fn plain() -> anyhow::Result<Self> {
        Self::start(Settings::default()).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL, without a closing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has happened so far.
    pub fn record(&self) -> &Record {
        &self.world.record
    }

    /// Changes its speed from now on; what runs takes it up at its next token.
    pub fn set_pace(&self, pace: Pace) {
        *self.world.pace.lock() = pace;
    }

    /// From now on its models have so many slots, as if something else took or gave back the rest.
    pub fn set_parallel(&self, parallel: usize) {
        self.world.scheduler.set_parallel(parallel);
    }

    /// From now on every generation waits at this gate before each token and before its end.
    pub fn gate(&self) -> Gate {
        let gate = Gate::shut();
        *self.world.gate.lock() = Some(gate.clone());
        gate
    }

    /// The next request, whatever it asks for, meets a fault; but for questions about models (`/api/show`, `/api/ps`).
    pub fn fault(&self, fault: Fault) {
        self.world.script.add(None, fault);
    }

    /// The next request to one endpoint meets a fault.
    pub fn fault_at(&self, endpoint: Endpoint, fault: Fault) {
        self.world.script.add(Some(endpoint), fault);
    }

    /// Stops its runners, or lets them go on: what runs says nothing more, and what asks for a loaded model waits, while
    /// the server itself answers. The real one starts another runner after twenty seconds.
    pub fn wedge(&self, stopped: bool) {
        self.world.wedge.set(stopped);
    }

    /// Kills it: every connection breaks at once and its port refuses, until [`Self::revive`].
    pub async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            // Being cancelled is what was asked for.
            let _ = server.await;
        }
    }

    /// Starts it again on the port it had, with no model loaded; the record goes on.
    pub async fn revive(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await.context("bind the old port again")?;
        self.world.forget_models();
        self.server = Some(tokio::spawn(serve::accept(listener, self.world.clone())));
        Ok(())
    }
}

impl Drop for ScriptedOllama {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

type SharedPace = Arc<Mutex<Pace>>;
