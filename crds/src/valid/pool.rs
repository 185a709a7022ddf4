//! `OllamaPool`, against its schema and rules.

use std::collections::BTreeMap;

use super::{Checks, Problem, autoscaling::autoscaling, header_name, network, policy::tier_name, text};
use crate::{
    bounds, patterns,
    pool::{
        Drain, EnvVar, Gpu, GpuVendor, Identity, KvCacheType, NodeOperator, NodeRequirement, Ollama,
        OllamaPoolSpec, Queue, Rollout, Service, Sidecar, Storage, Tokens,
    },
    rules,
    value::IntOrString,
};

/// Everything that is wrong with a pool, in the order of its fields. Its `podTemplate` is not looked at.
pub fn check_pool(name: &str, spec: &OllamaPoolSpec) -> Vec<Problem> {
    let mut checks = Checks::of("");
    checks.at("metadata.name", |checks| {
        checks.rule(&rules::POOL_NAME, name.len() <= 40 && text::is_service_name(name));
    });
    checks.path.push_str("spec");
    checks.within(".replicas", spec.replicas, 0..=bounds::MAX_REPLICAS);
    if let Some(scaling) = &spec.autoscaling {
        checks.at(".autoscaling", |checks| autoscaling(checks, scaling));
    }
    image(&mut checks, spec.image.as_deref());
    checks.at(".gpu", |checks| gpu(checks, &spec.gpu));
    checks.at(".ollama", |checks| ollama(checks, &spec.ollama));
    checks.at(".storage", |checks| storage(checks, &spec.storage));
    checks.at(".capacity.queue", |checks| queue(checks, &spec.capacity.queue));
    checks.at(".identity", |checks| identity(checks, &spec.identity));
    checks.at(".tokens", |checks| tokens(checks, &spec.tokens));
    checks.at(".sidecar", |checks| sidecar(checks, &spec.sidecar));
    checks.at(".drain", |checks| drain(checks, &spec.drain));
    checks.at(".rollout", |checks| rollout(checks, &spec.rollout));
    checks.at(".service", |checks| service(checks, &spec.service));
    let deadline = i64::from(spec.rollout.progress_deadline_seconds);
    checks.rule(&rules::DEADLINE_ABOVE_DRAIN, deadline > i64::from(spec.drain.timeout_seconds));
    checks.problems
}

fn image(checks: &mut Checks, image: Option<&str>) {
    if let Some(image) = image {
        checks.length(".image", image, 1..=bounds::MAX_IMAGE);
    }
}

fn gpu(checks: &mut Checks, gpu: &Gpu) {
    let has_gpu = gpu.vendor != GpuVendor::None;
    checks.rule(&rules::NO_COUNT_WITHOUT_GPU, has_gpu || gpu.count.is_none());
    checks.rule(&rules::NO_RESOURCE_WITHOUT_GPU, has_gpu || gpu.resource_name.is_none());
    if let Some(count) = gpu.count {
        checks.within(".count", count, 1..=bounds::MAX_GPUS);
    }
    if let Some(name) = &gpu.resource_name {
        checks.length(".resourceName", name, 1..=bounds::MAX_RESOURCE_NAME);
        checks.pattern(".resourceName", patterns::QUALIFIED_NAME, text::is_qualified_name(name));
    }
    checks.items(".requirements", gpu.requirements.len(), 0..=bounds::MAX_REQUIREMENTS);
    checks.each(".requirements", &gpu.requirements, requirement);
}

fn requirement(checks: &mut Checks, requirement: &NodeRequirement) {
    checks.length(".key", &requirement.key, 1..=bounds::MAX_LABEL_KEY);
    checks.items(".values", requirement.values.len(), 0..=bounds::MAX_REQUIREMENT_VALUES);
    checks.each(".values", &requirement.values, |checks, value| {
        checks.own_length(value, 0..=bounds::MAX_LABEL_VALUE);
    });
    let fits = match requirement.operator {
        NodeOperator::In | NodeOperator::NotIn => !requirement.values.is_empty(),
        NodeOperator::Exists | NodeOperator::DoesNotExist => requirement.values.is_empty(),
        NodeOperator::Gt | NodeOperator::Lt => {
            matches!(requirement.values.as_slice(), [value] if text::is_whole_number(value))
        }
    };
    checks.rule(&rules::REQUIREMENT_VALUES, fits);
}

