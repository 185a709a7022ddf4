//! Helm installs Corral, removes it without touching pools and policies, upgrades its definitions, and installs it again.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::{PoolPod, live_on, policy};
use super::scene::Scene;
use super::traffic::{names_limit, one_token};
use crate::cluster::corral::{CRDS, NAMESPACE, RELEASE};
use crate::machine::cache;
use crate::machine::clock::{Stopwatch, seconds};
use crate::machine::command::Cmd;

const POOL: &str = "kept";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 1)?;
    scene.warm_up(&pods)?;
    scene.enforced_policy(&few(2))?;
    removing_it_leaves_pools_policies_and_limits(scene, &pods)?;
    installing_it_again_makes_it_available(scene)?;
    let upgraded = an_upgrade_can_add_a_field(scene);
    // Whatever became of it, the next story finds the chart of this checkout.
    scene.cluster.install_corral()?;
    upgraded?;
    the_pods_are_the_same(scene, &pods)
}

fn few(burst: u32) -> Value {
    let limit =
        json!({ "name": "few", "per": ["Global"], "requests": "1/h", "burst": { "requests": burst } });
    policy("few", POOL, &json!([limit]))
}

fn removing_it_leaves_pools_policies_and_limits(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    scene.cluster.uninstall_corral()?;
    let operator =
        scene.cluster.kubectl(["get", "deployment", RELEASE, "--namespace", NAMESPACE]).attempt()?;
    ensure!(!operator.status.success(), "the operator is still there: {}", operator.tail());
    for definition in CRDS {
        scene.cluster.get(&["customresourcedefinition", definition])?;
    }
    scene.get(&format!("ollamapool/{POOL}"))?;
    scene.get("ratelimitpolicy/few")?;
    the_pods_are_the_same(scene, pods)?;
    let to = pods.first().context("the pool has a pod")?.client_port()?;
    let answers = scene.volley(to, &one_token(), 4)?;
    let refused: Vec<_> = answers.iter().filter(|attempt| attempt.refused()).collect();
    ensure!(refused.len() == 2, "without an operator 2 of 4 are refused, not {}", refused.len());
    refused
        .iter()
        .try_for_each(|attempt| names_limit(&attempt.answer, &format!("{}/few/few", scene.namespace)))
}

fn installing_it_again_makes_it_available(scene: &Scene) -> Result<()> {
    let watch = Stopwatch::start();
    scene.cluster.install_corral_from(&scene.cluster.parts.chart, &scene.namespace)?;
    scene.tell(&format!("helm install --wait took {}", seconds(watch.elapsed())));
    let operator = scene.cluster.get(&["deployment", RELEASE, "--namespace", NAMESPACE])?;
    let conditions = operator.pointer("/status/conditions").and_then(Value::as_array);
    let available =
        |c: &Value| c.get("type") == Some(&json!("Available")) && c.get("status") == Some(&json!("True"));
    ensure!(conditions.into_iter().flatten().any(available), "the operator is not Available: {operator}");
    // Available is not all: it takes over what it finds.
    scene.enforced_policy(&few(3))?;
    it_may_look_nowhere_else(scene)
}

/// Installed for one namespace, it has rights in that one alone.
fn it_may_look_nowhere_else(scene: &Scene) -> Result<()> {
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:{RELEASE}");
    for (namespace, expected) in [(scene.namespace.as_str(), "yes"), ("default", "no")] {
        let ask = ["auth", "can-i", "patch", "deployments.apps", "--namespace", namespace, &account];
        let said = scene.cluster.kubectl(ask).attempt()?.out;
        ensure!(said.trim() == expected, "may it patch Deployments in {namespace}? {}", said.trim());
    }
    Ok(())
}

/// A field that only the newer chart has is refused before the upgrade and kept after it.
fn an_upgrade_can_add_a_field(scene: &Scene) -> Result<()> {
    let mut pool = scene.pool(POOL, 1);
    let spec = pool.pointer_mut("/spec").and_then(Value::as_object_mut).context("a pool has a spec")?;
    spec.insert("addedByUpgrade".to_owned(), json!("kept"));
    let apply = || scene.cluster.kubectl(["apply", "--namespace", &scene.namespace, "--filename", "-"]);
    let refused = apply().input(pool.to_string()).attempt()?;
    ensure!(!refused.status.success(), "a field that is not there is taken: {}", refused.tail());
    let chart = chart_with_another_field(scene)?;
    let upgraded = scene.cluster.install_corral_from(&chart, "*");
    cache::remove(&chart)?;
    upgraded?;
    scene.until("the API server knows the new field", || {
        let applied = apply().input(pool.to_string()).attempt()?;
        Ok(if applied.status.success() { Ok(()) } else { Err(applied.tail()) })
    })?;
    let kept = scene.field(&format!("ollamapool/{POOL}"), "/spec/addedByUpgrade")?;
    ensure!(kept == "kept", "the new field is `{kept}`");
    Ok(())
}

fn chart_with_another_field(scene: &Scene) -> Result<PathBuf> {
    let chart = scene.cluster.instance.path("chart-with-another-field");
    cache::remove(&chart)?;
    Cmd::words(["cp", "-r"]).arg(&scene.cluster.parts.chart).arg(&chart).run()?;
    let file = chart.join("templates/crds/ollamapools.yaml");
    let text = fs::read_to_string(&file)?;
    let line =
        text.lines().find(|line| line.trim() == "podTemplate:").context("the definition has podTemplate")?;
    let indent: String = line.chars().take_while(|c| *c == ' ').collect();
    let field = format!("{indent}addedByUpgrade:\n{indent}  maxLength: 10\n{indent}  type: string\n{line}");
    fs::write(&file, text.replacen(line, &field, 1))?;
    Ok(chart)
}

fn the_pods_are_the_same(scene: &Scene, before: &[PoolPod]) -> Result<()> {
    live_on(before, &scene.pods_of(POOL)?)
}
