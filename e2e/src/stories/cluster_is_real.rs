//! The cluster that the other stories stand on is a real one: nodes, GPUs as the scheduler sees them, names, Services.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::scene::Scene;
use crate::artifacts::images::BUSYBOX;
use crate::cluster::addresses::NODES;
use crate::cluster::http::Request;

/// A resource that no other story asks for, so that a full node disturbs nobody.
const RESOURCE: &str = "corral.test/cluster-is-real";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    scene.apply(include_str!("../../manifests/web.yaml"))?;
    both_nodes_are_ready_and_have_gpus(scene)?;
    a_third_pod_waits_for_a_full_node(scene)?;
    a_name_and_a_service_lead_to_the_other_node(scene)
}

fn both_nodes_are_ready_and_have_gpus(scene: &Scene) -> Result<()> {
    let nodes = scene.cluster.get(&["nodes"])?;
    let nodes = nodes.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let usable = |node: &Value| {
        let gpus = node.pointer("/status/allocatable/nvidia.com~1gpu").and_then(Value::as_str);
        let conditions =
            node.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_ready =
            |c: &Value| c.get("type") == Some(&json!("Ready")) && c.get("status") == Some(&json!("True"));
        gpus == Some("4") && conditions.iter().any(is_ready)
    };
    ensure!(
        nodes.len() == NODES && nodes.iter().all(usable),
        "not {NODES} ready nodes with 4 GPUs: {nodes:?}"
    );
    Ok(())
}

fn a_third_pod_waits_for_a_full_node(scene: &Scene) -> Result<()> {
    scene.cluster.set_capacity("node1", RESOURCE, 2)?;
    for name in ["first", "second"] {
        scene.apply(&gpu_pod(name))?;
        scene.pod_is_ready(name)?;
    }
    scene.apply(&gpu_pod("third"))?;
    let reason = scene.until("the scheduler has judged the third pod", || {
        let conditions = scene.get("pod/third")?.pointer("/status/conditions/0").cloned();
        Ok(conditions.ok_or_else(|| "no condition yet".to_owned()))
    })?;
    let message = reason.get("message").and_then(Value::as_str).unwrap_or_default();
    ensure!(message.contains(&format!("Insufficient {RESOURCE}")), "the third pod waits for: {reason}");
    // Room for it, and it runs.
    scene.cluster.kubectl(["delete", "pod", "first", "--namespace", &scene.namespace]).run()?;
    scene.pod_is_ready("third")
}

fn gpu_pod(name: &str) -> String {
    let main = json!({
        "name": "main", "image": BUSYBOX, "args": ["sleep", "3600"], "resources": { "limits": { RESOURCE: 1 } },
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
    });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [main],
        },
    })
    .to_string()
}

fn a_name_and_a_service_lead_to_the_other_node(scene: &Scene) -> Result<()> {
    scene.pod_is_ready("web")?;
    scene.pod_is_ready("client")?;
    let service = scene.service("web", 80)?;
    let name = format!("web.{}.svc.cluster.local", scene.namespace);
    let looked_up = scene.cluster.exec(&scene.namespace, "client", &["nslookup", &name])?;
    ensure!(looked_up.contains(&service.ip().to_string()), "{name} is not {service}: {looked_up}");
    scene.until("the Service answers a pod by its name", || {
        let fetched =
            scene.cluster.exec(&scene.namespace, "client", &["wget", "-qO-", "http://web/hostname"]);
        Ok(match fetched {
            Ok(text) if text == "web" => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })?;
    the_service_answers_the_node(scene, service)
}

fn the_service_answers_the_node(scene: &Scene, service: SocketAddr) -> Result<()> {
    let answer = scene.http(service, &Request::get("/hostname"))?;
    ensure!(answer.status == 200 && answer.text().trim() == "web", "the Service says {answer:?}");
    Ok(())
}
