//! The user's `podTemplate`, merged over what Corral builds, and refused where it would open a way around the limits.
//!
//! Whoever may create pods in the namespace is outside our promise, and so is what a container of their own does. What is
//! checked is that our two containers stay what they are, that nothing else takes their ports, their keys or their
//! namespaces, and that the result is a pod template at all.

use corral_crds::rules::OWNED_ENV;
use k8s_openapi::api::core::v1::{PodTemplateSpec, Volume};
use serde_json::Value;

use crate::listmap;
use crate::names::{self, OLLAMA, SIDECAR};
use crate::pool::validate::ValidPool;

/// Why a `podTemplate` is refused: every fault, with its path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("podTemplate: {}", .0.join("; "))]
pub struct TemplateInvalid(pub Vec<String>);

/// Pod fields that would let others into the pod's namespaces, or end it otherwise than by a drain.
const FORBIDDEN: [&str; 7] = [
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "shareProcessNamespace",
    "ephemeralContainers",
    "restartPolicy",
    "activeDeadlineSeconds",
];
/// What of the pod's security a user may choose: who its processes are, which a storage may ask for.
const CHOOSABLE: [&str; 4] = ["runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy"];
/// What a user may add to the `ollama` container.
const ADDABLE: [&str; 6] = [
    "env",
    "imagePullPolicy",
    "resources",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
];
/// What a user may add to the `limiter` container.
const ADDABLE_TO_SIDECAR: [&str; 1] = ["imagePullPolicy"];

/// The pod template of a pool: what was built, with the user's over it.
pub fn merged(pool: &ValidPool, built: &PodTemplateSpec) -> Result<Value, TemplateInvalid> {
    let unreadable = |error: serde_json::Error| TemplateInvalid(vec![error.to_string()]);
    let built = serde_json::to_value(built).map_err(unreadable)?;
    let Some(theirs) = pool.spec.pod_template.clone().map(Value::Object) else { return Ok(built) };
    let mut merged = built.clone();
    listmap::merge(&mut merged, &theirs);
    let typed: PodTemplateSpec = serde_json::from_value(merged.clone()).map_err(unreadable)?;
    let mut faults = changed(&built, &merged);
    faults.extend(unknown_sections(&theirs));
    faults.extend(forbidden(&theirs));
    faults.extend(added(&built, &merged));
    faults.extend(opened(pool, &typed));
    faults.sort();
    faults.dedup();
    if faults.is_empty() { Ok(merged) } else { Err(TemplateInvalid(faults)) }
}

/// Everything built must still be there as it was, but for what may be chosen.
fn changed(built: &Value, merged: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    listmap::missing(merged, built, &mut |path| {
        let may = matches!(path, [spec, security, field]
            if spec == "spec" && security == "securityContext" && CHOOSABLE.contains(&field.as_str()));
        if !may {
            faults.push(format!("{} is set by Corral", path.join(".")));
        }
    });
    faults
}

fn unknown_sections(theirs: &Value) -> Vec<String> {
    let sections = theirs.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    sections
        .filter(|name| *name != "metadata" && *name != "spec")
        .map(|name| format!("{name} is no part of a pod template"))
        .collect()
}

fn forbidden(theirs: &Value) -> Vec<String> {
    let set = |name: &&&str| {
        let value = theirs.pointer(&format!("/spec/{name}"));
        value.is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)) && value != "Always")
    };
    FORBIDDEN.iter().filter(set).map(|name| format!("spec.{name} is not allowed")).collect()
}

/// What was added to our own containers must be among what may be.
fn added(built: &Value, merged: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let ours = [("containers", OLLAMA, &ADDABLE[..]), ("initContainers", SIDECAR, &ADDABLE_TO_SIDECAR[..])];
    for (list, name, addable) in ours {
        let (Some(built), Some(merged)) = (container(built, list, name), container(merged, list, name))
        else {
            continue;
        };
        listmap::missing_in(list, built, merged, &mut |path| {
            let field = path.first().map_or("", String::as_str);
            if !addable.contains(&field) {
                faults.push(format!("{} of container {name} is set by Corral", path.join(".")));
            }
        });
    }
    faults
}

fn container<'a>(template: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    let all = template.pointer(&format!("/spec/{list}"))?.as_array()?;
    all.iter().find(|container| container.get("name").and_then(Value::as_str) == Some(name))
}

/// What would open a way from outside, whoever added it.
fn opened(pool: &ValidPool, template: &PodTemplateSpec) -> Vec<String> {
    let Some(spec) = &template.spec else { return vec!["spec is missing".to_owned()] };
    let mut faults = Vec::new();
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    for container in containers.clone().filter(|container| container.name != SIDECAR) {
        let name = &container.name;
        for port in container.ports.iter().flatten().filter(|port| is_ours(port.container_port)) {
            faults.push(format!("container {name}: port {} is Corral's", port.container_port));
        }
        for mount in container.volume_mounts.iter().flatten() {
            if mount.name.starts_with("corral-") {
                faults.push(format!("container {name}: volume {} is the sidecar's alone", mount.name));
            }
        }
    }
    for container in containers {
        let ports = container.ports.iter().flatten().filter(|port| port.host_port.is_some());
        faults.extend(ports.map(|_| format!("container {}: host ports are not allowed", container.name)));
        if container.name == OLLAMA {
            let env = container.env.iter().flatten().filter(|var| reserved(pool, &var.name));
            faults.extend(env.map(|var| format!("container {OLLAMA}: {} is not for podTemplate", var.name)));
        }
    }
    let volumes = spec.volumes.iter().flatten().filter(|volume| !volume.name.starts_with("corral-"));
    let keys = volumes.filter(|volume| names_our_secret(pool, volume));
    faults.extend(keys.map(|volume| format!("volume {}: that Secret is the sidecar's alone", volume.name)));
    faults
}

fn is_ours(port: i32) -> bool {
    let ours = [corral_wire::ports::CLIENT, corral_wire::ports::OLLAMA, corral_wire::ports::ADMIN];
    ours.iter().any(|taken| i32::from(*taken) == port)
}

/// A variable that only we may set; what we set ourselves is checked to be unchanged already.
fn reserved(pool: &ValidPool, name: &str) -> bool {
    let built = super::ollama::container(pool);
    let ours = built.env.iter().flatten().any(|var| var.name == name);
    !ours && OWNED_ENV.contains(&name)
}

fn names_our_secret(pool: &ValidPool, volume: &Volume) -> bool {
    let ours = [names::plan_secret(&pool.name), names::key_secret(&pool.name)];
    let direct = volume.secret.iter().filter_map(|secret| secret.secret_name.as_ref());
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let projected = sources.filter_map(|source| source.secret.as_ref()).map(|secret| &secret.name);
    direct.chain(projected).any(|name| ours.contains(name))
}
