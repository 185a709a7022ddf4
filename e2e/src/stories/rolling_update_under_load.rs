//! Three rolling updates and a node drain under twenty streams, in a pool that fills every GPU: no client notices.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::{PoolPod, policy};
use super::scene::Scene;
use super::streams::{Load, Streams, Verdict};
use crate::artifacts::images::OLLAMA;
use crate::cluster::addresses::node_name;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
const PODS: usize = 3;
/// A second name of each image: another image as far as Kubernetes knows.
const NEXT: &str = "next";
/// For all pods of a node to go.
const DRAIN_LIMIT: Duration = Duration::from_mins(2);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = filled_pool(scene)?;
    let limits = json!([{ "name": "many", "per": ["ClientIP"], "concurrency": 500 }]);
    scene.enforced_policy(&policy("many", POOL, &limits))?;
    let load = Load { clients: 20, model: "slow", tokens: 3..=20, limit: Duration::from_mins(1) };
    let streams = scene.streams(scene.service(POOL, 11434)?, &load);
    let pods = three_updates(scene, &streams, pods)?;
    let drained = a_node_is_drained(scene, &streams, pods);
    // Whatever became of it, the next story finds both nodes.
    scene.cluster.kubectl(["uncordon", &node_name(0)]).run()?;
    let pods = drained?;
    let tally = streams.stop()?;
    scene.tell(&tally.to_string());
    tally.is_undisturbed(100)?;
    scene.at_rest(&pods, &["many"])
}

/// Three pods on three GPUs of two nodes: a new one starts only where an old one has gone.
fn filled_pool(scene: &Scene) -> Result<Vec<PoolPod>> {
    scene.models()?;
    scene.gpus(0, 2)?;
    scene.gpus(1, 1)?;
    let fields = json!({
        "ollama": { "numParallel": 4, "contextLength": 2048, "keepAlive": "-1" },
        "drain": { "delaySeconds": 2, "timeoutSeconds": 60 },
    });
    scene.apply(&scene.pool_with(POOL, 3, &fields)?.to_string())?;
    scene.pool_serves(POOL, PODS)
}

fn three_updates(scene: &Scene, streams: &Streams, mut pods: Vec<PoolPod>) -> Result<Vec<PoolPod>> {
    let sidecar = scene.retag(&scene.cluster.own_image("corral-sidecar")?, NEXT)?;
    let updates = [
        ("another sidecar", json!({ "sidecar": { "image": sidecar } })),
        ("another Ollama", json!({ "image": scene.retag(OLLAMA, NEXT)? })),
        (
            "an annotation",
            json!({ "podTemplate": { "metadata": { "annotations": { "corral.test/a": "b" } } } }),
        ),
    ];
    for (what, spec) in updates {
        pods = one_update(scene, streams, (what, &spec), &pods).with_context(|| what.to_owned())?;
    }
    Ok(pods)
}

fn one_update(
    scene: &Scene,
    streams: &Streams,
    (what, spec): (&str, &Value),
    pods: &[PoolPod],
) -> Result<Vec<PoolPod>> {
    scene.patch(&format!("ollamapool/{POOL}"), &json!({ "spec": spec }))?;
    let rolled = scene.until_replaced(POOL, pods, PODS)?;
    let tally = streams.so_far();
    scene.tell(&format!(
        "{what}: rolled out in {}, never fewer than {} of {PODS} ready; {} streams complete so far, {} refused",
        seconds(rolled.took),
        rolled.fewest,
        tally.count(Verdict::Complete),
        tally.count(Verdict::Refused),
    ));
    ensure!(rolled.fewest + 1 >= PODS, "only {} of {PODS} were ready at one time", rolled.fewest);
    tally.is_undisturbed(0)?;
    Ok(rolled.pods)
}

/// The pods of the first node move to the second one, which now has room.
fn a_node_is_drained(scene: &Scene, streams: &Streams, pods: Vec<PoolPod>) -> Result<Vec<PoolPod>> {
    scene.gpus(1, 3)?;
    let (moving, staying): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| pod.node_number() == 0);
    ensure!(!moving.is_empty(), "no pod is on the first node: {staying:?}");
    let watch = Stopwatch::start();
    let drain = scene.cluster.kubectl(["drain", &node_name(0), "--ignore-daemonsets", "--force"]);
    drain.arg("--delete-emptydir-data").limit(DRAIN_LIMIT).run()?;
    let drained = watch.elapsed();
    let moved = scene.until_replaced(POOL, &moving, PODS)?;
    scene.tell(&format!(
        "node drain: {} pods left in {}, all serve elsewhere {} later; {} streams complete so far",
        moving.len(),
        seconds(drained),
        seconds(moved.took),
        streams.so_far().count(Verdict::Complete),
    ));
    ensure!(moved.pods.iter().all(|pod| pod.node_number() == 1), "on the wrong node: {:?}", moved.pods);
    Ok(moved.pods)
}
