//! What a large installation costs the operator: a thousand pods in ten pools that scale themselves, each asked every 2 s, on
//! this machine, against the operator as a process of its own.
//!
//! ```text
//! this process: fake API server ◀── HTTP ── corral-operator (its CPU time and memory are measured)
//!               1000 sidecars   ◀── HTTP ──┘
//! ```
//! After a warm-up the load is as it usually is; then pool after pool is shown a queue, and the time is taken from the report
//! that shows it to the Deployment that asks for more pods. Everything is scripted but the operator: signatures, reports and
//! the API are the real ones. Figures that miss their goals are shown as such; it fails only on what no busy machine can
//! excuse: a write to a pod, or a pod that nobody asked.
//!
//! `cargo build --release -p corral-operator && cargo bench -p corral-tests --bench thousand [-- --short]`

mod bursts;
mod cluster;
mod load;
mod operator;
mod sidecars;
mod table;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use tokio::time::sleep;

use cluster::Cluster;
use operator::{Operator, Usage};
use sidecars::Pod;
use table::{Figures, table};

/// The operator has begun to ask every pod by then, on a machine however busy.
const PATIENCE: Duration = Duration::from_mins(2);

/// How a thousand pods are paid for.
#[derive(Parser)]
struct Arguments {
    /// Less than 40 s in all.
    #[arg(long)]
    short: bool,
    /// Given by `cargo bench`; it changes nothing.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long the parts take.
struct Times {
    warm_up: Duration,
    usual: Duration,
    bursts: Duration,
}

impl Times {
    /// A new leader listens for 10 s before it decides anything.
    fn of(arguments: &Arguments) -> Self {
        let seconds = |short, long| Duration::from_secs(if arguments.short { short } else { long });
        let (warm_up, usual, bursts) = (seconds(13, 30), seconds(12, 40), seconds(10, 20));
        Self { warm_up, usual, bursts }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let times = Times::of(&Arguments::parse());
    let cluster = Cluster::start().await?;
    let mut operator = Operator::start(&cluster.kubeconfig())?;
    let outcome = measure(&cluster, &operator, &times).await;
    operator.ensure_alive()?;
    let figures = outcome?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", table(&figures))?;
    ensure!(figures.pod_writes == 0, "{} writes to pods, where none was to go", figures.pod_writes);
    ensure!(figures.unasked == 0, "{} pods were never asked", figures.unasked);
    Ok(())
}

async fn measure(cluster: &Cluster, operator: &Operator, times: &Times) -> anyhow::Result<Figures> {
    let pods = cluster.populate().await?;
    let status = tokio::spawn(cluster::tell_statuses(cluster.api.clone()));
    all_are_asked(&pods).await?;
    sleep(times.warm_up).await;
    for pod in &pods {
        pod.forget_calls();
    }
    cluster.api.forget();
    let began = operator.usage()?;
    sleep(times.usual).await;
    let usual = operator.usage()?;
    let usual_writes = cluster.api.write_count();
    let bursts = bursts::show(cluster, &pods, times.bursts).await;
    let end = operator.usage()?;
    status.abort();
    Ok(Figures {
        pods: pods.len(),
        usual: Usage::share(&began, &usual),
        bursts: Usage::share(&usual, &end),
        resident_kib: end.resident_kib,
        peak_kib: end.peak_kib,
        decisions: bursts.took.into_iter().collect(),
        unanswered: bursts.unanswered,
        gaps: pods.iter().filter_map(|pod| pod.longest_gap()).collect(),
        unasked: pods.iter().filter(|pod| pod.calls() == 0).count(),
        calls_each_second: calls_each_second(&pods, &began, &end),
        pod_writes: cluster.pod_writes(),
        usual_writes,
    })
}

/// What is measured is how it goes on, not how it begins: that takes as long as the machine needs.
async fn all_are_asked(pods: &[Arc<Pod>]) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let unasked = pods.iter().filter(|pod| pod.calls() == 0).count();
        if unasked == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{unasked} pods were not asked once in {} s", PATIENCE.as_secs());
        sleep(Duration::from_millis(200)).await;
    }
}

fn calls_each_second(pods: &[Arc<Pod>], began: &Usage, end: &Usage) -> f64 {
    let calls: u32 = pods.iter().map(|pod| pod.calls()).sum();
    f64::from(calls) / end.at.saturating_duration_since(began.at).as_secs_f64()
}
