//! An operator that would make pods otherwise than the one before it restarts none, says so, and does it when asked.

use anyhow::{Result, ensure};

use super::pool::{PoolPod, live_on, policy};
use super::scene::Scene;

const POOL: &str = "kept";
/// A sidecar that is nowhere: whoever rolled pods to it would see them fail.
const NEXT: &str = "next";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 2)?;
    let said = it_is_upgraded(scene, &pods);
    // Whatever became of it, the next story finds the operator of this checkout.
    scene.cluster.install_corral()?;
    said?;
    let object = format!("ollamapool/{POOL}");
    scene.until_condition(&object, "UpdateAvailable", "False")?;
    live_on(&pods, &scene.pods_of(POOL)?)?;
    it_rolls_when_asked(scene, &object, &pods)
}

fn it_is_upgraded(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    scene.cluster.upgrade_corral_to_sidecar(NEXT)?;
    let object = format!("ollamapool/{POOL}");
    let said = scene.until_reason(&object, "UpdateAvailable", "True", "UpdateAvailable")?;
    ensure!(
        said.message.contains(&format!(":{NEXT}")),
        "it does not say what would change: {}",
        said.message
    );
    scene.tell(&format!("UpdateAvailable: {}", said.message));
    // It is the new operator that does all of this: a policy still reaches every pod.
    let limits = serde_json::json!([{ "name": "few", "per": ["Client"], "concurrency": 3 }]);
    scene.enforced_policy(&policy("after", POOL, &limits))?;
    live_on(pods, &scene.pods_of(POOL)?)
}

/// A changed spec is one way to ask; what is new is taken with it, one pod after the other.
fn it_rolls_when_asked(scene: &Scene, object: &str, before: &[PoolPod]) -> Result<()> {
    scene.patch(object, &serde_json::json!({ "spec": { "ollama": { "keepAlive": "1h" } } }))?;
    scene.until_replaced(POOL, before, 2).map(drop)
}
