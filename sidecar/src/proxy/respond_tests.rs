use std::num::NonZeroU32;
use std::sync::Arc;

use corral_limiter::queue::{Shed, ShedReason};
use corral_limiter::{LimitInfo, Oversized, Rate, Refusal, Unit, Violation};
use http::StatusCode;
use smallvec::smallvec;

use super::*;
use crate::activator::{NotHeld, Why};
use crate::health::Unavailable;
use crate::proxy::admission::WaitBound;
use crate::proxy::api_key::NoClient;
use crate::proxy::head::HeadFault;
use crate::proxy::inspect::{BadJson, BodyFault, ModelFault};

fn limit() -> Arc<LimitInfo> {
    called("per-client")
}

fn called(name: &str) -> Arc<LimitInfo> {
    let rate = Rate { count_milli: 60_000, window: Nanos::from_secs(60), burst: 10 };
    Arc::new(LimitInfo::new("llm/fair-use", name, Some(rate), NonZeroU32::new(4)))
}

fn limited(unit: Unit, retry: Retry) -> Refused {
    let violation = Violation { limit: limit(), unit, used: 10, allowed: 10, asked: 1, wait: retry.wait };
    Refused::Limit(Refusal { violations: smallvec![violation], retry })
}

fn exact(millis: u64) -> Retry {
    Retry { wait: Nanos::from_millis(millis), estimate: false, shared: false, split: false }
}

fn answer(refused: &Refused, family: Family) -> (StatusCode, HeaderMap, Value) {
    let dice = Dice::new();
    let response = refuse(refused, &Context { family, request_id: "r-1", standings: &[], dice: &dice });
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, serde_json::from_slice(&body).unwrap())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// With an estimate in milliseconds.
fn shed(reason: ShedReason, estimate: u64) -> Refused {
    let (estimated_wait, max_wait) = (Nanos::from_millis(estimate), Nanos::from_secs(30));
    let shed = Shed { reason, estimated_wait, position: 7, max_wait };
    Refused::Shed(Shedding { shed, waited: Nanos::from_secs(30), bound: WaitBound::MaxWait })
}

/// With so many seconds left of a start.
fn not_held(seconds: u64) -> Refused {
    let (wait, max_hold) = (Nanos::from_secs(seconds), Nanos::from_secs(600));
    Refused::NotHeld(NotHeld { why: Why::Full, wait: Some(wait), max_hold, max_body_bytes: 1 << 20 })
}

const REASONS: [(ShedReason, &str); 6] = [
    (ShedReason::ClientFull, "client_queue_full"),
    (ShedReason::QueueFull, "queue_full"),
    (ShedReason::WaitTooLong, "wait_too_long"),
    (ShedReason::PushedOut, "pushed_out"),
    (ShedReason::TimedOut, "queue_timeout"),
    (ShedReason::DeadlineMissed, "deadline"),
];

/// How each kind is told by the `OpenAI` API (type and code) and by Anthropic's.
const INVALID: [&str; 3] = ["invalid_request_error", "", "invalid_request_error"];
const NO_KEY: [&str; 3] = ["invalid_request_error", "invalid_api_key", "authentication_error"];
const FORBIDDEN: [&str; 3] = ["permission_error", "", "permission_error"];
const NOT_FOUND: [&str; 3] = ["not_found_error", "", "not_found_error"];
const TOO_LARGE: [&str; 3] = ["invalid_request_error", "", "request_too_large"];
const RATE_LIMITED: [&str; 3] = ["requests", "rate_limit_exceeded", "rate_limit_error"];
const OVERLOADED: [&str; 3] = ["server_error", "overloaded", "overloaded_error"];
const UNAVAILABLE: [&str; 3] = ["server_error", "unavailable", "overloaded_error"];

