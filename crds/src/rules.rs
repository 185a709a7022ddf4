//! The rules that go beyond types and bounds, each with the words that a person reads when it is broken.
//!
//! One list serves both sides: the schema carries them as CEL, and [`crate::valid`] checks the same in plain Rust for
//! a sidecar without an API server, with the same message at the same field.

/// One rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// What must hold, in CEL, seen from the node that carries the rule.
    pub cel: &'static str,
    /// What is wrong when it does not.
    pub message: &'static str,
    /// The field to blame, relative to the node; empty for the node itself.
    pub field: &'static str,
}

const fn rule(cel: &'static str, message: &'static str) -> Rule {
    Rule { cel, message, field: "" }
}

const fn rule_at(field: &'static str, cel: &'static str, message: &'static str) -> Rule {
    Rule { cel, message, field }
}

/// Whether a limit counts days by the clock.
macro_rules! days {
    () => {
        "(has(self.algorithm) && self.algorithm == 'FixedWindow' && \
         ((has(self.requests) && self.requests.matches('/(1?d|24h|1440m|86400s)$')) || \
         (has(self.tokens) && self.tokens.matches('/(1?d|24h|1440m|86400s)$')) || \
         (has(self.inputTokens) && self.inputTokens.matches('/(1?d|24h|1440m|86400s)$')) || \
         (has(self.outputTokens) && self.outputTokens.matches('/(1?d|24h|1440m|86400s)$')) || \
         (has(self.slotSeconds) && self.slotSeconds.matches('/(1?d|24h|1440m|86400s)$'))))"
    };
}

/// Whether a limit has a rate.
macro_rules! a_rate {
    () => {
        "has(self.requests) || has(self.tokens) || has(self.inputTokens) || has(self.outputTokens) || has(self.slotSeconds)"
    };
}

macro_rules! burst_needs_rate {
    ($unit:literal) => {
        rule_at(
            concat!(".burst.", $unit),
            concat!("!has(self.burst) || !has(self.burst.", $unit, ") || has(self.", $unit, ")"),
            concat!("burst.", $unit, " needs ", $unit, ": a burst is how much of a rate may come at once"),
        )
    };
}

macro_rules! window_by_the_clock {
    ($unit:literal) => {
        rule_at(
            concat!(".", $unit),
            concat!(
                "!has(self.algorithm) || self.algorithm != 'FixedWindow' || !has(self.",
                $unit,
                ") || self.",
                $unit,
                ".matches('/(1?[mhd]|60s|60m|3600s|24h|1440m|86400s)$')"
            ),
            "FixedWindow counts minutes, hours or days by the clock: end the rate in /m, /h or /d",
        )
    };
}

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
/// A rollout must be able to move.
pub const ROLLOUT_MOVES: Rule = rule(
    "!has(self.maxUnavailable) || \
     !(self.maxUnavailable == 0 || self.maxUnavailable == '0%' || self.maxUnavailable == '00%') || \
     (has(self.maxSurge) && !(self.maxSurge == 0 || self.maxSurge == '0%' || self.maxSurge == '00%'))",
    "with maxUnavailable 0 a rollout needs maxSurge above 0, or it can never begin",
);
/// A pool is all that a policy can target.
pub const TARGET_KIND: Rule =
    rule_at(".kind", "self.kind == 'OllamaPool'", "kind is OllamaPool: a policy limits nothing else");
/// And it is in our group.
pub const TARGET_GROUP: Rule =
    rule_at(".group", "!has(self.group) || self.group == 'corral.dev'", "group is corral.dev, or left out");
