//! What a pool keeps.

use super::{Rule, rule, rule_at};

/// A pool's name makes the names of its objects.
pub const POOL_NAME: Rule = rule(
    "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "a pool's name has at most 40 lower-case letters, digits and dashes, begins with a letter and ends with no dash: \
     its Service is called the same",
);
/// A rollout that waits for a drain must not count as failed.
pub const DEADLINE_ABOVE_DRAIN: Rule = rule_at(
    ".rollout.progressDeadlineSeconds",
    "self.rollout.progressDeadlineSeconds > self.drain.timeoutSeconds",
    "progressDeadlineSeconds is above drain.timeoutSeconds: a new pod may wait that long for an old one's GPU",
);
/// No vendor, no count.
pub const NO_COUNT_WITHOUT_GPU: Rule =
    rule_at(".count", "self.vendor != 'none' || !has(self.count)", "count has no meaning with vendor none");
/// No vendor, no resource.
pub const NO_RESOURCE_WITHOUT_GPU: Rule = rule_at(
    ".resourceName",
    "self.vendor != 'none' || !has(self.resourceName)",
    "resourceName has no meaning with vendor none",
);
/// What an operator compares with.
pub const REQUIREMENT_VALUES: Rule = rule_at(
    ".values",
    "self.operator in ['Exists', 'DoesNotExist'] ? !has(self.values) || size(self.values) == 0 : \
     has(self.values) && (self.operator in ['Gt', 'Lt'] ? size(self.values) == 1 && \
     self.values[0].matches('^-?[0-9]{1,18}$') : size(self.values) > 0)",
    "In and NotIn need one value or more, Exists and DoesNotExist none, Gt and Lt one whole number",
);
/// A quantised cache needs flash attention.
pub const CACHE_NEEDS_FLASH: Rule = rule_at(
    ".kvCacheType",
    "!has(self.kvCacheType) || self.kvCacheType == 'f16' || !has(self.flashAttention) || self.flashAttention",
    "kvCacheType below f16 needs flash attention: leave flashAttention out or set it to true",
);
/// How long a model stays loaded.
pub const KEEP_ALIVE: Rule = rule(
    "self.matches('^(-1|0|([0-9]{1,9}([.][0-9]{1,3})?(ms|s|m|h)){1,4})$')",
    "keepAlive is a duration such as 5m, 1h30m or 24h, or -1 for ever, or 0 for not at all",
);
/// What an environment variable is called.
pub const ENV_NAME: Rule = rule(
    "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
    "an environment variable's name has letters, digits and underscores, and begins with no digit",
);
/// What Corral sets itself, and what would open a way around it.
pub const ENV_OWNED: Rule = rule(
    "!(self in ['HOME', 'LD_AUDIT', 'LD_PRELOAD', 'LLAMA_ARG_HOST', 'LLAMA_ARG_PORT', 'NVIDIA_VISIBLE_DEVICES', \
     'OLLAMA_CONTEXT_LENGTH', 'OLLAMA_DEBUG_LOG_REQUESTS', 'OLLAMA_FLASH_ATTENTION', 'OLLAMA_HOST', \
     'OLLAMA_KEEP_ALIVE', 'OLLAMA_KV_CACHE_TYPE', 'OLLAMA_MAX_LOADED_MODELS', 'OLLAMA_MAX_QUEUE', 'OLLAMA_MODELS', \
     'OLLAMA_NOPRUNE', 'OLLAMA_NO_CLOUD', 'OLLAMA_NUM_PARALLEL', 'OLLAMA_ORIGINS'])",
    "this variable is not for env: Corral sets it, from the field of the same meaning where there is one, or it would \
     open a way around the limits or write prompts to disk",
);
/// The names of [`ENV_OWNED`]'s text, for plain Rust.
pub const OWNED_ENV: [&str; 19] = [
    "HOME",
    "LD_AUDIT",
    "LD_PRELOAD",
    "LLAMA_ARG_HOST",
    "LLAMA_ARG_PORT",
    "NVIDIA_VISIBLE_DEVICES",
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_DEBUG_LOG_REQUESTS",
    "OLLAMA_FLASH_ATTENTION",
    "OLLAMA_HOST",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_MAX_LOADED_MODELS",
    "OLLAMA_MAX_QUEUE",
    "OLLAMA_MODELS",
    "OLLAMA_NOPRUNE",
    "OLLAMA_NO_CLOUD",
    "OLLAMA_NUM_PARALLEL",
    "OLLAMA_ORIGINS",
];
/// One kind of storage.
pub const ONE_STORAGE: Rule = rule(
    "(has(self.emptyDir) ? 1 : 0) + (has(self.hostPath) ? 1 : 0) + (has(self.persistentVolumeClaim) ? 1 : 0) == 1",
    "storage is exactly one of emptyDir, hostPath and persistentVolumeClaim",
);
/// A directory of the node.
pub const HOST_PATH: Rule = rule(
    "self.matches('^/[^/]') && !self.split('/').exists(part, part == '..')",
    "path is absolute, is not the root of the node, and has no ..",
);
/// A network.
pub const CIDR: Rule =
    rule("isCIDR(self)", "this is no CIDR: write 10.0.0.0/8, 192.0.2.7/32 or 2001:db8::/32");
/// To trust everybody is to let everybody be anybody.
pub const NOT_EVERYBODY: Rule = rule(
    "!self.endsWith('/0')",
    "a /0 trusts everybody: any client could then pass for any other by sending X-Forwarded-For",
);
/// The delay is part of the drain.
pub const DELAY_WITHIN_DRAIN: Rule = rule_at(
    ".delaySeconds",
    "self.delaySeconds <= self.timeoutSeconds",
    "delaySeconds is at most timeoutSeconds: the delay is part of the drain",
);
/// No client has more of the queue than there is.
pub const CLIENT_WITHIN_QUEUE: Rule = rule_at(
    ".maxDepthPerClient",
    "!has(self.maxDepthPerClient) || self.maxDepthPerClient <= self.maxDepth",
    "maxDepthPerClient is at most maxDepth: no client has more of the queue than there is",
);
/// A rollout must be able to move.
pub const ROLLOUT_MOVES: Rule = rule(
    "!has(self.maxUnavailable) || \
     !(self.maxUnavailable == 0 || self.maxUnavailable == '0%' || self.maxUnavailable == '00%') || \
     (has(self.maxSurge) && !(self.maxSurge == 0 || self.maxSurge == '0%' || self.maxSurge == '00%'))",
    "with maxUnavailable 0 a rollout needs maxSurge above 0, or it can never begin",
);
