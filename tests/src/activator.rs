//! An activator in process, and the operator that speaks to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use corral_sidecar::activator::run;
use corral_sidecar::config::ActivatorSettings;
use corral_wire::{Backend, Directive, Duty, Holding, PlanDoc, PoolKeys, Position, ServePermission, Signed};
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use crate::client::{Answer, Client};
use crate::pod::{KEY, pool};
use crate::scratch::Scratch;

const UID: &str = "5d1f0a77-activator";

/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running activator; it is gone when this is dropped.
pub struct Activator {
    running: corral_sidecar::run::Running,
    keys: PoolKeys,
    /// Counts what the operator says.
    said: AtomicU64,
    _scratch: Scratch,
}

/// A pod as the operator names it.
pub fn backend(uid: &str, address: SocketAddr, slots: u32) -> Backend {
    Backend { uid: uid.to_owned(), address, slots, free: slots }
}

/// What the operator says of these pods, to be answered at once.
pub fn duty(backends: &[Backend]) -> Duty {
    Duty {
        pool: pool(),
        backends: backends.to_vec(),
        start_left_ms: 0,
        patience_ms: 0,
        wake_above: 0,
        stopped: false,
    }
}

impl Activator {
    /// Starts one with the pool's key; its ports are bound when this returns.
    pub async fn start(change: impl FnOnce(&mut ActivatorSettings)) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let keys_dir = scratch.path().join("keys");
        std::fs::create_dir_all(&keys_dir)?;
        std::fs::write(keys_dir.join("1"), KEY)?;
        let mut settings = ActivatorSettings::usual(&pool(), UID, &keys_dir);
        settings.plan_file = scratch.path().join("plan/plan.v1.json");
        settings.drain.delay = Duration::ZERO;
        change(&mut settings);
        let running = run::start(settings).await?;
        let keys = PoolKeys::new(vec![KEY.to_vec()]).context("the pool's key")?;
        Ok(Self { running, keys, said: AtomicU64::new(0), _scratch: scratch })
    }

    /// A client of its client port.
    pub fn client(&self) -> Client {
        Client::new(self.running.client_address())
    }

    /// A client of its admin port.
    pub fn admin(&self) -> Client {
        Client::new(self.running.admin_address())
    }

    /// The next position of the operator.
    pub fn next(&self) -> Position {
        Position { term: 1, sequence: self.said.fetch_add(1, Ordering::SeqCst) + 1 }
    }

    /// Says something as the operator, and hears what is held.
    pub async fn tell(&self, duty: &Duty) -> anyhow::Result<Holding> {
        let at = self.next();
        let answer = self.send(&self.sign(at, duty)?).await?;
        ensure!(answer.status == StatusCode::OK, "{}: {}", answer.status, answer.text());
        self.open(at, &answer)
    }

    /// A duty at any position.
    pub fn sign(&self, at: Position, duty: &Duty) -> anyhow::Result<Signed> {
        Ok(self.keys.sign(UID, at, duty)?)
    }

    /// Sends any envelope to `/activation`.
    pub async fn send(&self, signed: &Signed) -> anyhow::Result<Answer> {
        self.admin().send(Method::POST, "/activation", serde_json::to_string(signed)?).await
    }

    /// Opens the answer to what stood at `asked`.
    pub fn open(&self, asked: Position, answer: &Answer) -> anyhow::Result<Holding> {
        Ok(self.keys.open(UID, Some(asked), &serde_json::from_slice(&answer.body)?)?)
    }

    /// Says that these pods are ready.
    pub async fn ready(&self, backends: &[Backend]) -> anyhow::Result<Holding> {
        self.tell(&duty(backends)).await
    }

    /// Gives it a plan.
    pub async fn plan(&self, plan: PlanDoc) -> anyhow::Result<()> {
        let directive = Directive {
            pool: pool(),
            plan: Some(plan),
            divisor: 1,
            serve: ServePermission::Granted,
            relief: false,
            retire: false,
        };
        let signed = self.keys.sign(UID, self.next(), &directive)?;
        let answer = self.admin().send(Method::POST, "/exchange", serde_json::to_string(&signed)?).await?;
        ensure!(answer.status == StatusCode::OK, "{}: {}", answer.status, answer.text());
        Ok(())
    }

    /// Waits until so many are held, as a metric says.
    pub async fn held(&self, requests: u32) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let metrics = self.admin().get("/metrics").await?.text();
            let line = metrics.lines().find_map(|line| line.strip_prefix("corral_queue_depth "));
            if line.is_some_and(|depth| depth.trim().parse() == Ok(requests)) {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{requests} are never held, but {line:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Drains it, and waits until it has ended.
    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(self.running.stop().await?)
    }
}
