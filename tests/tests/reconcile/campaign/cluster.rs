//! What surrounds the operator: the Deployment controller and kubelets, which make true what a Deployment asks for, and
//! whoever starts a fresh operator when one is dead.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use corral_operator::clock::SystemClock;
use corral_operator::config::Settings;
use corral_operator::exchange::transport::{CallError, Link, Transport};
use corral_operator::run::{Parts, run};
use corral_tests::fake_api::life::Life;
use corral_tests::fake_api::store::Store;
use futures::future::BoxFuture;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::pods::Sidecars;
use crate::world::World;

const POOL: &str = "chat";
/// How often each of them looks.
const STEP: Duration = Duration::from_millis(500);
/// The API server sends bookmarks each minute: what was lost before is then past for good.
const BOOKMARK: u64 = 120;

pub(crate) struct Cluster {
    pub(crate) world: World,
    life: Life,
    operator: JoinHandle<anyhow::Result<()>>,
    started: u32,
    steps: u64,
    /// The pods that run, and the template that each was made from.
    pods: BTreeMap<u64, Value>,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        // The world only looks on.
        world.lease.release().await;
        let life = Life::default();
        let operator = start(&world, &life, 1);
        Self { world, life, operator, started: 1, steps: 0, pods: BTreeMap::new() }
    }

    /// Lets time pass.
    pub(crate) async fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / STEP.as_millis() {
            sleep(STEP).await;
            self.step();
        }
    }

    fn step(&mut self) {
        if self.life.is_over() || self.operator.is_finished() {
            self.operator.abort();
            self.started += 1;
            self.life = Life::default();
            self.operator = start(&self.world, &self.life, self.started);
        }
        self.run_pods();
        self.steps += 1;
        if self.steps.is_multiple_of(BOOKMARK) {
            self.world.api.store(Store::bookmark);
        }
    }

    fn run_pods(&mut self) {
        let deployment = self.world.deployment(POOL).unwrap_or_default();
        let (asked, template) =
            (deployment["spec"]["replicas"].as_u64().unwrap_or(0), &deployment["spec"]["template"]);
        let gone: Vec<u64> = self
            .pods
            .iter()
            .filter(|(nth, of)| **nth > asked || *of != template)
            .map(|(nth, _)| *nth)
            .collect();
        for nth in gone {
            self.pods.remove(&nth);
            self.world.end_pod(&name(nth), &address(nth));
        }
        for nth in (1..=asked).filter(|nth| !self.pods.contains_key(nth)).collect::<Vec<_>>() {
            self.world.start_pod(POOL, &name(nth), &address(nth));
            self.pods.insert(nth, template.clone());
        }
        let seen = &deployment["status"]["observedGeneration"];
        if !deployment.is_null() && *seen != deployment["metadata"]["generation"] {
            self.world.complete(POOL);
        }
    }
}

fn name(nth: u64) -> String {
    format!("{POOL}-{nth}")
}

fn address(nth: u64) -> String {
    format!("10.0.0.{nth}")
}

fn start(world: &World, life: &Life, nth: u32) -> JoinHandle<anyhow::Result<()>> {
    let args = ["corral-operator", "--sidecar-image", "corral/sidecar:1", "--listen", "127.0.0.1:0"];
    let parts = Parts {
        client: world.api.client_of(life),
        clock: SystemClock::shared(),
        transport: Arc::new(Mortal { all: world.sidecars.clone(), life: life.clone() }),
        identity: format!("operator-{nth}"),
    };
    tokio::spawn(run(Settings::parse_from(args), parts, std::future::pending()))
}

/// The way to the pods of a process that may be dead.
#[derive(Debug)]
struct Mortal {
    all: Sidecars,
    life: Life,
}

struct MortalLink {
    link: Box<dyn Link>,
    life: Life,
}

impl Transport for Mortal {
    fn link(&self, ip: IpAddr) -> Box<dyn Link> {
        Box::new(MortalLink { link: self.all.link(ip), life: self.life.clone() })
    }

    fn door(&self, ip: IpAddr) -> Box<dyn Link> {
        Box::new(MortalLink { link: self.all.door(ip), life: self.life.clone() })
    }
}

impl Link for MortalLink {
    fn call(&mut self, body: Bytes) -> BoxFuture<'_, Result<Bytes, CallError>> {
        Box::pin(async move {
            self.life.live_on().await;
            self.link.call(body).await
        })
    }
}
