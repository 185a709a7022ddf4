//! `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10: structured-field lists, one item
//! for each enforced bucket that applies to the request, scarcest first.

use std::fmt::Write;

use corral_limiter::{Retry, Standing};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The most limits that one answer tells of.
pub(crate) const MAX_ITEMS: usize = 8;

/// Writes both headers; `refused` is what a 429 says about coming back.
pub(crate) fn insert(headers: &mut HeaderMap, standings: &[Standing], refused: Option<&Retry>) {
    let mut policy = String::with_capacity(64);
    let mut limit = String::with_capacity(64);
    for standing in standings.iter().take(MAX_ITEMS) {
        let separator = if policy.is_empty() { "" } else { ", " };
        let name = item_name(standing);
        // Writing to a string does not fail.
        let _ = write!(policy, "{separator}{name};q={}", standing.quota);
        let _ = write!(limit, "{separator}{name};r={}", standing.remaining);
        match standing.window_seconds {
            Some(window) => _ = write!(policy, ";w={window}"),
            None => policy.push_str(";qu=\"concurrent-requests\""),
        }
        if let Some(reset) = standing.reset_seconds(refused) {
            let _ = write!(limit, ";t={reset}");
        }
    }
    for (name, list) in [(POLICY, policy), (LIMIT, limit)] {
        if !list.is_empty()
            && let Ok(value) = HeaderValue::try_from(list)
        {
            headers.insert(name, value);
        }
    }
}

/// `"limit.unit"` as a structured-field string.
fn item_name(standing: &Standing) -> String {
    let mut name = String::with_capacity(32);
    name.push('"');
    for c in standing.limit.name.chars().filter(|c| matches!(c, ' '..='~')) {
        if matches!(c, '"' | '\\') {
            name.push('\\');
        }
        name.push(c);
    }
    name.extend([".", standing.unit.as_str(), "\""]);
    name
}
