//! One run: the change, the fault, and time until it is quiet.

use std::time::Duration;

use corral_tests::fake_api::record::{Call, Write};
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::injection::Injection;
use super::workloads::{self, Workload};
use crate::shape::shape;
use crate::world::World;

/// How long nothing must be written.
const QUIET: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_secs(5);
/// Until a pool is there, and its pods have been told to serve.
const FURNISHING: Duration = Duration::from_secs(25);
/// The longest that is waited for anything.
const LONGEST: Duration = Duration::from_mins(20);

/// What came of a run.
pub(crate) struct Run {
    /// Writes that were asked for after the change, without those of Leases.
    pub(crate) writes: u64,
    /// Watch events that were sent after the change.
    pub(crate) events: u64,
    /// Whether the fault came at all.
    pub(crate) hit: bool,
    pub(crate) end: End,
    /// From the change to the last write.
    pub(crate) took: Duration,
    pub(crate) calls: Vec<Call>,
    /// What was written after the change.
    pub(crate) written: Vec<Write>,
}

/// What is there in the end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct End {
    pub(crate) objects: Vec<(String, Value)>,
    /// Of each pod: its address, whether it serves, its D, and its plan.
    pub(crate) pods: Vec<String>,
}

/// Runs a workload on a clock of its own, until it is quiet; with a fault, for as long as its patience lasts or until it
/// is quiet at `wanted`.
pub(crate) fn run(workload: &Workload, injection: Option<(&Injection, &End)>) -> Run {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(play(workload, injection))
}

async fn play(workload: &Workload, injection: Option<(&Injection, &End)>) -> Run {
    let mut cluster = Cluster::new().await;
    if workload.furnished {
        workloads::furnish(&cluster.world);
    }
    cluster.pass(FURNISHING).await;
    let before = cluster.world.api.faults(|faults| faults.counts());
    cluster.world.api.forget();
    if let Some((injection, _)) = injection {
        cluster.world.api.faults(|faults| injection.arm(faults));
    }
    (workload.change)(&cluster.world);
    let took =
        settle(&mut cluster, injection.map(|(injection, wanted)| (injection.patience(), wanted))).await;
    let world = &cluster.world;
    let ((writes, events), hit) = world.api.faults(|faults| (faults.counts(), faults.are_over()));
    let mut written = world.api.writes();
    written.retain(|write| write.resource != "leases");
    Run {
        writes: writes - before.0,
        events: events - before.1,
        hit,
        end: end(world),
        took,
        calls: world.api.calls(),
        written,
    }
}

/// Waits until nothing was written for long; when the last write was.
async fn settle(cluster: &mut Cluster, wanted: Option<(Duration, &End)>) -> Duration {
    let start = Instant::now();
    let (mut seen, mut last) = (cluster.world.writes(), start);
    while last.duration_since(start) < LONGEST {
        cluster.pass(LOOK).await;
        let now = Instant::now();
        if cluster.world.writes() != seen {
            (seen, last) = (cluster.world.writes(), now);
        }
        let quiet = now.duration_since(last) >= QUIET;
        let is_late = wanted.is_none_or(|(patience, _)| now.duration_since(start) > patience + QUIET);
        if quiet && (is_late || wanted.is_some_and(|(_, wanted)| end(&cluster.world) == *wanted)) {
            break;
        }
    }
    last.duration_since(start)
}

fn end(world: &World) -> End {
    let sidecars = world.sidecars.0.lock();
    let mut pods: Vec<String> = sidecars
        .iter()
        .map(|(ip, pod)| {
            let plan = pod.plan.as_ref().map(corral_wire::PlanDoc::digest);
            format!("{ip}: serves {}, D {}, plan {plan:?}", pod.serves(), pod.divisor)
        })
        .collect();
    drop(sidecars);
    pods.sort();
    End { objects: shape(&world.api), pods }
}
