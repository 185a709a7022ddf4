//! What somebody changes by hand in the objects of a pool is put back, also where server-side apply alone would leave it:
//! a key more in the Service's selector empties the pool, a port more leads past its limits, a container more sits behind
//! them, a pause stops every rollout, a budget of none every node drain. And once all is healed, nothing is written again.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::scene::Scene;

const POOL: &str = "chat";
/// For so long nothing is written once all is well: longer than it takes to do it again.
const QUIET: Duration = Duration::from_secs(5);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    scene.serving_pool(POOL, 1)?;
    let whole = specs(scene)?;
    let more = json!([
        { "name": "http", "port": 11434, "protocol": "TCP", "targetPort": "client" },
        { "name": "admin", "port": 11436, "protocol": "TCP", "targetPort": 11436 },
    ]);
    let opened = json!({ "selector": { "app": "theirs" }, "ports": more, "publishNotReadyAddresses": true });
    scene.patch("service/chat", &json!({ "spec": opened }))?;
    let other = json!({ "maxUnavailable": 0, "selector": { "matchLabels": { "app": "theirs" } } });
    scene.patch("poddisruptionbudget/chat", &json!({ "spec": other }))?;
    until_healed(scene, &whole)?;
    scene.patch("deployment/chat", &json!({ "spec": { "paused": true, "minReadySeconds": 600 } }))?;
    let template =
        json!({ "template": { "spec": { "hostNetwork": true, "nodeSelector": { "nowhere": "x" } } } });
    scene.patch("deployment/chat", &json!({ "spec": template }))?;
    until_healed(scene, &whole)?;
    scene.pool_serves(POOL, 1)?;
    let versions = versions(scene)?;
    std::thread::sleep(QUIET);
    ensure!(self::versions(scene)? == versions, "something is written again and again");
    Ok(())
}

/// What must be as it was, object by object.
fn specs(scene: &Scene) -> Result<Vec<Value>> {
    let of = |object: &str, fields: &[&str]| -> Result<Value> {
        let spec = scene.get(object)?.get("spec").cloned().unwrap_or_default();
        Ok(fields.iter().map(|field| spec.pointer(field).cloned().unwrap_or_default()).collect())
    };
    Ok(vec![
        of("service/chat", &["/selector", "/ports", "/publishNotReadyAddresses"])?,
        of("poddisruptionbudget/chat", &["/selector", "/maxUnavailable"])?,
        of("deployment/chat", &["/paused", "/minReadySeconds", "/template/spec"])?,
    ])
}

fn until_healed(scene: &Scene, whole: &[Value]) -> Result<()> {
    scene.until("what was changed by hand is put back", || {
        let now = specs(scene)?;
        let changed = now.iter().zip(whole).find(|(now, whole)| now != whole);
        Ok(changed.map_or(Ok(()), |(now, _)| Err(format!("still {now}"))))
    })
}

/// What moves with each write of a spec. A status moves whenever pods do.
fn versions(scene: &Scene) -> Result<Vec<String>> {
    let generation = |object: &str| -> Result<String> {
        Ok(scene.get(object)?.pointer("/metadata/generation").map(Value::to_string).unwrap_or_default())
    };
    let service = scene.field("service/chat", "/metadata/resourceVersion")?;
    Ok(vec![service, generation("poddisruptionbudget/chat")?, generation("deployment/chat")?])
}