fn ollama(checks: &mut Checks, ollama: &Ollama) {
    checks.within(".numParallel", ollama.num_parallel, 1..=bounds::MAX_PARALLEL);
    if let Some(models) = ollama.max_loaded_models {
        checks.within(".maxLoadedModels", models, 1..=bounds::MAX_LOADED_MODELS);
    }
    if let Some(context) = ollama.context_length {
        checks.within(".contextLength", context, bounds::MIN_CONTEXT..=bounds::MAX_CONTEXT);
    }
    if let Some(duration) = &ollama.keep_alive {
        checks.at(".keepAlive", |checks| {
            checks.own_length(duration, 0..=bounds::MAX_DURATION);
            checks.rule(&rules::KEEP_ALIVE, text::is_keep_alive(duration));
        });
    }
    let quantised = ollama.kv_cache_type.is_some_and(|kind| kind != KvCacheType::F16);
    checks.rule(&rules::CACHE_NEEDS_FLASH, !quantised || ollama.flash_attention != Some(false));
    checks.items(".env", ollama.env.len(), 0..=bounds::MAX_ENV);
    let names: Vec<_> = ollama.env.iter().map(|variable| &variable.name).collect();
    checks.distinct(".env", &names);
    checks.each(".env", &ollama.env, variable);
}

fn variable(checks: &mut Checks, variable: &EnvVar) {
    checks.at(".name", |checks| {
        checks.own_length(&variable.name, 1..=bounds::MAX_ENV_NAME);
        checks.rule(&rules::ENV_NAME, text::is_variable(&variable.name));
        checks.rule(&rules::ENV_OWNED, !rules::OWNED_ENV.contains(&variable.name.as_str()));
    });
    checks.length(".value", &variable.value, 0..=bounds::MAX_ENV_VALUE);
}

fn storage(checks: &mut Checks, storage: &Storage) {
    let kinds =
        [storage.empty_dir.is_some(), storage.host_path.is_some(), storage.persistent_volume_claim.is_some()];
    checks.rule(&rules::ONE_STORAGE, kinds.into_iter().filter(|given| *given).count() == 1);
    if let Some(size) = storage.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref()) {
        checks.length(".emptyDir.sizeLimit", size, 0..=bounds::MAX_QUANTITY);
        checks.pattern(".emptyDir.sizeLimit", patterns::QUANTITY, text::is_quantity(size));
    }
    if let Some(host) = &storage.host_path {
        let absolute = host.path.starts_with('/') && !host.path.starts_with("//") && host.path.len() > 1;
        let straight = host.path.split('/').all(|part| part != "..");
        checks.length(".hostPath.path", &host.path, 0..=bounds::MAX_PATH);
        checks.at(".hostPath.path", |checks| checks.rule(&rules::HOST_PATH, absolute && straight));
    }
    if let Some(claim) = &storage.persistent_volume_claim {
        checks.length(".persistentVolumeClaim.claimName", &claim.claim_name, 1..=bounds::MAX_NAME);
    }
}

fn queue(checks: &mut Checks, queue: &Queue) {
    checks.within(".maxDepth", queue.max_depth, 0..=bounds::MAX_QUEUE_DEPTH);
    checks.within(".maxWaitSeconds", queue.max_wait_seconds, 1..=bounds::MAX_QUEUE_WAIT);
    checks.within(".batchMaxWaitSeconds", queue.batch_max_wait_seconds, 1..=bounds::MAX_QUEUE_WAIT);
    if let Some(depth) = queue.max_depth_per_client {
        checks.within(".maxDepthPerClient", depth, 1..=bounds::MAX_QUEUE_DEPTH_PER_CLIENT);
        checks.rule(&rules::CLIENT_WITHIN_QUEUE, depth <= queue.max_depth);
    }
}

