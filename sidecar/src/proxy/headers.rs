//! How a client stands, as headers: `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10, one
//! item for each enforced bucket that applies to the request, scarcest first; and the scarcest once more under the names
//! that SDKs know ([`familiar`]).
//!
//! Of the draft's quota units only `requests` (the default) and `concurrent-requests` are registered; those for tokens
//! and slot time are Corral's own, spelt as the draft spells its units.

mod familiar;

use std::fmt::Write;

use corral_limiter::{Retry, Standing, Unit};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::route::Family;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The most limits that one answer tells of.
pub(crate) const MAX_ITEMS: usize = 8;

/// Writes all of them; `refused` is what a 429 says about coming back.
pub(crate) fn insert(out: &mut HeaderMap, standings: &[Standing], refused: Option<&Retry>, family: Family) {
    insert_lists(out, standings, refused);
    familiar::insert(out, standings, refused, family);
}

fn insert_lists(out: &mut HeaderMap, standings: &[Standing], refused: Option<&Retry>) {
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
        if let Some(reset) = standing.reset(refused) {
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
