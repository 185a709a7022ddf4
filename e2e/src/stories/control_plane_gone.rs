//! The operator is gone, then the API server too: limits hold, also in a sidecar that starts while both are away.

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::pool::{PoolPod, policy};
use super::scene::Scene;
use super::traffic::one_token;
use crate::cluster::corral::{NAMESPACE, RELEASE};
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 2)?;
    scene.warm_up(&pods)?;
    let limits =
        json!([{ "name": "few", "per": ["ClientIP"], "requests": "6/h", "burst": { "requests": 6 } }]);
    scene.enforced_policy(&policy("few", POOL, &limits))?;
    let [first, second] = pods.as_slice() else { bail!("two pods, not {}", pods.len()) };
    let held = without_a_control_plane(scene, first, second);
    // Whatever became of it, the next story finds a whole cluster.
    mend(scene)?;
    held?;
    scene.until_condition("ratelimitpolicy/few", "Programmed", "True")?;
    scene.pool_serves(POOL, 2).map(drop)
}

fn without_a_control_plane(scene: &Scene, first: &PoolPod, second: &PoolPod) -> Result<()> {
    let remove = ["delete", "deployment", RELEASE, "--namespace", NAMESPACE, "--wait"];
    scene.cluster.kubectl(remove).run()?;
    scene.admits_three(first, &one_token(), 8).context("with the operator gone")?;
    let task = scene.container_id(second, "limiter")?;
    scene.cluster.stop("kube-apiserver")?;
    ensure!(scene.cluster.get(&["nodes"]).is_err(), "the API server still answers");
    scene.refuses(first, &one_token()).context("with the API server gone")?;
    scene.admits_three(second, &one_token(), 8).context("with the API server gone")?;
    scene.kill_task(second.node_number(), &task)?;
    let watch = Stopwatch::start();
    scene.serves_again(second)?;
    scene.tell(&format!(
        "a killed sidecar serves again {} later, without a control plane",
        seconds(watch.elapsed())
    ));
    scene.admits_three(second, &one_token(), 8).context("by a sidecar that started without a control plane")
}

fn mend(scene: &Scene) -> Result<()> {
    scene.mend_the_control_plane()?;
    scene.cluster.uninstall_corral()?;
    scene.cluster.install_corral()
}
