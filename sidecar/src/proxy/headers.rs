//! How a client stands, as headers: `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10, one
//! item for each enforced bucket that applies to the request, scarcest first; and the scarcest once more under the names
//! that SDKs know ([`familiar`]).
//!
//! Of the draft's quota units only `requests` (the default) and `concurrent-requests` are registered; those for tokens
//! and slot time are Corral's own, spelt as the draft spells its units.

mod familiar;

use std::fmt::Write;

use corral_limiter::{Nanos, Retry, Standing, Unit};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::route::Family;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The most limits that one answer tells of.
pub(crate) const MAX_ITEMS: usize = 8;

/// What an answer says of limits about time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reset<'a> {
    /// They have let the request in: when all of each is there again.
    Full,
    /// They have refused it: when to come back.
    Refused(&'a Retry),
    /// Something else has refused it. When to come back is not for limits to say, and two answers to one question would
    /// contradict each other.
    Untold,
}

impl Reset<'_> {
    fn of(self, standing: &Standing) -> Option<Nanos> {
        match self {
            Self::Full => standing.reset(None),
            Self::Refused(retry) => standing.reset(Some(retry)),
            Self::Untold => None,
        }
    }
}

/// Writes all of them.
pub(crate) fn insert(out: &mut HeaderMap, standings: &[Standing], reset: Reset<'_>, family: Family) {
    insert_lists(out, standings, reset);
    familiar::insert(out, standings, reset, family);
}

fn insert_lists(out: &mut HeaderMap, standings: &[Standing], reset: Reset<'_>) {
    let mut policy = String::with_capacity(64);
    let mut limit = String::with_capacity(64);
    for standing in standings.iter().filter(|standing| is_told(standing.unit)).take(MAX_ITEMS) {
        let separator = if policy.is_empty() { "" } else { ", " };
        let name = item_name(standing);
        // Writing to a string does not fail.
        let _ = write!(policy, "{separator}{name};q={}", standing.quota);
        let _ = write!(limit, "{separator}{name};r={}", standing.remaining);
        if let Some(window) = standing.window_seconds {
            let _ = write!(policy, ";w={window}");
        }
        if let Some(unit) = quota_unit(standing.unit) {
            let _ = write!(policy, ";qu=\"{unit}\"");
        }
        if let Some(reset) = reset.of(standing) {
            let _ = write!(limit, ";t={}", reset.secs_ceil());
        }
    }
    for (name, list) in [(POLICY, policy), (LIMIT, limit)] {
        if !list.is_empty()
            && let Ok(value) = HeaderValue::try_from(list)
        {
            out.insert(name, value);
        }
    }
}

/// What waits for a slot is the queue's business, which has no window and no promise.
fn is_told(unit: Unit) -> bool {
    !matches!(unit, Unit::Queued | Unit::QueuedTokens)
}

fn quota_unit(unit: Unit) -> Option<&'static str> {
    match unit {
        Unit::Requests => None,
        Unit::Tokens => Some("tokens"),
        Unit::InputTokens => Some("input-tokens"),
        Unit::OutputTokens => Some("output-tokens"),
        Unit::SlotSeconds => Some("slot-seconds"),
        Unit::Concurrency | Unit::Queued => Some("concurrent-requests"),
        Unit::QueuedTokens => Some("queued-tokens"),
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

#[cfg(test)]
#[path = "headers/tests.rs"]
mod tests;