fn every_refusal() -> Vec<(Refused, u16, [&'static str; 3])> {
    vec![
        (limited(Unit::Requests, exact(1970)), 429, RATE_LIMITED),
        (shed(ShedReason::ClientFull, 3000), 429, OVERLOADED),
        (shed(ShedReason::QueueFull, 3000), 429, OVERLOADED),
        (shed(ShedReason::WaitTooLong, 40_000), 429, OVERLOADED),
        (shed(ShedReason::PushedOut, 3000), 429, OVERLOADED),
        (shed(ShedReason::TimedOut, 4000), 429, OVERLOADED),
        (shed(ShedReason::DeadlineMissed, 4000), 429, OVERLOADED),
        (BodyFault::NoRoom.into(), 429, OVERLOADED),
        (Refused::Unavailable(Unavailable::Starting), 503, UNAVAILABLE),
        (Refused::Unavailable(Unavailable::NoPlan), 503, UNAVAILABLE),
        (Refused::Unavailable(Unavailable::OllamaDown), 503, UNAVAILABLE),
        (Refused::Unavailable(Unavailable::Stalled), 503, UNAVAILABLE),
        (Refused::Unavailable(Unavailable::BreakerOpen), 503, UNAVAILABLE),
        (Refused::Shut { wait: Nanos::from_secs(7) }, 503, UNAVAILABLE),
        (Refused::Unavailable(Unavailable::Draining), 503, UNAVAILABLE),
        (Refused::NoAnswer, 503, UNAVAILABLE),
        (not_held(40), 503, UNAVAILABLE),
        (Refused::Unauthenticated(NoClient::Keyless), 401, NO_KEY),
        (Refused::Unauthenticated(NoClient::UnknownKey), 401, NO_KEY),
        (HeadFault::Version.into(), 505, INVALID),
        (HeadFault::TooLarge.into(), 431, INVALID),
        (HeadFault::Expectation.into(), 417, INVALID),
        (HeadFault::Malformed.into(), 400, INVALID),
        (HeadFault::Host.into(), 400, INVALID),
        (HeadFault::Framing.into(), 400, INVALID),
        (HeadFault::Connection.into(), 400, INVALID),
        (HeadFault::TwoCredentials.into(), 400, INVALID),
        (HeadFault::Vouched.into(), 421, INVALID),
        (RouteFault::Spelling.into(), 400, INVALID),
        (RouteFault::Closed.into(), 403, FORBIDDEN),
        (RouteFault::Unknown.into(), 404, NOT_FOUND),
        (RouteFault::Method { allow: "POST" }.into(), 405, INVALID),
        (Refused::Encoded, 415, INVALID),
        (Refused::UnwantedBody, 400, INVALID),
        (BodyFault::TooLarge { limit: 5 }.into(), 413, TOO_LARGE),
        (BodyFault::TooSlow.into(), 408, INVALID),
        (BodyFault::Broken.into(), 400, INVALID),
        (Refused::Content(BadJson::Truncated.into()), 400, INVALID),
        (ModelFault::Missing.into(), 400, INVALID),
        (ModelFault::Cloud.into(), 403, FORBIDDEN),
    ]
}

#[test]
fn every_refusal_has_one_status_type_and_code_in_each_family() {
    for (refused, status, [kind, code, anthropic]) in every_refusal() {
        let message = refused.to_string();
        assert!(!message.is_empty());
        let code = Some(code).filter(|code| !code.is_empty());
        let error = json!({ "message": message, "type": kind, "param": null, "code": code });
        let told = json!({ "type": anthropic, "message": message });
        for (family, expected) in [
            (Family::Ollama, json!({ "error": message })),
            (Family::OpenAi, json!({ "error": error })),
            (Family::Anthropic, json!({ "type": "error", "error": told, "request_id": "r-1" })),
        ] {
            let (answered, headers, body) = answer(&refused, family);
            assert_eq!(answered.as_u16(), status, "{refused:?}");
            assert_eq!(header(&headers, "content-type"), Some("application/json"));
            assert_eq!(headers.contains_key("retry-after"), matches!(status, 429 | 503), "{refused:?}");
            assert_eq!(body, expected);
        }
    }
}

#[test]
fn a_limit_is_told_by_its_name_its_numbers_and_the_exact_wait() {
    let (_, headers, body) = answer(&limited(Unit::Requests, exact(1970)), Family::Ollama);
    let told = "Rate limit \"llm/fair-use/per-client\" reached: limit 60 requests per 1m, 10 at once, used 10, requested 1. Retry in 1.97s.";
    assert_eq!(body["error"], told);
    assert_eq!(header(&headers, "x-corral-limit"), Some("llm/fair-use/per-client"));
    assert_eq!(header(&headers, "retry-after"), Some("2"));
    assert_eq!(header(&headers, "retry-after-ms"), Some("1970"));
    assert_eq!(header(&headers, "x-corral-retry"), None);
    assert_eq!(header(&headers, "x-should-retry"), None);
    assert_eq!(header(&headers, "connection"), None);
}

#[test]
fn a_limit_of_tokens_is_told_in_tokens() {
    let rate = Rate { count_milli: 40_000_000, window: Nanos::from_secs(60), burst: 40_000 };
    let limit = LimitInfo::new("llm/fair-use", "chat-tokens", None, None).with_rate(Unit::Tokens, rate);
    let (unit, retry) = (Unit::Tokens, exact(1970));
    let violation = Violation {
        limit: Arc::new(limit),
        unit,
        used: 38_210,
        allowed: 40_000,
        asked: 3100,
        wait: retry.wait,
    };
    let refused = Refused::Limit(Refusal { violations: smallvec![violation], retry });
    let (_, _, body) = answer(&refused, Family::OpenAi);
    let told = "Rate limit \"llm/fair-use/chat-tokens\" reached: limit 40000 tokens per 1m, used 38210, requested 3100. Retry in 1.97s.";
    assert_eq!(body["error"]["message"], told);
    assert_eq!(
        (&body["error"]["type"], &body["error"]["code"]),
        (&json!("tokens"), &json!("rate_limit_exceeded"))
    );
}

#[test]
fn every_unit_has_its_words() {
    for (unit, told) in [
        (Unit::InputTokens, "Limit \"llm/fair-use/per-client\" reached: 10 of 10 input tokens."),
        (Unit::Queued, "Limit \"llm/fair-use/per-client\" reached: 10 of 10 requests waiting."),
        (Unit::QueuedTokens, "Limit \"llm/fair-use/per-client\" reached: 10 of 10 prompt tokens waiting."),
    ] {
        let text = limited(unit, exact(1000)).to_string();
        assert!(text.starts_with(told), "{text}");
    }
}

#[test]
fn what_can_never_be_admitted_is_a_bad_request_that_is_not_to_be_sent_again() {
    let oversized = Oversized { limit: limit(), unit: Unit::Tokens, asked: 3100, most: 1000 };
    let (status, headers, body) = answer(&Refused::Oversized(oversized), Family::OpenAi);
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(header(&headers, "x-should-retry"), Some("false"));
    assert_eq!(header(&headers, "retry-after"), None);
    assert_eq!(header(&headers, "x-corral-limit"), Some("llm/fair-use/per-client"));
    let text = body["error"]["message"].as_str().unwrap();
    assert!(text.contains("at most 1000 tokens") && text.contains("about 3100"), "{text}");
}

#[test]
fn of_many_exceeded_limits_the_eight_with_the_longest_waits_are_told() {
    let violation = |number: u64| {
        let limit = called(&format!("l{number:02}"));
        Violation {
            limit,
            unit: Unit::Requests,
            used: 10,
            allowed: 10,
            asked: 1,
            wait: Nanos::from_secs(number),
        }
    };
    let refused = |count| {
        let violations = (1..=count).map(violation).collect();
        answer(&Refused::Limit(Refusal { violations, retry: exact(count * 1000) }), Family::Ollama)
    };
    let told = |count: u64| {
        let last = count.saturating_sub(8) + 1;
        (last..=count).rev().map(|number| format!("llm/fair-use/l{number:02}")).collect::<Vec<_>>().join(", ")
    };
    for count in [1, 8, 9, 60] {
        let (_, headers, body) = refused(count);
        assert_eq!(header(&headers, "x-corral-limit"), Some(&*told(count)));
        let text = body["error"].as_str().unwrap();
        assert_eq!(text.matches("Rate limit").count() as u64, count.min(8), "{text}");
        assert_eq!(text.contains("More limits are reached."), count > 8, "{text}");
        assert!(text.ends_with(&format!("Retry in {count}s.")), "{text}");
    }
}

#[test]
fn a_limit_exceeded_in_both_its_units_is_named_once() {
    let violation =
        |unit, wait| Violation { limit: limit(), unit, used: 4, allowed: 4, asked: 1, wait: Nanos(wait) };
    let other = called("other");
    let violations = smallvec![
        violation(Unit::Concurrency, 1),
        Violation { limit: other, ..violation(Unit::Requests, 2) },
        violation(Unit::Requests, 3),
    ];
    let (_, headers, _) = answer(&Refused::Limit(Refusal { violations, retry: exact(1000) }), Family::Ollama);
    assert_eq!(header(&headers, "x-corral-limit"), Some("llm/fair-use/per-client, llm/fair-use/other"));
}

#[test]
fn concurrency_is_told_as_an_estimate() {
    let retry = Retry { wait: Nanos::from_secs(1), estimate: true, shared: false, split: false };
    let (_, headers, body) = answer(&limited(Unit::Concurrency, retry), Family::Ollama);
    let told = "Limit \"llm/fair-use/per-client\" reached: 10 of 10 requests at one time. Retry in about 1s.";
    assert_eq!(body["error"], told);
    assert_eq!(header(&headers, "x-corral-retry"), Some("estimate"));
}

#[test]
fn a_bound_of_the_queue_is_told_and_counted_under_its_own_name() {
    use crate::metrics::{Outcome, RefusedBy};

    for (reason, word) in REASONS {
        let refused = shed(reason, 12_340);
        assert_eq!(
            (refused.reason(), refused.outcome()),
            (Some(RefusedBy::Shed(reason)), Outcome::Shed(reason))
        );
        for family in [Family::Ollama, Family::OpenAi, Family::Anthropic] {
            let (status, headers, _) = answer(&refused, family);
            assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(header(&headers, "x-corral-shed-reason"), Some(word));
            assert_eq!(header(&headers, "x-corral-queue-position"), Some("7"));
            assert_eq!(header(&headers, "x-corral-estimated-wait"), Some("12.4"), "rounded up");
            assert_eq!(header(&headers, "x-corral-retry"), Some("estimate"));
            assert_eq!(header(&headers, "x-corral-limit"), None);
        }
    }
}

#[test]
fn no_room_for_a_body_is_told_and_counted_under_its_own_name() {
    use crate::metrics::{Outcome, RefusedBy};

    let refused = Refused::from(BodyFault::NoRoom);
    assert_eq!((refused.reason(), refused.outcome()), (Some(RefusedBy::NoRoom), Outcome::NoRoom));
    let (status, headers, _) = answer(&refused, Family::Ollama);
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header(&headers, "x-corral-shed-reason"), Some("no_room"));
    assert_eq!(header(&headers, "x-corral-retry"), Some("estimate"));
    assert_eq!(header(&headers, "connection"), Some("close"), "its body is still on the way");
    assert_eq!(header(&headers, "x-corral-queue-position"), None, "it never came to the queue");
}

