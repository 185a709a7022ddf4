//! `OllamaPool`: replicas of one Ollama configuration, each with a Corral sidecar in front.

mod autoscaling;
mod identity;
mod schedule;
mod tokens;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    autoscaling::{Autoscaling, Prediction, Preset, ScaleDown, ScaleToZero, ScalingMetric, ScalingMode},
    identity::{ApiKeySecret, Identity, Unauthenticated},
    schedule::{Day, Schedule},
    tokens::Tokens,
};
use crate::value::IntOrString;
#[cfg(feature = "kube")]
use crate::{bounds, patterns, rules};

/// What runs. Every field has a default: an empty spec is one replica with one NVIDIA GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource, schemars::JsonSchema))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "corral.dev",
        version = "v1alpha1",
        kind = "OllamaPool",
        namespaced,
        shortname = "opool",
        category = "corral",
        status = "crate::status::OllamaPoolStatus",
        derive = "PartialEq",
        doc = "Replicas of one Ollama configuration, each with a Corral sidecar that makes the limits of every policy true.",
        validation = kube::core::Rule::new(rules::POOL_NAME.cel).message(rules::POOL_NAME.message),
        scale(
            spec_replicas_path = ".spec.replicas",
            status_replicas_path = ".status.replicas",
            label_selector_path = ".status.selector"
        ),
        printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
        printcolumn(name = "Pods", type_ = "integer", json_path = ".status.readyReplicas"),
        printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredReplicas", priority = 1),
        printcolumn(name = "GPUs", type_ = "integer", json_path = ".status.gpus"),
        printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
        printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )
)]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::DEADLINE_ABOVE_DRAIN]))))]
pub struct OllamaPoolSpec {
    /// How many pods; 0 to 1000, default 1. 0 stops the pool. This is the field of the scale subresource. With `autoscaling` in mode
    /// `Builtin` it is only what a new pool begins with.
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = bounds::MAX_REPLICAS)))]
    pub replicas: i32,
    /// How the pool grows and shrinks. Default: it does not, `replicas` says how many pods there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// The Ollama image, 1 to 512 characters. Default: the release this version of Corral was tested with, in its `-rocm`
    /// variant for `gpu.vendor: amd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_IMAGE)))]
    pub image: Option<String>,
    /// The GPUs of each pod.
    pub gpu: Gpu,
    /// How Ollama runs.
    pub ollama: Ollama,
    /// Where models are kept: exactly one kind. Default: an emptyDir, which lives as long as its pod.
    pub storage: Storage,
    /// How much work a pod takes on.
    pub capacity: Capacity,
    /// How the client behind a connection is known.
    pub identity: Identity,
    /// How tokens are counted.
    pub tokens: Tokens,
    /// The Corral sidecar.
    pub sidecar: Sidecar,
    /// How a pod that has to go finishes its work.
    pub drain: Drain,
    /// How a change reaches the pods.
    ///
    /// With two pods or more no request fails, and no answer is cut that is shorter than `drain.timeoutSeconds`. With one pod
    /// and no `maxSurge` there is a gap: running answers finish, meanwhile new requests get 503 with `Retry-After`, and from
    /// the old pod's end until the new one is ready no connection.
    pub rollout: Rollout,
    /// The Service that clients use. Its name is the pool's.
    pub service: Service,
    /// What else the pods need, as a `PodTemplateSpec` (`metadata` and `spec`), merged over what Corral builds: lists
    /// merge by name. Changes to what keeps clients from going around the limits are refused (`TemplateInvalid`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::anything"))]
    pub pod_template: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Default for OllamaPoolSpec {
    fn default() -> Self {
        Self {
            replicas: 1,
            autoscaling: None,
            image: None,
            gpu: Gpu::default(),
            ollama: Ollama::default(),
            storage: Storage::default(),
            capacity: Capacity::default(),
            identity: Identity::default(),
            tokens: Tokens::default(),
            sidecar: Sidecar::default(),
            drain: Drain::default(),
            rollout: Rollout::default(),
            service: Service::default(),
            pod_template: None,
        }
    }
}

