//! The operator's namespace is deleted with all in it, and Corral installed again: the pods obey the new leader, and
//! nothing restarts.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::pool::{live_on, policy};
use super::scene::Scene;
use super::traffic::{one_token, sort};
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 2)?;
    scene.warm_up(&pods)?;
    scene.enforced_policy(&few(4))?;
    let before = scene.leader()?;
    scene.cluster.drop_corral_namespace()?;
    scene.cluster.install_corral()?;
    let watch = Stopwatch::start();
    // Nobody but a leader whom the pods obey can bring them a new plan.
    scene.enforced_policy(&few(8))?;
    scene.tell(&format!("a new policy holds {} after the new installation", seconds(watch.elapsed())));
    let after = scene.leader()?;
    ensure!(before != after, "the leader is still {before}");
    for pod in &pods {
        let (served, _) = sort(scene.volley(pod.client_port()?, &one_token(), 8)?)?;
        ensure!(served.len() == 4, "{} admits {} of 8, not its share of 4", pod.name, served.len());
    }
    live_on(&pods, &scene.pool_serves(POOL, pods.len())?)
}

fn few(burst: u32) -> Value {
    let limit =
        json!({ "name": "few", "per": ["ClientIP"], "requests": "1/h", "burst": { "requests": burst } });
    policy("few", POOL, &json!([limit]))
}
