//! A sidecar in process, standalone, in front of a scripted Ollama: what tests of the data path start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use corral_sidecar::config::{Policies, Settings};
use corral_sidecar::run;
use http::StatusCode;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::ollama::ScriptedOllama;
use crate::scratch::Scratch;

/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the policy file says.
#[derive(Debug, Clone)]
pub struct PolicyFile {
    limits: String,
    mode: &'static str,
    num_parallel: u32,
    max_depth: u32,
    max_wait_seconds: u32,
    queue: String,
    trusted_proxies: Vec<String>,
    identity: String,
    policy: String,
    documents: String,
}

impl Default for PolicyFile {
    /// One limit that nobody reaches; one slot a model, a queue of 100 and of 30 s, no trusted proxy.
    fn default() -> Self {
        Self {
            limits: "- { name: wide, per: [Client], requests: 100000/s }".to_owned(),
            mode: "Enforce",
            num_parallel: 1,
            max_depth: 100,
            max_wait_seconds: 30,
            queue: String::new(),
            trusted_proxies: Vec::new(),
            identity: String::new(),
            policy: String::new(),
            documents: String::new(),
        }
    }
}

impl PolicyFile {
    /// These limits, as items of a YAML list.
    pub fn limits(items: &[&str]) -> Self {
        let limits: Vec<String> = items.iter().map(|item| format!("- {item}")).collect();
        Self { limits: limits.join("\n"), ..Self::default() }
    }

    /// No limit but the slots.
    pub fn open() -> Self {
        Self::default()
    }

    /// In shadow mode: counts, and refuses nothing.
    #[must_use]
    pub fn shadow(self) -> Self {
        Self { mode: "Shadow", ..self }
    }

    /// With so many slots a model.
    #[must_use]
    pub fn slots(self, num_parallel: u32) -> Self {
        Self { num_parallel, ..self }
    }

    /// With these bounds of the queue.
    #[must_use]
    pub fn queue(self, max_depth: u32, max_wait_seconds: u32) -> Self {
        Self { max_depth, max_wait_seconds, ..self }
    }

    /// With more of the pool's queue, as in `maxDepthPerClient: 2`.
    #[must_use]
    pub fn queue_field(self, field: &str) -> Self {
        Self { queue: format!("{}, {field}", self.queue), ..self }
    }

    /// Believing `X-Forwarded-For` from these networks.
    #[must_use]
    pub fn trusting(self, networks: &[&str]) -> Self {
        Self { trusted_proxies: networks.iter().map(ToString::to_string).collect(), ..self }
    }

    /// With more of the pool's identity, as in `unauthenticated: Reject`.
    #[must_use]
    pub fn identity(self, fields: &str) -> Self {
        Self { identity: format!(", {fields}"), ..self }
    }

    /// With more of the policy, as in `defaultTier: free`.
    #[must_use]
    pub fn policy(self, field: &str) -> Self {
        Self { policy: format!("{}\n  {field}", self.policy), ..self }
    }

    /// With a Secret of API keys; each line of an entry is one.
    #[must_use]
    pub fn keys(self, secret: &str, entries: &[(&str, &str)]) -> Self {
        let data: Vec<String> =
            entries.iter().map(|(client, keys)| format!("  {client}: {keys:?}")).collect();
        let document = format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: {secret} }}\nstringData:\n{}\n",
            data.join("\n")
        );
        Self { documents: self.documents + &document, ..self }
    }

    /// The file.
    pub fn yaml(&self) -> String {
        let limits = self.limits.replace('\n', "\n  ");
        format!(
            "apiVersion: corral.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{ name: fair-use }}
spec:
  mode: {}
  targetRefs: [{{ kind: OllamaPool, name: chat }}]{}
  limits:
  {limits}
---
apiVersion: corral.dev/v1alpha1
kind: OllamaPool
metadata: {{ name: chat }}
spec:
  ollama: {{ numParallel: {} }}
  capacity: {{ queue: {{ maxDepth: {}, maxWaitSeconds: {}{} }} }}
  identity: {{ trustedProxies: {:?}{} }}
{}",
            self.mode,
            self.policy,
            self.num_parallel,
            self.max_depth,
            self.max_wait_seconds,
            self.queue,
            self.trusted_proxies,
            self.identity,
            self.documents
        )
    }
}

