//! The words in which a client is told of limits and waits.

use std::cmp::Reverse;
use std::fmt::Write;

use corral_limiter::queue::ShedReason;
use corral_limiter::{Nanos, Oversized, Rate, Refusal, Unit, Violation};

use super::admission::{Shedding, WaitBound};
use super::api_key::NoClient;
use super::headers::MAX_ITEMS;
use crate::health::Unavailable;

/// The limits that a client is told of: of those exceeded the ones that make it wait longest, longest first.
pub(crate) fn told(refusal: &Refusal) -> Vec<&Violation> {
    let mut violations: Vec<_> = refusal.violations.iter().collect();
    violations.sort_by_key(|violation| Reverse(violation.wait));
    violations.truncate(MAX_ITEMS);
    violations
}

/// Which limits were exceeded, what is used of them, and when to come back.
pub(crate) fn limits(refusal: &Refusal) -> String {
    let mut text = String::with_capacity(160);
    let told = told(refusal);
    for violation in &told {
        text.push_str(&exceeded(violation));
        text.push(' ');
    }
    if told.len() < refusal.violations.len() {
        text.push_str("More limits are reached. ");
    }
    let about = if refusal.retry.estimate { "about " } else { "" };
    // Writing to a string does not fail.
    let _ = write!(text, "Retry in {about}{}.", seconds(refusal.retry.wait));
    text
}

/// Whether the limit that makes it wait longest is one of tokens.
pub(crate) fn is_of_tokens(refusal: &Refusal) -> bool {
    told(refusal).first().is_some_and(|violation| {
        matches!(violation.unit, Unit::Tokens | Unit::InputTokens | Unit::OutputTokens | Unit::QueuedTokens)
    })
}

fn exceeded(violation: &Violation) -> String {
    let Violation { limit, unit, used, allowed, asked, .. } = violation;
    match limit.rate(*unit) {
        Some(rate) => {
            let whole = rate.count_milli == allowed.saturating_mul(1000);
            let burst = if whole { String::new() } else { format!(", {allowed} at once") };
            format!(
                "Rate limit \"{limit}\" reached: limit {} {} per {}{burst}, used {used}, requested {asked}.",
                count(&rate),
                words(*unit),
                window(rate.window),
            )
        }
        None if *asked > 1 => {
            format!("Limit \"{limit}\" reached: {used} of {allowed} {}, requested {asked}.", words(*unit))
        }
        None => format!("Limit \"{limit}\" reached: {used} of {allowed} {}.", words(*unit)),
    }
}

/// What is too much for ever, and what can be done.
pub(crate) fn oversized(oversized: &Oversized) -> String {
    let Oversized { limit, unit, asked, most } = oversized;
    let unit = words(*unit);
    format!(
        "Limit \"{limit}\" lets one request use at most {most} {unit}; this one would use about {asked}. It will never \
         be admitted as it is: send less, or ask for a shorter answer."
    )
}

/// What a limit counts, after a number.
pub(crate) fn words(unit: Unit) -> &'static str {
    match unit {
        Unit::Requests => "requests",
        Unit::Tokens => "tokens",
        Unit::InputTokens => "input tokens",
        Unit::OutputTokens => "output tokens",
        Unit::SlotSeconds => "slot seconds",
        Unit::Concurrency => "requests at one time",
        Unit::Queued => "requests waiting",
        Unit::QueuedTokens => "prompt tokens waiting",
    }
}

/// Which bound of the queue is in the way, by the field that sets it, what to do, and when to come back.
pub(crate) fn shed(shedding: &Shedding) -> String {
    let Shedding { shed, waited, bound } = shedding;
    let (wait, max_wait) = (seconds(shed.estimated_wait), seconds(shed.max_wait));
    let why = match shed.reason {
        ShedReason::ClientFull => "As many of your requests wait here as one client may have waiting \
             (spec.capacity.queue.maxDepthPerClient), or they hold as much data as one may. Let them be answered before \
             you send more."
            .to_owned(),
        ShedReason::QueueFull => "The queue of this pod is full (spec.capacity.queue.maxDepth).".to_owned(),
        ShedReason::WaitTooLong => {
            format!("This request would wait about {wait}, longer than {}.", bounded(*bound, &max_wait))
        }
        ShedReason::PushedOut => "This request has lost its place: the queue of this pod is full \
             (spec.capacity.queue.maxDepth), others came that have less in it, or are more urgent, and of those that \
             could go your client has the most waiting. Send fewer at one time."
            .to_owned(),
        ShedReason::TimedOut => {
            format!("No slot came free within {}: {}.", seconds(*waited), bounded(*bound, &max_wait))
        }
        ShedReason::DeadlineMissed => "The timeout that this request came with would end before its answer could be \
             of use. Give it more time."
            .to_owned(),
    };
    format!("{why} Retry in about {wait}.")
}

/// What bounds a wait, and how long that is.
fn bounded(bound: WaitBound, max_wait: &str) -> String {
    match bound {
        WaitBound::MaxWait => {
            format!("the {max_wait} that this pool lets it wait (spec.capacity.queue.maxWaitSeconds)")
        }
        WaitBound::BatchMaxWait => format!(
            "the {max_wait} that this pool lets one of low priority wait (spec.capacity.queue.batchMaxWaitSeconds)"
        ),
        WaitBound::OwnTimeout(half) => {
            format!("the {} that are half of the timeout it came with; give it more time", seconds(half))
        }
        WaitBound::Overload => format!(
            "a quarter of the {max_wait} of spec.capacity.queue.maxWaitSeconds, while everybody waits long; send less"
        ),
    }
}

