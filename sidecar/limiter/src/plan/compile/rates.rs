//! The numbers of a limit: rates, guards, and when days begin.

use std::num::NonZeroU32;

use corral_wire::{Algorithm, LimitDoc, RateDoc};

use super::errors::Errors;
use crate::{
    Nanos, Unit,
    calendar::Calendar,
    plan::{LimitInfo, Rate, UNSCALED},
};

/// The longest window, and the longest that one permit may take: 31 days.
const LONGEST_WINDOW_SECONDS: u64 = 31 * DAY;
const DAY: u64 = 86_400;
/// The highest rate, a permit each nanosecond, in thousandths of a permit a second.
const HIGHEST_MILLI_PER_SECOND: u64 = 1_000_000_000_000;
/// The largest burst, and the most that is counted in a window.
const LARGEST_BURST: u64 = 1_000_000_000;
/// The most requests of a window that are noted one by one.
const LONGEST_LOG: u64 = 10_000;
/// The most that is held at one time.
const HIGHEST: u32 = 1_000_000;
/// The most prompt tokens that wait at one time.
const MOST_QUEUED_TOKENS: u32 = 1_000_000_000;

/// The rates of a limit, with the names of their fields.
pub(super) fn over_time(doc: &LimitDoc) -> impl Iterator<Item = (Unit, RateDoc)> {
    let rates = [
        (Unit::Requests, doc.requests),
        (Unit::Tokens, doc.tokens),
        (Unit::InputTokens, doc.input_tokens),
        (Unit::OutputTokens, doc.output_tokens),
        (Unit::SlotSeconds, doc.slot_seconds),
    ];
    rates.into_iter().filter_map(|(unit, rate)| Some((unit, rate?)))
}

/// What a limit bounds at one time, with the names of the fields.
pub(super) fn at_one_time(doc: &LimitDoc) -> impl Iterator<Item = (Unit, u32)> {
    let most = [
        (Unit::Concurrency, doc.concurrency),
        (Unit::Queued, doc.queued),
        (Unit::QueuedTokens, doc.queued_tokens),
    ];
    most.into_iter().filter_map(|(unit, most)| Some((unit, most?)))
}

/// The identity and the numbers of a limit, the largest scale of whose tiers is `scale` thousandths.
pub(super) fn read(path: &str, doc: &LimitDoc, scale: u32, errors: &mut Errors) -> LimitInfo {
    let mut info = LimitInfo::new(&doc.policy, &doc.name, None, None);
    for (unit, rate) in over_time(doc) {
        let path = format!("{path}.{unit}");
        check_algorithm(&path, doc.algorithm, unit, rate, scale, errors);
        info = info.with_rate(unit, read_rate(&path, doc.algorithm, (unit, rate), scale, errors));
    }
    for (unit, most) in at_one_time(doc) {
        let highest = if unit == Unit::QueuedTokens { MOST_QUEUED_TOKENS } else { HIGHEST };
        errors.check((1..=highest).contains(&most), format!("{path}.{unit}"), || {
            format!("is 1 to {highest}; 0 does not mean unlimited")
        });
        if let Some(most) = NonZeroU32::new(most) {
            info = info.with_most(unit, most);
        }
    }
    let bounds_something = over_time(doc).next().is_some() || at_one_time(doc).next().is_some();
    errors.check(bounds_something, path, || {
        "limits nothing: it needs requests, tokens, inputTokens, outputTokens, slotSeconds, concurrency, queued \
         or queuedTokens"
            .to_owned()
    });
    let has_rate = over_time(doc).next().is_some();
    let is_default = doc.algorithm == Algorithm::TokenBucket;
    errors.check(has_rate || is_default || !bounds_something, format!("{path}.algorithm"), || {
        "is about rates, and the limit has none".to_owned()
    });
    info
}

