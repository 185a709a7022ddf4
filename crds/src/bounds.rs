//! The bounds that schema and plain Rust share: one number each.

/// Replicas of a pool.
pub const MAX_REPLICAS: i32 = 1000;
/// Characters of an image's name.
pub const MAX_IMAGE: usize = 512;
/// GPUs of a pod.
pub const MAX_GPUS: u32 = 64;
/// Characters of a resource's name.
pub const MAX_RESOURCE_NAME: usize = 253;
/// Node requirements of a pool.
pub const MAX_REQUIREMENTS: usize = 16;
/// Values of a node requirement.
pub const MAX_REQUIREMENT_VALUES: usize = 64;
/// Characters of a label's key: a prefix, a slash and a name.
pub const MAX_LABEL_KEY: usize = 317;
/// Characters of a label's value.
pub const MAX_LABEL_VALUE: usize = 63;
/// Slots per model.
pub const MAX_PARALLEL: u32 = 64;
/// Models in memory.
pub const MAX_LOADED_MODELS: u32 = 64;
/// The shortest context, in tokens.
pub const MIN_CONTEXT: u32 = 256;
/// The longest context, in tokens.
pub const MAX_CONTEXT: u32 = 16_777_216;
/// Characters of a duration.
pub const MAX_DURATION: usize = 32;
/// Environment variables of a pool.
pub const MAX_ENV: usize = 64;
/// Characters of an environment variable's name.
pub const MAX_ENV_NAME: usize = 128;
/// Characters of an environment variable's value.
pub const MAX_ENV_VALUE: usize = 4096;
/// Characters of a path.
pub const MAX_PATH: usize = 1024;
/// Characters of an object's name.
pub const MAX_NAME: usize = 253;
/// Characters of a quantity.
pub const MAX_QUANTITY: usize = 32;
/// Requests in the queue.
pub const MAX_QUEUE_DEPTH: u32 = 10_000;
/// Seconds in the queue.
pub const MAX_QUEUE_WAIT: u32 = 3600;
/// Trusted networks of a pool.
pub const MAX_PROXIES: usize = 64;
/// Characters of a CIDR.
pub const MAX_CIDR: usize = 43;
/// Named resources of a container, in requests and in limits.
pub const MAX_RESOURCES: usize = 16;
/// Seconds of delay before a drain refuses.
pub const MAX_DRAIN_DELAY: u32 = 300;
/// Seconds of a drain.
pub const MAX_DRAIN: u32 = 7200;
/// The shortest progress deadline, in seconds.
pub const MIN_DEADLINE: i32 = 60;
/// The longest progress deadline, in seconds.
pub const MAX_DEADLINE: i32 = 86_400;
/// Annotations of a Service.
pub const MAX_ANNOTATIONS: usize = 32;
/// Characters of an annotation's value.
pub const MAX_ANNOTATION: usize = 4096;
/// Pools that one policy names.
pub const MAX_TARGETS: usize = 16;
/// Characters of a target's group and kind.
pub const MAX_TARGET_WORD: usize = 63;
/// Limits of one policy.
pub const MAX_LIMITS: usize = 32;
/// Characters of a limit's name.
pub const MAX_LIMIT_NAME: usize = 63;
/// Models that one limit names.
pub const MAX_MODELS: usize = 64;
/// Characters of a model's name.
pub const MAX_MODEL: usize = 512;
/// Endpoint classes that one limit names: all of them.
pub const MAX_ENDPOINTS: usize = 4;
/// Parts of a key.
pub const MAX_PER: usize = 4;
/// Characters of a rate.
pub const MAX_RATE: usize = 24;
/// Requests at one time.
pub const MAX_CONCURRENCY: u32 = 1_000_000;
/// Requests at one instant.
pub const MAX_BURST: u32 = 1_000_000_000;
/// Conditions of one object, or of one ancestor.
pub const MAX_CONDITIONS: usize = 16;
/// Limits of a pool, of all its policies together: a plan with more does not compile, and a pool's status lists them all.
pub const MAX_POOL_LIMITS: usize = 256;