fn identity(checks: &mut Checks, identity: &Identity) {
    checks.set(".trustedProxies", &identity.trusted_proxies, bounds::MAX_NETWORKS, |checks, proxies| {
        network(checks, proxies);
        checks.rule(&rules::NOT_EVERYBODY, !proxies.ends_with("/0"));
    });
    checks.items(".apiKeys", identity.api_keys.len(), 0..=bounds::MAX_KEY_SECRETS);
    let names: Vec<_> = identity.api_keys.iter().map(|secret| &secret.secret_name).collect();
    checks.distinct(".apiKeys", &names);
    checks.each(".apiKeys", &identity.api_keys, |checks, secret| {
        checks.length(".secretName", &secret.secret_name, 1..=bounds::MAX_NAME);
        if let Some(tier) = &secret.tier {
            checks.at(".tier", |checks| tier_name(checks, tier));
        }
    });
    checks.set(".trustedHeaders", &identity.trusted_headers, bounds::MAX_HEADERS, trusted_header);
    if let Some(name) = &identity.priority_header {
        checks.at(".priorityHeader", |checks| trusted_header(checks, name));
    }
}

fn trusted_header(checks: &mut Checks, name: &str) {
    header_name(checks, name);
    checks.rule(&rules::HEADER_NO_CREDENTIAL, !text::is_credential(name));
    checks.rule(&rules::HEADER_OF_ITS_OWN, !rules::TRANSPORT_HEADERS.contains(&name));
}

fn tokens(checks: &mut Checks, tokens: &Tokens) {
    if let Some(cap) = tokens.output_cap {
        checks.within(".outputCap", cap, 1..=bounds::MAX_OUTPUT_CAP);
    }
    checks.within(".cachedTokenPercent", tokens.cached_token_percent, 0..=100);
}

fn sidecar(checks: &mut Checks, sidecar: &Sidecar) {
    image(checks, sidecar.image.as_deref());
    if let Some(resources) = &sidecar.resources {
        checks.at(".resources.requests", |checks| quantities(checks, &resources.requests));
        checks.at(".resources.limits", |checks| quantities(checks, &resources.limits));
    }
}

fn quantities(checks: &mut Checks, quantities: &BTreeMap<String, IntOrString>) {
    checks.properties("", quantities.len(), bounds::MAX_RESOURCES);
    for (name, quantity) in quantities {
        if let IntOrString::String(quantity) = quantity {
            let step = format!(".{name}");
            checks.length(&step, quantity, 0..=bounds::MAX_QUANTITY);
            checks.pattern(&step, patterns::QUANTITY, text::is_quantity(quantity));
        }
    }
}

fn drain(checks: &mut Checks, drain: &Drain) {
    checks.rule(&rules::DELAY_WITHIN_DRAIN, drain.delay_seconds <= drain.timeout_seconds);
    checks.within(".delaySeconds", drain.delay_seconds, 0..=bounds::MAX_DRAIN_DELAY);
    checks.within(".timeoutSeconds", drain.timeout_seconds, 1..=bounds::MAX_DRAIN);
}

fn rollout(checks: &mut Checks, rollout: &Rollout) {
    let none = |pods: &IntOrString| matches!(pods.to_string().as_str(), "0" | "0%" | "00%");
    let stuck =
        rollout.max_unavailable.as_ref().is_some_and(none) && rollout.max_surge.as_ref().is_none_or(none);
    checks.rule(&rules::ROLLOUT_MOVES, !stuck);
    pods(checks, ".maxUnavailable", rollout.max_unavailable.as_ref());
    pods(checks, ".maxSurge", rollout.max_surge.as_ref());
    let bounds = bounds::MIN_DEADLINE..=bounds::MAX_DEADLINE;
    checks.within(".progressDeadlineSeconds", rollout.progress_deadline_seconds, bounds);
}

fn pods(checks: &mut Checks, step: &str, pods: Option<&IntOrString>) {
    match pods {
        None => {}
        Some(IntOrString::Int(number)) => checks.within(step, *number, 0..=i64::from(bounds::MAX_REPLICAS)),
        Some(IntOrString::String(share)) => checks.pattern(step, patterns::PERCENT, text::is_percent(share)),
    }
}

fn service(checks: &mut Checks, service: &Service) {
    checks.within(".port", service.port, 1..=u16::MAX);
    checks.properties(".annotations", service.annotations.len(), bounds::MAX_ANNOTATIONS);
    for (name, text) in &service.annotations {
        checks.length(&format!(".annotations.{name}"), text, 0..=bounds::MAX_ANNOTATION);
    }
}
