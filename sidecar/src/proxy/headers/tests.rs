use std::num::NonZeroU32;
use std::sync::Arc;

use corral_limiter::{LimitInfo, Nanos, Rate};

use super::*;

/// A bucket that holds `capacity` of `quota` a minute.
fn standing(unit: Unit, quota: u64, remaining: u64, full: Nanos) -> Standing {
    let rate = Rate { count_milli: 60_000, window: Nanos::from_secs(60), burst: 10 };
    Standing {
        limit: Arc::new(LimitInfo::new("llm/fair-use", "per-client", Some(rate), NonZeroU32::new(4))),
        unit,
        quota,
        window_seconds: unit.is_over_time().then_some(60),
        used: quota.saturating_sub(remaining),
        remaining,
        capacity: quota,
        next: Nanos::ZERO,
        full,
        pods: NonZeroU32::MIN,
    }
}

fn told(standings: &[Standing], reset: Reset<'_>, family: Family) -> HeaderMap {
    let mut out = HeaderMap::new();
    insert(&mut out, standings, reset, family);
    out
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

fn exact(millis: u64) -> Retry {
    Retry { wait: Nanos::from_millis(millis), estimate: false, shared: false, split: false }
}

#[test]
fn how_the_client_stands_is_a_structured_list_in_the_order_given() {
    let standings = [
        standing(Unit::Requests, 60, 0, Nanos::from_secs(10)),
        standing(Unit::Concurrency, 4, 3, Nanos::ZERO),
        standing(Unit::InputTokens, 4000, 17, Nanos::from_millis(1500)),
        standing(Unit::SlotSeconds, 30, 1, Nanos::from_secs(9)),
        standing(Unit::Queued, 4, 3, Nanos::ZERO),
    ];
    let headers = told(&standings, Reset::Refused(&exact(1970)), Family::Ollama);
    let policy = r#""per-client.requests";q=60;w=60, "per-client.concurrency";q=4;qu="concurrent-requests", "per-client.inputTokens";q=4000;w=60;qu="input-tokens", "per-client.slotSeconds";q=30;w=60;qu="slot-seconds""#;
    assert_eq!(header(&headers, "ratelimit-policy"), Some(policy));
    let limit = r#""per-client.requests";r=0;t=2, "per-client.concurrency";r=3, "per-client.inputTokens";r=17;t=2, "per-client.slotSeconds";r=1;t=2"#;
    assert_eq!(header(&headers, "ratelimit"), Some(limit));
}

#[test]
fn eight_limits_are_told_and_none_without_any() {
    let many = vec![standing(Unit::Requests, 60, 1, Nanos::ZERO); 20];
    let headers = told(&many, Reset::Full, Family::Ollama);
    assert_eq!(header(&headers, "ratelimit").unwrap().split(", ").count(), 8);
    assert!(told(&[], Reset::Full, Family::Anthropic).is_empty());
}

#[test]
fn sdks_are_told_of_the_scarcest_bucket_of_requests_and_of_tokens() {
    let standings = [
        standing(Unit::OutputTokens, 500, 5, Nanos::from_secs(360)),
        standing(Unit::Requests, 60, 9, Nanos::from_millis(12)),
        standing(Unit::Tokens, 4000, 3999, Nanos::from_secs(1)),
        standing(Unit::Requests, 1000, 999, Nanos::from_secs(1)),
    ];
    let headers = told(&standings, Reset::Full, Family::OpenAi);
    for (name, value) in [
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "9"),
        ("x-ratelimit-reset-requests", "12ms"),
        ("x-ratelimit-limit-tokens", "500"),
        ("x-ratelimit-remaining-tokens", "5"),
        ("x-ratelimit-reset-tokens", "6m0s"),
    ] {
        assert_eq!(header(&headers, name), Some(value), "{name}");
    }
    assert!(!headers.keys().any(|name| name.as_str().starts_with("anthropic-")), "{headers:?}");
}

#[test]
fn the_anthropic_api_has_its_own_names_and_dates() {
    let standings = [
        standing(Unit::OutputTokens, 500, 5, Nanos::from_secs(360)),
        standing(Unit::Requests, 60, 0, Nanos::from_secs(9)),
    ];
    let headers = told(&standings, Reset::Refused(&exact(1000)), Family::Anthropic);
    for (name, value) in [
        ("anthropic-ratelimit-requests-limit", "60"),
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("anthropic-ratelimit-tokens-remaining", "5"),
        ("anthropic-ratelimit-output-tokens-limit", "500"),
    ] {
        assert_eq!(header(&headers, name), Some(value), "{name}");
    }
    assert_eq!(header(&headers, "anthropic-ratelimit-input-tokens-limit"), None);
    let reset = header(&headers, "anthropic-ratelimit-requests-reset").unwrap();
    assert!(reset.parse::<jiff::Timestamp>().is_ok() && reset.ends_with('Z'), "{reset}");
}

#[test]
fn what_something_else_than_a_limit_refused_is_told_what_is_left_and_no_time() {
    let standings =
        [standing(Unit::Requests, 60, 60, Nanos::ZERO), standing(Unit::Tokens, 4000, 0, Nanos::from_secs(9))];
    let headers = told(&standings, Reset::Untold, Family::Anthropic);
    let limit = r#""per-client.requests";r=60, "per-client.tokens";r=0"#;
    assert_eq!(header(&headers, "ratelimit"), Some(limit));
    assert_eq!(header(&headers, "x-ratelimit-remaining-requests"), Some("60"));
    assert_eq!(header(&headers, "anthropic-ratelimit-tokens-remaining"), Some("0"));
    assert!(!headers.keys().any(|name| name.as_str().contains("reset")), "{headers:?}");
}
