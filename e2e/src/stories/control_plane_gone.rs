//! The operator is gone, then the API server too: limits hold, also in a sidecar that starts while both are away.

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::pool::{PoolPod, policy};
use super::scene::Scene;
use super::traffic::{names_limit, one_token, sort};
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
    three_at_once_are_admitted(scene, first).context("with the operator gone")?;
    let task = scene.container_id(second, "limiter")?;
    scene.cluster.stop("kube-apiserver")?;
    ensure!(scene.cluster.get(&["nodes"]).is_err(), "the API server still answers");
    refuses(scene, first).context("with the API server gone")?;
    three_at_once_are_admitted(scene, second).context("with the API server gone")?;
    scene.kill_task(second.node_number(), &task)?;
    let watch = Stopwatch::start();
    scene.serves_again(second)?;
    scene.tell(&format!(
        "a killed sidecar serves again {} later, without a control plane",
        seconds(watch.elapsed())
    ));
    three_at_once_are_admitted(scene, second).context("by a sidecar that started without a control plane")
}

/// Each of two pods has 3 of the 6 at once; a sidecar that starts begins with a full bucket.
fn three_at_once_are_admitted(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let (served, refused) = sort(scene.volley(pod.client_port()?, &one_token(), 8)?)?;
    ensure!(served.len() == 3, "{} admits {} of 8, not its share of 3", pod.name, served.len());
    refused
        .iter()
        .try_for_each(|attempt| names_limit(&attempt.answer, &format!("{}/few/few", scene.namespace)))
}

fn refuses(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let answer = scene.http(pod.client_port()?, &one_token())?;
    names_limit(&answer, &format!("{}/few/few", scene.namespace))
}

fn mend(scene: &Scene) -> Result<()> {
    if scene.cluster.missing_components().iter().any(|name| name == "kube-apiserver") {
        scene.cluster.start("kube-apiserver")?;
    }
    scene.api_server_answers()?;
    scene.cluster.uninstall_corral()?;
    scene.cluster.install_corral()
}
