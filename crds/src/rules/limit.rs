//! What a limit keeps.

use super::{Rule, rule, rule_at};

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