/// The GPUs of each pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::NO_COUNT_WITHOUT_GPU, rules::NO_RESOURCE_WITHOUT_GPU]))))]
pub struct Gpu {
    /// Whose GPUs; `none` for CPU only. It picks the resource, the tolerations and the image variant. Default `nvidia`.
    pub vendor: GpuVendor,
    /// GPUs of each pod, 1 to 64; default 1. Above 1 only for models that one GPU does not hold: one Ollama a GPU isolates
    /// failures. Not with `vendor: none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_GPUS)))]
    pub count: Option<u32>,
    /// The extended resource asked for, such as `nvidia.com/mig-1g.10gb`, at most 253 characters. Default by vendor:
    /// `nvidia.com/gpu`, `amd.com/gpu`, `gpu.intel.com/i915`. Not with `vendor: none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_RESOURCE_NAME), regex(pattern = patterns::QUALIFIED_NAME)))]
    pub resource_name: Option<String>,
    /// What nodes must have, all of it, as required node affinity. Empty: any node that has the resource. At most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_REQUIREMENTS), extend("x-kubernetes-list-type" = "atomic")))]
    pub requirements: Vec<NodeRequirement>,
}

/// Whose GPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum GpuVendor {
    /// NVIDIA, through its device plugin.
    #[default]
    Nvidia,
    /// AMD, through its device plugin and the `-rocm` image.
    Amd,
    /// Intel, through its device plugin and Vulkan.
    Intel,
    /// CPU only; no GPU is visible to the pod.
    None,
}

/// One requirement on a node's labels, as in a node affinity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::REQUIREMENT_VALUES]))))]
pub struct NodeRequirement {
    /// The label, 1 to 317 characters.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_LABEL_KEY)))]
    pub key: String,
    /// How the label's value compares with `values`.
    pub operator: NodeOperator,
    /// What it is compared with: one or more for `In` and `NotIn`, none for `Exists` and `DoesNotExist`, one whole number
    /// for `Gt` and `Lt`. At most 64, each of at most 63 characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_REQUIREMENT_VALUES), inner(length(max = bounds::MAX_LABEL_VALUE)), extend("x-kubernetes-list-type" = "atomic")))]
    pub values: Vec<String>,
}

/// How a label's value compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum NodeOperator {
    /// It is one of the values.
    In,
    /// It is none of the values, or the label is not there.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// It is a greater number.
    Gt,
    /// It is a lesser number.
    Lt,
}

/// How Ollama runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::CACHE_NEEDS_FLASH]))))]
pub struct Ollama {
    /// Slots: how many requests Ollama works on at one time for each loaded model; 1 to 64, default 1. The sidecar never
    /// sends more. Each costs `contextLength` of GPU memory.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_PARALLEL)))]
    pub num_parallel: u32,
    /// How many models are held in memory at one time; 1 to 64. Default: Ollama's own choice, at most 3 for each GPU. The
    /// sidecar sends at most `numParallel` requests for each of so many models at one time; without this field, of 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_LOADED_MODELS)))]
    pub max_loaded_models: Option<u32>,
    /// Context length in tokens that models are loaded with; 256 to 16,777,216. Default: what Ollama picks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = bounds::MIN_CONTEXT, max = bounds::MAX_CONTEXT)))]
    pub context_length: Option<u32>,
    /// How long a model stays loaded without use, as a duration such as `5m` or `24h`, at most 32 characters; `-1` keeps
    /// it for ever, `0` unloads it at once. Default: Ollama's 5 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_DURATION), extend("x-kubernetes-validations" = rules::cel(&[rules::KEEP_ALIVE]))))]
    pub keep_alive: Option<String>,
    /// Whether flash attention is used. Default: what Ollama picks for the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flash_attention: Option<bool>,
    /// How the context is held in GPU memory. Below `f16` it needs flash attention. Default: Ollama's `f16`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(with = "KvCacheType"))]
    pub kv_cache_type: Option<KvCacheType>,
    /// More settings of Ollama, by name. What Corral sets itself is refused, as is what would leak prompts. At most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_ENV), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub env: Vec<EnvVar>,
}

