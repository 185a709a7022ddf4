//! The bounds that schema and plain Rust share: one number each.

/// Replicas of a pool.
pub const MAX_REPLICAS: i32 = 1000;
/// How much of a metric a pod is to have, whatever the metric.
pub const MAX_TARGET: u32 = 1_000_000;
/// Seconds that a request is expected to hold a slot.
pub const MAX_EXPECTED_SERVICE: u32 = 3600;
/// Seconds that a scale-down looks back, and that its share is about.
pub const MAX_SCALE_DOWN_SECONDS: u32 = 3600;
/// Schedules of a pool.
pub const MAX_SCHEDULES: usize = 16;
/// Days of a week.
pub const MAX_DAYS: usize = 7;
/// Decisions on its size that a pool's status keeps.
pub const MAX_DECISIONS: usize = 10;
/// Characters of a number in a status.
pub const MAX_NUMBER: usize = 32;
/// Characters of a reason in a status.
pub const MAX_REASON: usize = 64;
/// Characters of a sentence in a status.
pub const MAX_SENTENCE: usize = 1024;
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
/// Requests of one client in the queue.
pub const MAX_QUEUE_DEPTH_PER_CLIENT: u32 = 10_000;
/// Seconds in the queue.
pub const MAX_QUEUE_WAIT: u32 = 3600;
/// Networks in one list: the trusted ones of a pool, those that a limit covers, those that a policy exempts.
pub const MAX_NETWORKS: usize = 64;
/// Secrets with API keys that a pool names.
pub const MAX_KEY_SECRETS: usize = 16;
/// API keys of a pool.
pub const MAX_API_KEYS: usize = 4096;
/// Characters of a client's name: the entry of a Secret.
pub const MAX_CLIENT_NAME: usize = 63;
/// Characters of an API key.
pub const API_KEY_LENGTH: std::ops::RangeInclusive<usize> = 8..=512;
/// API keys of one entry of a Secret: the one in use, and the one before or after it.
pub const MAX_KEYS_OF_ENTRY: usize = 2;
/// Trusted headers of a pool, and headers that one limit asks for.
pub const MAX_HEADERS: usize = 16;
/// Characters of a header's name.
pub const MAX_HEADER_NAME: usize = 64;
/// Characters of a header's value.
pub const MAX_HEADER_VALUE: usize = 256;
/// Tokens of one answer.
pub const MAX_OUTPUT_CAP: u32 = 1_000_000;
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
/// The shortest time without a request after which a pool goes to zero, in seconds.
pub const MIN_IDLE: u32 = 60;
/// The longest, in seconds.
pub const MAX_IDLE: u32 = 86_400;
/// Seconds that a request is held.
pub const MAX_HOLD: u32 = 3600;
/// Requests that are held.
pub const MAX_HELD: u32 = 10_000;
/// Characters of a number of bytes that are held.
pub const MAX_HELD_BYTES_TEXT: usize = 6;
/// Mebibytes that are held; an activator's memory limit is more than twice as much.
pub const MAX_HELD_MEBIBYTES: u32 = 4096;
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
/// Paths that one limit names.
pub const MAX_PATHS: usize = 16;
/// Characters of a request's path.
pub const MAX_REQUEST_PATH: usize = 256;
/// Tiers of one policy.
pub const MAX_TIERS: usize = 16;
/// The weight of a tier.
pub const MAX_WEIGHT: u32 = 1000;
/// Classes of endpoints that a policy gives priorities: all that wait.
pub const MAX_PRIORITIES: usize = 3;
/// Clients that one policy exempts.
pub const MAX_EXEMPT_CLIENTS: usize = 64;
/// Labels, and requirements on labels, of one selector.
pub const MAX_SELECTOR: usize = 16;
/// Values of one requirement on a label.
pub const MAX_SELECTOR_VALUES: usize = 16;
/// Characters of a part of a key: `Header:` and a name.
pub const MAX_KEY_PART: usize = 71;
/// Characters of a tier's scale: `1000.000`.
pub const MAX_SCALE: usize = 8;
/// Characters of a time of day.
pub const MAX_TIME_OF_DAY: usize = 5;
/// Characters of a time zone's name.
pub const MAX_TIME_ZONE: usize = 64;
/// Characters of a wait.
pub const MAX_WAIT_TEXT: usize = 8;
/// Milliseconds of a wait: ten minutes.
pub const MAX_WAIT_MS: u64 = 600_000;
/// Requests in a window that a sliding log remembers one by one.
pub const MAX_LOG: u32 = 10_000;
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
/// Tiers of a pool, of all its policies together.
pub const MAX_POOL_TIERS: usize = 256;
