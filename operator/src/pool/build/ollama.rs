//! The `ollama` container: on loopback only, probed through the sidecar, held open while the sidecar drains.

use std::collections::BTreeMap;

use corral_crds::pool::{GpuVendor, KvCacheType, Ollama, Storage};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, Lifecycle, LifecycleHandler, Probe, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::values::{env, http_get, mount, probe, restricted};
use crate::names::OLLAMA;
use crate::pool::validate::ValidPool;

/// Where models lie.
pub const MODELS_DIR: &str = "/models";
/// Ollama's home: its keys and histories, gone with the pod.
pub const HOME_DIR: &str = "/home/ollama";

/// The container.
pub fn container(pool: &ValidPool) -> Container {
    let spec = &pool.spec;
    Container {
        name: OLLAMA.to_owned(),
        image: Some(spec.ollama_image().to_owned()),
        env: Some(environment(pool)),
        resources: Some(resources(pool)),
        liveness_probe: Some(liveness()),
        lifecycle: Some(Lifecycle { pre_stop: Some(wait_for_drain()), ..Lifecycle::default() }),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![
            mount("home", HOME_DIR, false),
            mount("models", MODELS_DIR, read_only(&spec.storage)),
            mount("tmp", "/tmp", false),
        ]),
        ..Container::default()
    }
}

/// Fails only on a wedge that the sidecar has confirmed, of the server or of a runner: 20 s after it at most. Six failures
/// later Ollama alone is restarted, 100 s after the wedge with its grace: it has nothing to finish then. A runner that
/// heals meanwhile is left alone, and a minute without a sidecar is forgiven.
fn liveness() -> Probe {
    Probe { termination_grace_period_seconds: Some(10), ..probe("/ollama/livez", 10, 6) }
}

/// Ollama cuts its streams when it is told to end, so it is told only when the sidecar has finished them.
fn wait_for_drain() -> LifecycleHandler {
    LifecycleHandler { http_get: Some(http_get("/drain/wait")), ..LifecycleHandler::default() }
}

/// Whether models are mounted read-only.
pub(super) fn read_only(storage: &Storage) -> bool {
    storage.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only)
}

fn environment(pool: &ValidPool) -> Vec<EnvVar> {
    let spec = &pool.spec;
    let mut all = vec![
        env("HOME", HOME_DIR),
        env("OLLAMA_HOST", &format!("127.0.0.1:{}", corral_wire::ports::OLLAMA)),
        env("OLLAMA_MODELS", MODELS_DIR),
        env("OLLAMA_NO_CLOUD", "1"),
        env("OLLAMA_NUM_PARALLEL", &spec.ollama.num_parallel.to_string()),
    ];
    // Where others share the models, a server that starts must not sweep away what another pulls.
    if spec.storage.empty_dir.is_none() {
        all.push(env("OLLAMA_NOPRUNE", "1"));
    }
    // The image shows every GPU of the node to a pod that asks for none.
    if spec.gpu.vendor == GpuVendor::None {
        all.push(env("NVIDIA_VISIBLE_DEVICES", "void"));
    }
    all.extend(tuning(&spec.ollama));
    // None of these is one of ours: the pool would be refused.
    all.extend(spec.ollama.env.iter().map(|var| env(&var.name, &var.value)));
    all
}

fn tuning(ollama: &Ollama) -> Vec<EnvVar> {
    let numbers = [
        ("OLLAMA_MAX_LOADED_MODELS", ollama.max_loaded_models),
        ("OLLAMA_CONTEXT_LENGTH", ollama.context_length),
    ];
    let mut set: Vec<EnvVar> =
        numbers.iter().filter_map(|(name, value)| value.map(|value| env(name, &value.to_string()))).collect();
    set.extend(ollama.keep_alive.as_ref().map(|text| env("OLLAMA_KEEP_ALIVE", text)));
    set.extend(ollama.flash_attention.map(|on| env("OLLAMA_FLASH_ATTENTION", if on { "1" } else { "0" })));
    set.extend(ollama.kv_cache_type.map(|kind| env("OLLAMA_KV_CACHE_TYPE", cache_type(kind))));
    set
}

fn cache_type(kind: KvCacheType) -> &'static str {
    match kind {
        KvCacheType::F16 => "f16",
        KvCacheType::Q8 => "q8_0",
        KvCacheType::Q4 => "q4_0",
    }
}

/// The GPUs. Extended resources are never overcommitted: a limit is a request.
fn resources(pool: &ValidPool) -> ResourceRequirements {
    let gpus = pool.spec.gpu.extended_resource();
    let limits = gpus.map(|(name, count)| BTreeMap::from([(name.to_owned(), Quantity(count.to_string()))]));
    ResourceRequirements { limits: limits.clone(), requests: limits, ..ResourceRequirements::default() }
}

#[cfg(test)]
mod tests {
    use corral_crds::pool::{HostPath, OllamaPoolSpec};
    use corral_crds::rules::OWNED_ENV;

    use super::*;

    #[test]
    fn no_variable_that_is_set_here_can_be_asked_for_as_well() {
        let mut spec = OllamaPoolSpec::default();
        spec.gpu.vendor = GpuVendor::None;
        let host_path = Some(HostPath { path: "/models".to_owned() });
        spec.storage = Storage { empty_dir: None, host_path, persistent_volume_claim: None };
        spec.ollama.max_loaded_models = Some(1);
        spec.ollama.context_length = Some(4096);
        spec.ollama.keep_alive = Some("5m".to_owned());
        spec.ollama.flash_attention = Some(true);
        spec.ollama.kv_cache_type = Some(KvCacheType::Q8);
        let text = || "x".to_owned();
        let pool = ValidPool {
            name: text(),
            namespace: text(),
            uid: text(),
            labels: corral_crds::policy::Labels::new(),
            spec,
            update: None,
        };
        for variable in environment(&pool) {
            assert!(OWNED_ENV.contains(&variable.name.as_str()), "{} would be set twice", variable.name);
        }
    }
}