/// What is missing. A key is not repeated: what is answered may be logged by whoever asked.
pub(crate) fn unauthenticated(why: NoClient) -> &'static str {
    match why {
        NoClient::Keyless => {
            "An API key is needed: send it as \"Authorization: Bearer <key>\" or as \"x-api-key: <key>\"."
        }
        NoClient::UnknownKey => "This API key is not known here. Keys are issued by whoever runs this pool.",
    }
}

pub(crate) fn unavailable(why: Unavailable) -> &'static str {
    match why {
        Unavailable::Starting => "Ollama is starting.",
        Unavailable::NoPlan => "No plan of limits has been received yet.",
        Unavailable::OllamaDown => "Ollama is down.",
        Unavailable::Stalled => "The model has stopped working.",
        Unavailable::BreakerOpen => "Ollama fails what it is sent, and is left alone for a moment.",
        Unavailable::Draining => "This pod is shutting down.",
    }
}

/// A length of time in seconds, rounded up to the millisecond: `1.97s`.
pub(crate) fn seconds(time: Nanos) -> String {
    let millis = time.millis_ceil();
    let mut text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    text.push('s');
    text
}

/// A length of time as Go prints it and `OpenAI` sends it, rounded up to the millisecond: `6m0s`, `1.5s`, `12ms`.
pub(crate) fn duration(time: Nanos) -> String {
    let millis = time.millis_ceil();
    if (1..1000).contains(&millis) {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let rest = seconds(Nanos::from_millis(millis % 60_000));
    match (hours, minutes) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

/// The count of a rate: `60`, `1.5`.
pub(crate) fn count(rate: &Rate) -> String {
    seconds(Nanos::from_millis(rate.count_milli)).trim_end_matches('s').to_owned()
}

/// A window in its largest whole unit: `1m`, `90s`.
pub(crate) fn window(window: Nanos) -> String {
    let seconds = window.secs_ceil();
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
    let (size, unit) =
        units.into_iter().find(|(size, _)| seconds > 0 && seconds.is_multiple_of(*size)).unwrap_or((1, 's'));
    format!("{}{unit}", seconds / size)
}

#[cfg(test)]
mod tests {
    use corral_limiter::queue::Shed;

    use super::*;

    #[test]
    fn times_are_rounded_up_and_written_short() {
        assert_eq!(seconds(Nanos::from_millis(1970)), "1.97s");
        assert_eq!(seconds(Nanos(1_969_999_999)), "1.97s");
        assert_eq!(seconds(Nanos::from_secs(7)), "7s");
        assert_eq!(seconds(Nanos(1)), "0.001s");
        assert_eq!(seconds(Nanos::ZERO), "0s");
        assert_eq!(window(Nanos::from_secs(60)), "1m");
        assert_eq!(window(Nanos::from_secs(90)), "90s");
        assert_eq!(window(Nanos::from_secs(7200)), "2h");
    }

    #[test]
    fn times_for_sdks_are_written_as_go_does() {
        for (millis, written) in [
            (0, "0s"),
            (12, "12ms"),
            (1000, "1s"),
            (1970, "1.97s"),
            (360_000, "6m0s"),
            (61_500, "1m1.5s"),
            (3_600_000, "1h0m0s"),
            (86_399_999, "23h59m59.999s"),
        ] {
            assert_eq!(duration(Nanos::from_millis(millis)), written);
        }
        assert_eq!(duration(Nanos(1)), "1ms");
    }

    fn told(reason: ShedReason, bound: WaitBound) -> String {
        let (estimated_wait, max_wait) = (Nanos::from_secs(40), Nanos::from_secs(30));
        let shed = Shed { reason, estimated_wait, position: 3, max_wait };
        super::shed(&Shedding { shed, waited: Nanos::from_millis(30_010), bound })
    }

    #[test]
    fn each_bound_of_the_queue_is_told_by_the_field_that_sets_it_and_with_what_to_do() {
        use ShedReason::{ClientFull, DeadlineMissed, PushedOut, QueueFull, TimedOut, WaitTooLong};
        for (reason, bound, words) in [
            (ClientFull, WaitBound::MaxWait, "spec.capacity.queue.maxDepthPerClient"),
            (QueueFull, WaitBound::MaxWait, "spec.capacity.queue.maxDepth)"),
            (PushedOut, WaitBound::MaxWait, "Send fewer at one time."),
            (WaitTooLong, WaitBound::MaxWait, "about 40s, longer than the 30s that this pool lets it wait"),
            (WaitTooLong, WaitBound::BatchMaxWait, "spec.capacity.queue.batchMaxWaitSeconds"),
            (
                WaitTooLong,
                WaitBound::OwnTimeout(Nanos::from_secs(5)),
                "than the 5s that are half of the timeout",
            ),
            (TimedOut, WaitBound::MaxWait, "within 30.01s: the 30s that this pool lets it wait (spec."),
            (TimedOut, WaitBound::Overload, "a quarter of the 30s of spec.capacity.queue.maxWaitSeconds"),
            (DeadlineMissed, WaitBound::MaxWait, "Give it more time."),
        ] {
            let text = told(reason, bound);
            assert!(text.contains(words) && text.ends_with(" Retry in about 40s."), "{reason:?}: {text}");
            assert!(!text.contains("  "), "{text}");
        }
    }

    #[test]
    fn counts_keep_their_fractions() {
        let rate = |count_milli| Rate { count_milli, window: Nanos::from_secs(1), burst: 1 };
        assert_eq!(count(&rate(60_000)), "60");
        assert_eq!(count(&rate(1500)), "1.5");
    }
}
