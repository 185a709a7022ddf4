//! What the sidecar and the operator say to Prometheus is what Prometheus' own tool accepts, and tells what happened.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::pool::{ADMIN_PORT, policy};
use super::scene::Scene;
use super::traffic::one_token;
use crate::cluster::corral::NAMESPACE;
use crate::machine::command::Cmd;

const OPERATOR_PORT: u16 = 8080;

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool("chat", 1)?;
    scene.warm_up(&pods)?;
    let limit =
        json!([{ "name": "few", "per": ["ClientIP"], "requests": "2/h", "burst": { "requests": 2 } }]);
    scene.enforced_policy(&policy("fair", "chat", &limit))?;
    let pod = pods.first().context("the pool has a pod")?;
    scene.volley(pod.client_port()?, &one_token(), 5)?;
    let refused = scene.decisions(pod, "few", "refused")?;
    ensure!(refused == 3, "of 5 requests the limit refused 3, and the metrics say {refused}");
    promtool_accepts(scene, "sidecar", pod.port(ADMIN_PORT)?)?;
    let operators = scene.pods_with(NAMESPACE, "app.kubernetes.io/component=operator")?;
    let operator = operators.first().context("the operator has a pod")?;
    promtool_accepts(scene, "operator", operator.port(OPERATOR_PORT)?)
}

fn promtool_accepts(scene: &Scene, whose: &str, from: SocketAddr) -> Result<()> {
    let metrics = scene.metrics(from)?;
    let check = Cmd::new(&scene.cluster.parts.promtool).args(["check", "metrics"]).input(metrics.as_str());
    let said = check.attempt()?;
    ensure!(said.status.success(), "promtool refuses the {whose}'s metrics: {}", said.tail());
    let families = metrics.lines().filter(|line| line.starts_with("# TYPE ")).count();
    ensure!(families > 0, "the {whose} has no metrics");
    scene.tell(&format!("promtool accepts the {families} metrics of the {whose}"));
    Ok(())
}