impl Default for Ollama {
    fn default() -> Self {
        Self {
            num_parallel: 1,
            max_loaded_models: None,
            context_length: None,
            keep_alive: None,
            flash_attention: None,
            kv_cache_type: None,
            env: Vec::new(),
        }
    }
}

/// How the context is held in GPU memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum KvCacheType {
    /// 16 bit.
    #[serde(rename = "f16")]
    F16,
    /// About half of `f16`, at hardly any loss.
    #[serde(rename = "q8_0")]
    Q8,
    /// About a quarter of `f16`, at some loss.
    #[serde(rename = "q4_0")]
    Q4,
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name: letters, digits and underscores, at most 128 of them.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_ENV_NAME), extend("x-kubernetes-validations" = rules::cel(&[rules::ENV_NAME, rules::ENV_OWNED]))))]
    pub name: String,
    /// Its value, at most 4096 characters.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_ENV_VALUE)))]
    pub value: String,
}

/// Where models are kept: exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::ONE_STORAGE]))))]
pub struct Storage {
    /// A directory of the pod's own, gone with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,
    /// A directory of the node, shared by the pods on it and kept when they go. Refused by restricted Pod Security.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<HostPath>,
    /// A claim that exists, shared by all pods of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<Claim>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { empty_dir: Some(EmptyDir::default()), host_path: None, persistent_volume_claim: None }
    }
}

/// A directory of the pod's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EmptyDir {
    /// The most it holds, as a quantity such as `200Gi`, at most 32 characters; a pod above it is evicted. Default: as much as the node has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_QUANTITY), regex(pattern = patterns::QUANTITY)))]
    pub size_limit: Option<String>,
}

/// A directory of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HostPath {
    /// Its absolute path, without `..`, at most 1024 characters; made when it is not there.
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_PATH), extend("x-kubernetes-validations" = rules::cel(&[rules::HOST_PATH]))))]
    pub path: String,
}

/// A claim that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Its name, in the pool's namespace; 1 to 253 characters.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_NAME)))]
    pub claim_name: String,
    /// Whether it is mounted read-only: models must be there already. Default false.
    #[serde(default)]
    pub read_only: bool,
}

/// How much work a pod takes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Capacity {
    /// The queue in front of Ollama, in each pod.
    pub queue: Queue,
}

/// The queue in front of Ollama, in each pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::CLIENT_WITHIN_QUEUE]))))]
pub struct Queue {
    /// The most requests that wait for a slot; 0 to 10,000, default 64. 0: none waits, a busy pod refuses at once.
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = bounds::MAX_QUEUE_DEPTH)))]
    pub max_depth: u32,
    /// The longest that one waits, in seconds, before it is refused, if its priority is `critical`, `high` or `medium`; 1 to
    /// 3600, default 60.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_QUEUE_WAIT)))]
    pub max_wait_seconds: u32,
    /// The same for requests of priority `low` and those that exceed a limit with `Deprioritize`, in seconds; 1 to 3600,
    /// default 300.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_QUEUE_WAIT)))]
    pub batch_max_wait_seconds: u32,
    /// The most requests of one client that wait; 1 to 10,000, at most `maxDepth`. Default: a quarter of `maxDepth`, and at least
    /// 32. 0 is refused: that nobody waits is `maxDepth: 0`. A client is that of an API key, else an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_QUEUE_DEPTH_PER_CLIENT)))]
    pub max_depth_per_client: Option<u32>,
    /// What a request costs its client, by which those who wait are served in turn; default `SlotTime`.
    pub cost_model: CostModel,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_depth: 64,
            max_wait_seconds: 60,
            batch_max_wait_seconds: 300,
            max_depth_per_client: None,
            cost_model: CostModel::default(),
        }
    }
}