/// A policy names its pools or selects them.
pub const ONE_AIM: Rule = rule(
    "has(self.targetRefs) != has(self.targetSelector)",
    "a policy has either targetRefs or targetSelector: it names its pools, or selects them by their labels",
);
/// Whether a requirement on labels has values.
pub const SELECTOR_VALUES: Rule = rule_at(
    ".values",
    "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
    "In and NotIn need one value or more, Exists and DoesNotExist none",
);
/// A limit names tiers of its own policy.
pub const TIERS_KNOWN: Rule = rule_at(
    ".limits",
    "self.limits.all(l, !has(l.match) || !has(l.match.tiers) || l.match.tiers.all(t, has(self.tiers) && \
     self.tiers.exists(x, x.name == t)))",
    "match.tiers names tiers of this policy: each of them stands in tiers",
);
/// So does the policy itself.
pub const DEFAULT_TIER_KNOWN: Rule = rule_at(
    ".defaultTier",
    "!has(self.defaultTier) || (has(self.tiers) && self.tiers.exists(x, x.name == self.defaultTier))",
    "defaultTier is a tier of this policy: it stands in tiers",
);
/// How a tier is called.
pub const TIER_NAME: Rule = rule(
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "a tier's name has lower-case letters, digits and dashes, and begins and ends with no dash",
);
/// What the numbers of limits are multiplied by.
pub const SCALE: Rule = rule(
    "self.matches('^(0[.](00[1-9]|0[1-9][0-9]?|[1-9][0-9]{0,2})|[1-9][0-9]{0,2}([.][0-9]{1,3})?|1000([.]0{1,3})?)$')",
    "a scale is a decimal text from \"0.001\" to \"1000\" with at most three places",
);
/// How a client is called.
pub const CLIENT_NAME: Rule = rule(
    "self.matches('^[-A-Za-z0-9_.]{1,63}$')",
    "a client's name is that of an entry in a key Secret: 1 to 63 letters, digits, -, _ and .",
);
/// How a header is called.
pub const HEADER_NAME: Rule = rule(
    "self.matches('^[a-z0-9][-a-z0-9_]{0,63}$')",
    "a header's name is written in lower case: letters, digits, - and _, at most 64 of them",
);
/// Whoever has a credential is told apart by the pool's key Secrets.
pub const HEADER_NO_CREDENTIAL: Rule = rule(
    "!(self in ['authorization', 'cookie', 'proxy-authorization', 'x-api-key'])",
    "this header holds a credential, and no limit goes by it: name clients in apiKeys, and limit per ApiKey",
);
/// A path of a request.
pub const REQUEST_PATH: Rule = rule(
    "self.matches('^/[!-~]*$') && !self.contains('?') && !self.contains('%')",
    "a path begins with / and is written as clients send it, without a query, escapes and spaces",
);
/// A part of a key.
pub const KEY_PART: Rule = rule(
    "self.matches('^(Client|ApiKey|ClientIP|Tier|Model|Endpoint|Global|Header:[a-z0-9][-a-z0-9_]{0,63})$')",
    "per has Client, ApiKey, ClientIP, Tier, Model, Endpoint, Global, or Header: and a header's name in lower case, such as \
     Header:x-team",
);
/// A limit limits something.
pub const ONE_UNIT: Rule = rule(
    "has(self.requests) || has(self.tokens) || has(self.inputTokens) || has(self.outputTokens) || \
     has(self.slotSeconds) || has(self.concurrency) || has(self.queued) || has(self.queuedTokens)",
    "a limit needs at least one unit: requests, tokens, inputTokens, outputTokens, slotSeconds, concurrency, queued or \
     queuedTokens",
);
/// What a sliding log counts.
pub const LOG_OF_REQUESTS: Rule = rule_at(
    ".algorithm",
    "!has(self.algorithm) || self.algorithm != 'SlidingLog' || (has(self.requests) && !has(self.tokens) && \
     !has(self.inputTokens) && !has(self.outputTokens) && !has(self.slotSeconds))",
    "SlidingLog remembers requests one by one: it needs requests, and takes no other rate",
);
/// How many it remembers.
pub const LOG_BOUND: Rule = rule_at(
    ".requests",
    "!has(self.algorithm) || self.algorithm != 'SlidingLog' || !has(self.requests) || \
     self.requests.matches('^([1-9][0-9]{0,3}([.][0-9]{1,3})?|10000([.]0{1,3})?|([1-9]([.][0-9]{1,3})?|10([.]0{1,3})?)k)/')",
    "SlidingLog remembers at most 10000 requests in a window: SlidingWindow counts more of them in less memory",
);
/// When days begin.
pub const TIME_OF_DAY: Rule = rule(
    "self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')",
    "resetAt is a time of day such as 00:00 or 23:30",
);
/// A time zone, by its form.
pub const TIME_ZONE: Rule = rule(
    "self.matches('^[A-Za-z][-+A-Za-z0-9_]*(/[-+A-Za-z0-9_]+)*$')",
    "timeZone is the name of a time zone in the IANA database, such as Europe/Kyiv or UTC",
);
/// Only days begin at a time that one can choose.
pub const RESET_OF_DAYS: Rule = rule_at(
    ".resetAt",
    concat!("!has(self.resetAt) || ", days!()),
    "resetAt is for algorithm FixedWindow with a window of a day, such as requests: 1k/d",
);
/// Only days hang on a time zone.
pub const ZONE_OF_DAYS: Rule = rule_at(
    ".timeZone",
    concat!("!has(self.timeZone) || ", days!()),
    "timeZone is for algorithm FixedWindow with a window of a day, such as requests: 1k/d",
);
/// Windows that are counted take no burst.
pub const NO_BURST_OF_WINDOWS: Rule = rule_at(
    ".burst",
    "!has(self.burst) || !has(self.algorithm) || !(self.algorithm in ['SlidingWindow', 'SlidingLog', 'FixedWindow'])",
    "SlidingWindow, SlidingLog and FixedWindow take no burst: what a window has may come at any instant of it",
);
/// Pacing needs a pace.
pub const DELAY_NEEDS_PACE: Rule = rule_at(
    ".onExceed.action",
    "!has(self.onExceed) || !has(self.onExceed.action) || self.onExceed.action != 'Delay' || \
     ((!has(self.algorithm) || self.algorithm in ['TokenBucket', 'LeakyBucket']) && (has(self.requests) || \
     has(self.tokens) || has(self.inputTokens) || has(self.outputTokens) || has(self.slotSeconds)))",
    "Delay paces a rate of algorithm TokenBucket or LeakyBucket: choose one of these, and a rate, or the action Queue",
);
/// Places come free when they do.
pub const DELAY_OF_RATES: Rule = rule_at(
    ".onExceed.action",
    "!(has(self.algorithm) && self.algorithm == 'LeakyBucket' || has(self.onExceed) && has(self.onExceed.action) && \
     self.onExceed.action == 'Delay') || !(has(self.concurrency) || has(self.queued) || has(self.queuedTokens))",
    "Delay, which is what a LeakyBucket does, is for rates: put concurrency, queued and queuedTokens into a limit of their own",
);
/// What a leaky bucket does with what comes too early.
pub const LEAKY_DELAYS: Rule = rule_at(
    ".onExceed.action",
    "!has(self.algorithm) || self.algorithm != 'LeakyBucket' || !has(self.onExceed) || !has(self.onExceed.action) || \
     self.onExceed.action in ['Delay', 'Reject']",
    "a LeakyBucket delays by itself, and refuses what waits too long: leave the action out, or take a TokenBucket",
);
/// What bounds the queue does not lead into it.
pub const QUEUE_FROM_OUTSIDE: Rule = rule_at(
    ".onExceed.action",
    "!has(self.onExceed) || !has(self.onExceed.action) || self.onExceed.action != 'Queue' || \
     !(has(self.queued) || has(self.queuedTokens))",
    "Queue is how requests come to wait: put queued and queuedTokens, which bound it, into a limit of their own",
);
/// Only rates can be too small for a request.
pub const OVERSIZE_OF_RATES: Rule = rule_at(
    ".onExceed.oversize",
    concat!(
        "!has(self.onExceed) || !has(self.onExceed.oversize) || self.onExceed.oversize != 'Reject' || ",
        a_rate!()
    ),
    "oversize is about rates, and this limit has none",
);
/// Only rates are counted by an algorithm.
pub const ALGORITHM_OF_RATES: Rule = rule_at(
    ".algorithm",
    concat!("!has(self.algorithm) || self.algorithm in ['TokenBucket', 'SlidingLog'] || ", a_rate!()),
    "an algorithm counts rates, and this limit has none: leave it out",
);
/// A wait has an end.
pub const MAX_WAIT_WHERE_WAITING: Rule = rule_at(
    ".maxWait",
    "(has(self.action) && self.action in ['Queue', 'Delay']) == has(self.maxWait)",
    "the actions Queue and Delay need maxWait, and the others have none",
);
/// How long a wait may be.
pub const MAX_WAIT: Rule = rule(
    "self.matches('^([1-9][0-9]?|[1-5][0-9]{2}|600)s$|^([1-9]|10)m$')",
    "maxWait is whole seconds or minutes from 1s to 10m, such as 30s or 2m",
);
/// How a limit is called.
pub const LIMIT_NAME: Rule = rule(
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "a limit's name has lower-case letters, digits and dashes, and begins and ends with no dash",
);
/// Everybody together cannot be told apart.
pub const GLOBAL_ALONE: Rule = rule(
    "!self.exists(part, part == 'Global') || size(self) == 1",
    "Global stands alone: one count for everybody cannot be split by something else",
);
/// The grammar of rates.
pub const RATE: Rule = rule(
    "self.matches('^[1-9][0-9]{0,8}([.][0-9]{1,3})?[kMG]?/([1-9][0-9]{0,4})?(s|m|h|d)$')",
    "this is no rate: write a count from 1 to 999999999 (with k, M or G if you like), a slash and a window in s, m, h or \
     d, of 31d at most, such as 60/m, 1.5/s, 2k/6h",
);
/// A burst is a burst of something: one rule for each unit, in the order of [`crate::policy::Limit::rates`].
pub const BURST_NEEDS_RATE: [Rule; 5] = [
    burst_needs_rate!("requests"),
    burst_needs_rate!("tokens"),
    burst_needs_rate!("inputTokens"),
    burst_needs_rate!("outputTokens"),
    burst_needs_rate!("slotSeconds"),
];
/// The clock has minutes, hours and days: one rule for each unit, in the same order.
pub const WINDOW_BY_THE_CLOCK: [Rule; 5] = [
    window_by_the_clock!("requests"),
    window_by_the_clock!("tokens"),
    window_by_the_clock!("inputTokens"),
    window_by_the_clock!("outputTokens"),
    window_by_the_clock!("slotSeconds"),
];

