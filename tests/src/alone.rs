//! A sidecar in a process of its own, and what that process takes.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use http::StatusCode;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::scratch::Scratch;
use crate::sidecar::PolicyFile;

/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A standalone sidecar in front of something that listens somewhere; it is gone when this is dropped.
pub struct Alone {
    process: Child,
    clients: SocketAddr,
    admin: SocketAddr,
    _policy: Scratch,
}

impl Drop for Alone {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Alone {
    /// Starts `binary`, which is `lone_sidecar`, and waits until it is ready.
    pub async fn start(binary: &str, upstream: SocketAddr, policy: &PolicyFile) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let policy = scratch.write("policy.yaml", &policy.yaml())?;
        let mut process = Command::new(binary)
            .arg("--policy")
            .arg(policy)
            .args(["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"])
            .arg(format!("--upstream=http://{upstream}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {binary}"))?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("its output")?).read_line(&mut line)?;
        let (clients, admin) = line.trim().split_once(' ').context("it says where it listens")?;
        let (clients, admin) = (clients.parse()?, admin.parse()?);
        let this = Self { process, clients, admin, _policy: scratch };
        this.ready().await?;
        Ok(this)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while Client::new(self.admin).get("/readyz").await?.status != StatusCode::OK {
            anyhow::ensure!(Instant::now() < until, "it never was ready");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.clients
    }

    /// A client of its client port.
    pub fn client(&self) -> Client {
        Client::new(self.clients)
    }

    /// The sum of all series whose line begins with this, whole numbers all, as `/metrics` has them now.
    pub async fn sum(&self, begin: &str) -> anyhow::Result<usize> {
        let metrics = Client::new(self.admin).get("/metrics").await?.text();
        let lines = metrics.lines().filter(|line| line.starts_with(begin));
        let values: Vec<usize> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        anyhow::ensure!(!values.is_empty(), "no {begin} in:\n{metrics}");
        Ok(values.iter().sum())
    }

    /// Memory that is its own and in use, in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it has a size")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// Time that all its threads have run.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        let mut nanos = 0_u64;
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanos += text.split(' ').next().context("it has run")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }
}