/// A sidecar that runs; it ends when this is dropped.
pub struct Running {
    running: run::Running,
}

impl Running {
    /// Starts one with any settings; its ports are bound when this returns.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        Ok(Self { running: run::start(settings).await? })
    }

    /// A client of its client port.
    pub fn client(&self) -> Client {
        Client::new(self.running.client_address())
    }

    /// A client of its admin port.
    pub fn admin(&self) -> Client {
        Client::new(self.running.admin_address())
    }

    /// Waits until `/readyz` answers with this status.
    pub async fn readyz(&self, status: StatusCode) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.admin().get("/readyz").await;
            if answer.as_ref().is_ok_and(|answer| answer.status == status) {
                return Ok(());
            }
            if Instant::now() > until {
                anyhow::bail!("/readyz never said {status}: {answer:?}");
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Drains it, and waits until it has ended.
    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(self.running.stop().await?)
    }
}

/// A standalone sidecar with its policy file.
pub struct Sidecar {
    running: Running,
    policy: PathBuf,
    scratch: Scratch,
}

impl Sidecar {
    /// Starts one with this policy file and waits until it is ready.
    pub async fn start(ollama: &ScriptedOllama, policy: &PolicyFile) -> anyhow::Result<Self> {
        Self::tuned(ollama, policy, |_| ()).await
    }

    /// Starts one with other settings.
    pub async fn tuned(
        ollama: &ScriptedOllama,
        policy: &PolicyFile,
        tune: impl FnOnce(&mut Settings),
    ) -> anyhow::Result<Self> {
        Self::before(ollama.address(), policy, tune).await
    }

    /// Starts one in front of anything that listens there.
    pub async fn before(
        upstream: SocketAddr,
        policy: &PolicyFile,
        tune: impl FnOnce(&mut Settings),
    ) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let policy = scratch.write("policy.yaml", &policy.yaml())?;
        let mut settings = Settings::standalone(Policies::Files(vec![policy.clone()]), upstream);
        settings.health.probe_interval = Duration::from_millis(100);
        tune(&mut settings);
        let running = Running::start(settings).await?;
        running.readyz(StatusCode::OK).await?;
        Ok(Self { running, policy, scratch })
    }

    /// Starts one with any file in place of a policy.
    pub async fn with_file(ollama: &ScriptedOllama, file: &Path) -> anyhow::Result<Running> {
        Running::start(Settings::standalone(Policies::Files(vec![file.to_owned()]), ollama.address())).await
    }

    /// Drains it, and waits until it has ended.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.running.stop().await
    }

    /// A client of its client port.
    pub fn client(&self) -> Client {
        self.running.client()
    }

    /// A client of its admin port.
    pub fn admin(&self) -> Client {
        self.running.admin()
    }

    /// Writes another policy file in place of the one it reads.
    pub fn rewrite(&self, policy: &PolicyFile) -> anyhow::Result<()> {
        self.rewrite_text(&policy.yaml())
    }

    /// Writes any text in place of the policy file.
    pub fn rewrite_text(&self, text: &str) -> anyhow::Result<()> {
        let name = self.policy.file_name().and_then(|name| name.to_str()).context("the policy's name")?;
        self.scratch.write(name, text)?;
        Ok(())
    }

    /// All metrics, as text.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        Ok(self.admin().get("/metrics").await?.text())
    }

    /// Waits until `/readyz` says yes.
    pub async fn ready(&self) -> anyhow::Result<()> {
        self.readyz(StatusCode::OK).await
    }

    /// Waits until `/readyz` answers with this status.
    pub async fn readyz(&self, status: StatusCode) -> anyhow::Result<()> {
        self.running.readyz(status).await
    }
}