const fn of_limit() -> [Rule; 22] {
    let [b1, b2, b3, b4, b5] = BURST_NEEDS_RATE;
    let [w1, w2, w3, w4, w5] = WINDOW_BY_THE_CLOCK;
    [
        ONE_UNIT,
        ALGORITHM_OF_RATES,
        LOG_OF_REQUESTS,
        LOG_BOUND,
        RESET_OF_DAYS,
        ZONE_OF_DAYS,
        NO_BURST_OF_WINDOWS,
        DELAY_NEEDS_PACE,
        DELAY_OF_RATES,
        LEAKY_DELAYS,
        QUEUE_FROM_OUTSIDE,
        OVERSIZE_OF_RATES,
        b1,
        b2,
        b3,
        b4,
        b5,
        w1,
        w2,
        w3,
        w4,
        w5,
    ]
}

/// Those that a limit as a whole keeps.
pub const LIMIT: [Rule; 22] = of_limit();

/// All of them, for tests that each has its cases.
pub fn all() -> Vec<Rule> {
    [&OTHERS[..], &LIMIT[..]].concat()
}

const OTHERS: [Rule; 35] = [
    POOL_NAME,
    DEADLINE_ABOVE_DRAIN,
    NO_COUNT_WITHOUT_GPU,
    NO_RESOURCE_WITHOUT_GPU,
    REQUIREMENT_VALUES,
    CACHE_NEEDS_FLASH,
    KEEP_ALIVE,
    ENV_NAME,
    ENV_OWNED,
    ONE_STORAGE,
    HOST_PATH,
    CIDR,
    NOT_EVERYBODY,
    DELAY_WITHIN_DRAIN,
    ROLLOUT_MOVES,
    TARGET_KIND,
    TARGET_GROUP,
    ONE_AIM,
    SELECTOR_VALUES,
    TIERS_KNOWN,
    DEFAULT_TIER_KNOWN,
    TIER_NAME,
    SCALE,
    CLIENT_NAME,
    HEADER_NAME,
    HEADER_NO_CREDENTIAL,
    REQUEST_PATH,
    KEY_PART,
    TIME_OF_DAY,
    TIME_ZONE,
    MAX_WAIT_WHERE_WAITING,
    MAX_WAIT,
    LIMIT_NAME,
    GLOBAL_ALONE,
    RATE,
];

/// The rules as a schema carries them.
#[cfg(feature = "kube")]
pub(crate) fn cel(rules: &[Rule]) -> serde_json::Value {
    rules.iter().map(one).collect()
}

#[cfg(feature = "kube")]
fn one(rule: &Rule) -> serde_json::Value {
    let mut written = serde_json::json!({ "rule": rule.cel, "message": rule.message });
    if !rule.field.is_empty()
        && let Some(fields) = written.as_object_mut()
    {
        fields.insert("fieldPath".to_owned(), rule.field.into());
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owned_variables_are_the_same_in_cel_and_in_rust() {
        for name in OWNED_ENV {
            assert!(ENV_OWNED.cel.contains(&format!("'{name}'")), "{name}");
        }
        assert_eq!(ENV_OWNED.cel.matches('\'').count(), OWNED_ENV.len() * 2);
    }
}
