//! What a policy as a whole keeps, and the names that it gives.

use super::{Rule, rule, rule_at};

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
/// What takes no slot has no priority.
pub const ENDPOINT_WAITS: Rule =
    rule("self != 'Metadata'", "Metadata has no priority: it takes no slot, so it never waits");
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
    "this header holds a credential, and neither limits nor priorities go by it: name clients in apiKeys, and limit per ApiKey",
);
/// What concerns a connection or the way of a message is no word of whoever is in front.
pub const HEADER_OF_ITS_OWN: Rule = rule(
    "!(self in ['connection', 'content-length', 'expect', 'forwarded', 'host', 'http2-settings', 'keep-alive', \
     'max-forwards', 'proxy-authenticate', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade', \
     'via', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-port', 'x-forwarded-proto', 'x-real-ip'])",
    "this header is about a connection or about the way of a message: any client or program on the way sets it, rewrites it or \
     drops it, so neither limits nor priorities go by it; let what stands in front of the pool set one of its own, such as x-team",
);
/// The names of [`HEADER_OF_ITS_OWN`]'s text, for plain Rust.
pub const TRANSPORT_HEADERS: [&str; 20] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
];
/// All that the name of a header keeps that a pool trusts.
pub const TRUSTED_HEADER: [Rule; 3] = [HEADER_NAME, HEADER_NO_CREDENTIAL, HEADER_OF_ITS_OWN];
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