#[test]
fn only_a_limit_says_in_the_list_of_limits_when_to_come_back() {
    let standing = Standing {
        limit: limit(),
        unit: Unit::Requests,
        quota: 60,
        window_seconds: Some(60),
        used: 0,
        remaining: 60,
        capacity: 60,
        next: Nanos::ZERO,
        full: Nanos::ZERO,
        pods: NonZeroU32::MIN,
    };
    let told = |refused: &Refused| {
        let (dice, standings) = (Dice::new(), std::slice::from_ref(&standing));
        let context = Context { family: Family::OpenAi, request_id: "r-1", standings, dice: &dice };
        header(refuse(refused, &context).headers(), "ratelimit").map(str::to_owned)
    };
    for refused in [shed(ShedReason::WaitTooLong, 40_000), BodyFault::NoRoom.into()] {
        assert_eq!(told(&refused).as_deref(), Some("\"per-client.requests\";r=60"), "{refused:?}");
    }
    let limited = limited(Unit::Requests, exact(1970));
    assert_eq!(told(&limited).as_deref(), Some("\"per-client.requests\";r=60;t=0"));
}

#[test]
fn estimates_are_spread_and_never_told_short_and_above_two_minutes_nobody_is_to_sleep() {
    let mut seen = Vec::new();
    for _ in 0..200 {
        for (estimate, most) in [(0, 1000), (500, 1500), (20_000, 24_000), (120_000, 144_000)] {
            let (_, headers, _) = answer(&shed(ShedReason::QueueFull, estimate), Family::Ollama);
            let millis: u64 = header(&headers, "retry-after-ms").unwrap().parse().unwrap();
            let seconds: u64 = header(&headers, "retry-after").unwrap().parse().unwrap();
            assert!(
                (estimate..=most).contains(&millis) && seconds == millis.div_ceil(1000).max(1),
                "{millis}"
            );
            assert_eq!(header(&headers, "x-should-retry"), None);
            seen.push(millis);
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 400);
    let (_, headers, _) = answer(&shed(ShedReason::WaitTooLong, 120_001), Family::Ollama);
    assert_eq!(header(&headers, "x-should-retry"), Some("false"));
}

#[test]
fn only_waits_on_shared_buckets_have_jitter_and_it_is_never_early() {
    let mut seen = Vec::new();
    for _ in 0..200 {
        let shared = Retry { shared: true, ..exact(20_000) };
        let (_, headers, _) = answer(&limited(Unit::Requests, shared), Family::Ollama);
        let millis: u64 = header(&headers, "retry-after-ms").unwrap().parse().unwrap();
        let seconds: u64 = header(&headers, "retry-after").unwrap().parse().unwrap();
        assert!((20_000..=22_000).contains(&millis), "{millis}");
        assert_eq!(seconds, millis.div_ceil(1000));
        seen.push(millis);
        let (_, headers, _) = answer(&limited(Unit::Requests, exact(20_000)), Family::Ollama);
        assert_eq!(header(&headers, "retry-after-ms"), Some("20000"));
    }
    seen.dedup();
    assert!(seen.len() > 100);
}

#[test]
fn waits_are_whole_seconds_at_least_one_and_never_short() {
    for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (120_000, "120")] {
        let (_, headers, _) = answer(&limited(Unit::Requests, exact(millis)), Family::Ollama);
        assert_eq!(header(&headers, "retry-after"), Some(seconds), "{millis}");
        assert_eq!(header(&headers, "x-should-retry"), None);
    }
    let (_, headers, _) = answer(&limited(Unit::Requests, exact(120_001)), Family::Ollama);
    assert_eq!(header(&headers, "x-should-retry"), Some("false"));
}