/// What a request costs its client in the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum CostModel {
    /// The time for which it has a slot.
    #[default]
    SlotTime,
    /// Its tokens, whatever time they take: those of the prompt, and those of the answer twice.
    Tokens,
}

impl From<CostModel> for corral_wire::CostModel {
    fn from(model: CostModel) -> Self {
        match model {
            CostModel::SlotTime => Self::SlotTime,
            CostModel::Tokens => Self::Tokens,
        }
    }
}

/// The Corral sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// Its image, 1 to 512 characters. Default: the one that belongs to the operator's release.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_IMAGE)))]
    pub image: Option<String>,
    /// Its resources. Default: a request of 100m CPU and 64Mi, a limit of 256Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// Requests and limits of a container, by resource name; quantities as Kubernetes writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What is set aside for it. At most 16 resources, each quantity of at most 32 characters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::quantities"))]
    pub requests: BTreeMap<String, IntOrString>,
    /// What it may use at most. At most 16 resources, each quantity of at most 32 characters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::quantities"))]
    pub limits: BTreeMap<String, IntOrString>,
}

/// How a pod that has to go finishes its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::DELAY_WITHIN_DRAIN]))))]
pub struct Drain {
    /// How long it goes on accepting, in seconds, so that load balancers notice; 0 to 300, default 5.
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = bounds::MAX_DRAIN_DELAY)))]
    pub delay_seconds: u32,
    /// How long answers in flight get to finish, in seconds, the delay included; 1 to 7200, default 300, at least
    /// `delaySeconds`.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_DRAIN)))]
    pub timeout_seconds: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay_seconds: 5, timeout_seconds: 300 }
    }
}

/// How a change reaches the pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::ROLLOUT_MOVES]))))]
pub struct Rollout {
    /// How many pods may be missing during a rollout, as a number or a percentage. Default: 1 with GPUs, 25% without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::pods_or_percent"))]
    pub max_unavailable: Option<IntOrString>,
    /// How many pods more than `replicas` may run during a rollout, as a number or a percentage. Default: 0 with GPUs (a new
    /// pod waits for the old one's GPU), 25% without. Needed above 0 where `maxUnavailable` is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::pods_or_percent"))]
    pub max_surge: Option<IntOrString>,
    /// After how many seconds without progress a rollout counts as failed; 60 to 86,400, default 3600. Above
    /// `drain.timeoutSeconds`, since a new pod may wait that long for an old one's GPU.
    #[cfg_attr(feature = "kube", schemars(range(min = bounds::MIN_DEADLINE, max = bounds::MAX_DEADLINE)))]
    pub progress_deadline_seconds: i32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { max_unavailable: None, max_surge: None, progress_deadline_seconds: 3600 }
    }
}

/// The Service that clients use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Who reaches it: `ClusterIP` (the default), `NodePort` or `LoadBalancer`.
    #[serde(rename = "type")]
    pub kind: ServiceKind,
    /// Its port, 1 to 65,535, default 11434, which is Ollama's.
    #[cfg_attr(feature = "kube", schemars(range(min = 1)))]
    pub port: u16,
    /// Annotations for it, such as those of a cloud's load balancer. At most 32, each of at most 4096 characters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::annotations"))]
    pub annotations: BTreeMap<String, String>,
}

impl Default for Service {
    fn default() -> Self {
        Self { kind: ServiceKind::default(), port: corral_wire::ports::CLIENT, annotations: BTreeMap::new() }
    }
}

/// Who reaches the Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum ServiceKind {
    /// The cluster.
    #[default]
    ClusterIP,
    /// Whoever reaches a node.
    NodePort,
    /// Whoever reaches the cloud's load balancer.
    LoadBalancer,
}
