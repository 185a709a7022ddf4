//! The pod: who it is, where it may run, what it mounts.

use corral_crds::pool::{Gpu, NodeOperator, NodeRequirement, Storage};
use k8s_openapi::api::core::v1::{
    Affinity, EmptyDirVolumeSource, HostPathVolumeSource, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimVolumeSource, PodSecurityContext,
    PodSpec, PodTemplateSpec, SeccompProfile, SecretVolumeSource, Toleration, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::values::USER;
use super::{Defaults, ollama, sidecar};
use crate::names;
use crate::pool::validate::ValidPool;

/// How long a pod gets above its drain, for its processes to end.
const AFTER_DRAIN_SECONDS: i64 = 20;

/// The template, before the user's is merged over it.
pub fn template(pool: &ValidPool, defaults: &Defaults) -> PodTemplateSpec {
    PodTemplateSpec { metadata: Some(metadata(pool)), spec: Some(spec(pool, defaults)) }
}

/// Service meshes stay out: their proxy would take the client's address, and go before the streams have ended.
fn metadata(pool: &ValidPool) -> ObjectMeta {
    let mut labels = names::labels(&pool.name);
    labels.insert("sidecar.istio.io/inject".to_owned(), "false".to_owned());
    let annotations =
        [("linkerd.io/inject", "disabled"), ("kubectl.kubernetes.io/default-container", names::OLLAMA)];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ObjectMeta { labels: Some(labels), annotations: Some(annotations.into()), ..ObjectMeta::default() }
}

fn spec(pool: &ValidPool, defaults: &Defaults) -> PodSpec {
    let spec = &pool.spec;
    let grace = i64::from(spec.drain.timeout_seconds).saturating_add(AFTER_DRAIN_SECONDS);
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        init_containers: Some(vec![sidecar::container(pool, defaults)]),
        containers: vec![ollama::container(pool)],
        security_context: Some(security()),
        termination_grace_period_seconds: Some(grace),
        affinity: affinity(&spec.gpu),
        tolerations: toleration(&spec.gpu).map(|toleration| vec![toleration]),
        volumes: Some(volumes(pool)),
        ..PodSpec::default()
    }
}

pub(super) fn security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// GPU nodes are commonly tainted by the name of their resource.
fn toleration(gpu: &Gpu) -> Option<Toleration> {
    let (resource, _) = gpu.extended_resource()?;
    Some(Toleration {
        key: Some(resource.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    })
}

fn affinity(gpu: &Gpu) -> Option<Affinity> {
    let expressions: Vec<_> = gpu.requirements.iter().map(requirement).collect();
    if expressions.is_empty() {
        return None;
    }
    let term = NodeSelectorTerm { match_expressions: Some(expressions), match_fields: None };
    let required = NodeSelector { node_selector_terms: vec![term] };
    let node = NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(required),
        preferred_during_scheduling_ignored_during_execution: None,
    };
    Some(Affinity { node_affinity: Some(node), ..Affinity::default() })
}

fn requirement(wanted: &NodeRequirement) -> NodeSelectorRequirement {
    let operator = match wanted.operator {
        NodeOperator::In => "In",
        NodeOperator::NotIn => "NotIn",
        NodeOperator::Exists => "Exists",
        NodeOperator::DoesNotExist => "DoesNotExist",
        NodeOperator::Gt => "Gt",
        NodeOperator::Lt => "Lt",
    };
    NodeSelectorRequirement {
        key: wanted.key.clone(),
        operator: operator.to_owned(),
        values: Some(wanted.values.clone()).filter(|values| !values.is_empty()),
    }
}

fn volumes(pool: &ValidPool) -> Vec<Volume> {
    vec![
        secret("corral-plan", &names::plan_secret(&pool.name)),
        secret("corral-keys", &names::key_secret(&pool.name)),
        empty("corral-state", Some("16Mi")),
        empty("home", Some("64Mi")),
        models(&pool.spec.storage),
        empty("tmp", None),
    ]
}

fn empty(name: &str, limit: Option<&str>) -> Volume {
    let size_limit = limit.map(|limit| Quantity(limit.to_owned()));
    let source = EmptyDirVolumeSource { size_limit, medium: None };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}

pub(super) fn secret(name: &str, secret: &str) -> Volume {
    let source = SecretVolumeSource {
        secret_name: Some(secret.to_owned()),
        default_mode: Some(0o440),
        ..SecretVolumeSource::default()
    };
    Volume { name: name.to_owned(), secret: Some(source), ..Volume::default() }
}

fn models(storage: &Storage) -> Volume {
    let volume = Volume { name: "models".to_owned(), ..Volume::default() };
    if let Some(claim) = &storage.persistent_volume_claim {
        let source = PersistentVolumeClaimVolumeSource {
            claim_name: claim.claim_name.clone(),
            read_only: claim.read_only.then_some(true),
        };
        return Volume { persistent_volume_claim: Some(source), ..volume };
    }
    if let Some(path) = &storage.host_path {
        let type_ = Some("DirectoryOrCreate".to_owned());
        return Volume { host_path: Some(HostPathVolumeSource { path: path.path.clone(), type_ }), ..volume };
    }
    let limit = storage.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_deref());
    Volume { name: volume.name, ..empty("models", limit) }
}