#[test]
fn a_share_of_a_split_limit_and_a_spoilt_connection_close() {
    let split = Retry { split: true, ..exact(1000) };
    for (refused, closes) in [
        (limited(Unit::Requests, split), true),
        (limited(Unit::Requests, exact(1000)), false),
        (HeadFault::Framing.into(), true),
        (HeadFault::Vouched.into(), true),
        (not_held(40), false),
        (BodyFault::TooSlow.into(), true),
        (Refused::Unavailable(Unavailable::Draining), true),
        (Refused::Unavailable(Unavailable::OllamaDown), false),
        (shed(ShedReason::QueueFull, 3000), false),
    ] {
        let (_, headers, _) = answer(&refused, Family::Ollama);
        assert_eq!(header(&headers, "connection"), closes.then_some("close"), "{refused:?}");
    }
}

#[test]
fn whoever_is_not_held_is_told_what_is_left_of_the_start_and_never_less() {
    for _ in 0..100 {
        let (_, headers, _) = answer(&not_held(40), Family::OpenAi);
        let seconds: u64 = header(&headers, "retry-after").unwrap().parse().unwrap();
        assert!((40..=48).contains(&seconds), "{seconds}");
        assert_eq!(header(&headers, "x-corral-retry"), Some("estimate"));
        assert_eq!(header(&headers, "x-should-retry"), None);
    }
    let (_, headers, _) = answer(&not_held(121), Family::OpenAi);
    assert_eq!(header(&headers, "x-should-retry"), Some("false"), "nobody sleeps that long without a word");
}

#[test]
fn whoever_has_no_known_key_is_told_how_to_send_one() {
    for why in [NoClient::Keyless, NoClient::UnknownKey] {
        let (_, headers, _) = answer(&Refused::Unauthenticated(why), Family::OpenAi);
        assert_eq!(header(&headers, "www-authenticate"), Some("Bearer"));
        assert_eq!(header(&headers, "connection"), None);
    }
}

#[test]
fn a_wrong_method_names_the_right_ones() {
    let (_, headers, _) = answer(&RouteFault::Method { allow: "GET, HEAD" }.into(), Family::Ollama);
    assert_eq!(header(&headers, "allow"), Some("GET, HEAD"));
}
