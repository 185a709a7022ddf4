//! The `limiter` container: a native sidecar, so that it starts before Ollama and ends after it.
//!
//! Its startup probe never depends on Ollama, which starts only after it. Its readiness is the pod's.

use corral_crds::IntOrString;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, Lifecycle, LifecycleHandler,
    ObjectFieldSelector, ResourceFieldSelector, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Defaults;
use super::values::{env, mount, probe, quantity, restricted};
use crate::names::{SIDECAR, plan_key};
use crate::pool::validate::ValidPool;

/// Where the plan Secret is mounted.
pub const PLAN_DIR: &str = "/etc/corral/plan";
/// Where the key Secret is mounted.
pub const KEYS_DIR: &str = "/etc/corral/keys";
/// Where the sidecar keeps what must outlive its restart.
pub const STATE_DIR: &str = "/var/lib/corral";
/// The binary in the sidecar's image.
pub const BINARY: &str = "/corral-sidecar";

/// The container.
pub fn container(pool: &ValidPool, defaults: &Defaults) -> Container {
    let image = pool.spec.sidecar.image.as_ref().unwrap_or(&defaults.sidecar_image);
    Container {
        name: SIDECAR.to_owned(),
        image: Some(image.clone()),
        restart_policy: Some("Always".to_owned()),
        args: Some(args(pool)),
        env: Some(identity()),
        ports: Some(ports()),
        resources: Some(resources(pool)),
        startup_probe: Some(probe("/startupz", 1, 60)),
        readiness_probe: Some(probe("/readyz", 2, 1)),
        liveness_probe: Some(probe("/livez", 10, 3)),
        lifecycle: Some(Lifecycle { pre_stop: Some(drain()), ..Lifecycle::default() }),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![
            mount("corral-plan", PLAN_DIR, true),
            mount("corral-keys", KEYS_DIR, true),
            mount("corral-state", STATE_DIR, false),
        ]),
        ..Container::default()
    }
}

/// What the process has to know of its own pod.
pub(super) fn identity() -> Vec<EnvVar> {
    vec![field("CORRAL_POD_NAME", "metadata.name"), field("CORRAL_POD_UID", "metadata.uid"), memory_limit()]
}

/// Where it listens.
pub(super) fn ports() -> Vec<ContainerPort> {
    vec![port("client", corral_wire::ports::CLIENT), port("admin", corral_wire::ports::ADMIN)]
}

fn args(pool: &ValidPool) -> Vec<String> {
    let (spec, plan) = (&pool.spec, plan_key());
    let mut args = vec![
        format!("--pool={}/{}", pool.namespace, pool.name),
        format!("--upstream=http://127.0.0.1:{}", corral_wire::ports::OLLAMA),
        format!("--plan-file={PLAN_DIR}/{plan}"),
        format!("--keys-dir={KEYS_DIR}"),
        format!("--state-dir={STATE_DIR}"),
        format!("--num-parallel={}", spec.ollama.num_parallel),
        format!("--drain-delay={}s", spec.drain.delay_seconds),
        format!("--drain-timeout={}s", spec.drain.timeout_seconds),
    ];
    if spec.gpu.extended_resource().is_some() {
        args.push("--expect-gpu".to_owned());
    }
    args.extend(spec.ollama.max_loaded_models.map(|models| format!("--max-loaded-models={models}")));
    args
}

fn field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { value: None, value_from: Some(source), ..env(name, "") }
}

/// Its own memory limit in bytes, or the node's memory where it has none: it bounds what clients can make it hold.
fn memory_limit() -> EnvVar {
    let resource = ResourceFieldSelector {
        // Not named, it is the container itself. By name, a kubelet takes an init container without a limit for one
        // with a limit of 0, and an old one does not find it.
        container_name: None,
        // Said, not left to the server, so that what is read back is what was written.
        divisor: Some(Quantity("1".to_owned())),
        resource: "limits.memory".to_owned(),
    };
    let source = EnvVarSource { resource_field_ref: Some(resource), ..EnvVarSource::default() };
    EnvVar { value: None, value_from: Some(source), ..env("CORRAL_MEMORY_LIMIT_BYTES", "") }
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn drain() -> LifecycleHandler {
    let command = [BINARY, "drain", "--state-dir", STATE_DIR].map(str::to_owned).to_vec();
    LifecycleHandler { exec: Some(ExecAction { command: Some(command) }), ..LifecycleHandler::default() }
}

fn resources(pool: &ValidPool) -> ResourceRequirements {
    let usual = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), IntOrString::String((*value).to_owned())))
            .collect()
    };
    let (requests, limits) = match &pool.spec.sidecar.resources {
        Some(resources) => (resources.requests.clone(), resources.limits.clone()),
        None => (usual(&[("cpu", "100m"), ("memory", "64Mi")]), usual(&[("memory", "256Mi")])),
    };
    let quantities = |from: std::collections::BTreeMap<String, IntOrString>| {
        let map = from.iter().map(|(name, value)| (name.clone(), quantity(value)));
        Some(map.collect::<std::collections::BTreeMap<_, _>>()).filter(|map| !map.is_empty())
    };
    ResourceRequirements {
        requests: quantities(requests),
        limits: quantities(limits),
        ..ResourceRequirements::default()
    }
}