fn read_rate(
    path: &str,
    algorithm: Algorithm,
    (unit, doc): (Unit, RateDoc),
    scale: u32,
    errors: &mut Errors,
) -> Rate {
    let window = doc.window_seconds;
    errors.check((1..=LONGEST_WINDOW_SECONDS).contains(&window), format!("{path}.windowSeconds"), || {
        "is 1 to 2678400, 31 days".to_owned()
    });
    let rate = Rate { count_milli: doc.count_milli, window: Nanos::from_secs(window), burst: doc.burst };
    check_count(path, unit, &rate, scale, errors);
    let is_kept = matches!(algorithm, Algorithm::TokenBucket | Algorithm::LeakyBucket);
    errors.check(!is_kept || (1..=LARGEST_BURST).contains(&doc.burst), format!("{path}.burst"), || {
        format!("is 1 to {LARGEST_BURST}")
    });
    errors.check(is_kept || rate.count() <= LARGEST_BURST, format!("{path}.countMilli"), || {
        format!("is more than {LARGEST_BURST} in a window")
    });
    rate
}

fn check_count(path: &str, unit: Unit, rate: &Rate, scale: u32, errors: &mut Errors) {
    let path = format!("{path}.countMilli");
    let milli = u128::from(HIGHEST_MILLI_PER_SECOND).saturating_mul(u128::from(rate.window.secs_ceil()));
    let asked = u128::from(rate.count_milli)
        .saturating_mul(u128::from(unit.permits()))
        .saturating_mul(u128::from(scale.max(UNSCALED)));
    errors.check(rate.count_milli >= 1, &path, || "is at least 1; 0 does not mean unlimited".to_owned());
    errors.check(asked <= milli.saturating_mul(u128::from(UNSCALED)), &path, || {
        match (unit, scale > UNSCALED) {
            (Unit::SlotSeconds, _) => "is above a million slot seconds a second".to_owned(),
            (_, true) => "is above a thousand million a second, multiplied by the scale of a tier".to_owned(),
            (_, false) => "is above a thousand million a second".to_owned(),
        }
    });
    let slowest = Nanos::from_secs(LONGEST_WINDOW_SECONDS);
    errors.check(rate.count_milli == 0 || rate.interval() <= slowest, path, || {
        "is less than one in 31 days".to_owned()
    });
}

fn check_algorithm(
    path: &str,
    algorithm: Algorithm,
    unit: Unit,
    rate: RateDoc,
    scale: u32,
    errors: &mut Errors,
) {
    match algorithm {
        Algorithm::TokenBucket | Algorithm::LeakyBucket | Algorithm::SlidingWindow => {}
        Algorithm::FixedWindow => {
            errors.check(
                [60, 3600, DAY].contains(&rate.window_seconds),
                format!("{path}.windowSeconds"),
                || "a FixedWindow is a minute, an hour or a day: 60, 3600 or 86400".to_owned(),
            );
        }
        Algorithm::SlidingLog => {
            errors.check(unit == Unit::Requests, path, || "a SlidingLog counts requests only".to_owned());
            let most = u128::from(rate.count_milli).saturating_mul(u128::from(scale.max(UNSCALED)));
            errors.check(most <= u128::from(LONGEST_LOG) * 1_000_000, format!("{path}.countMilli"), || {
                format!("a SlidingLog notes at most {LONGEST_LOG} requests, with the scale of the tiers")
            });
        }
    }
}

/// When the days of a limit begin; none unless it has a fixed window of a day.
pub(super) fn read_day(path: &str, doc: &LimitDoc, errors: &mut Errors) -> Option<Calendar> {
    let has_day =
        doc.algorithm == Algorithm::FixedWindow && over_time(doc).any(|(_, rate)| rate.window_seconds == DAY);
    let path = format!("{path}.reset");
    let Some(reset) = &doc.reset else {
        return has_day.then(|| Calendar::day(0, "UTC").ok()).flatten();
    };
    errors.check(has_day, &path, || {
        "is for a FixedWindow of a day; every other window begins by itself".to_owned()
    });
    errors.check(reset.minute_of_day < 1440, format!("{path}.minuteOfDay"), || "is 0 to 1439".to_owned());
    match Calendar::day(reset.minute_of_day.min(1439), &reset.time_zone) {
        Ok(day) => Some(day).filter(|_| has_day),
        Err(error) => {
            errors.add(format!("{path}.timeZone"), error.to_string());
            None
        }
    }
}
