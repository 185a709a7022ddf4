//! One limit of a policy, against its schema and rules.

use super::{Checks, header_name, network, text};
use crate::{
    bounds,
    policy::{Action, Algorithm, Limit, Match, OnExceed, Oversize, PathMatch, WrittenRate, wait_ms},
    rules,
    units::{BadRate, DAY, HOUR, MINUTE, Rate},
};

/// What is wrong with a limit.
pub(super) fn limit(checks: &mut Checks, limit: &Limit) {
    checks.at(".name", |checks| {
        checks.own_length(&limit.name, 1..=bounds::MAX_LIMIT_NAME);
        checks.rule(&rules::LIMIT_NAME, text::is_label(&limit.name));
    });
    if let Some(matches) = &limit.matches {
        checks.at(".match", |checks| coverage(checks, matches));
    }
    per(checks, &limit.per);
    checks.rule(&rules::ONE_UNIT, limit.has_unit());
    let rates = limit.rates();
    for rate in &rates {
        written_rate(checks, rate);
    }
    counts(checks, limit);
    bursts(checks, limit, &rates);
    algorithm(checks, limit, &rates);
    exceed(checks, limit, &rates);
    if let Some(adaptive) = &limit.adaptive {
        checks.within(".adaptive.minPercent", adaptive.min_percent, 1..=99);
    }
}

fn coverage(checks: &mut Checks, matches: &Match) {
    checks.items(".endpoints", matches.endpoints.len(), 0..=bounds::MAX_ENDPOINTS);
    checks.distinct(".endpoints", &matches.endpoints);
    checks.items(".paths", matches.paths.len(), 0..=bounds::MAX_PATHS);
    checks.each(".paths", &matches.paths, path);
    checks.set(".models", &matches.models, bounds::MAX_MODELS, |checks, model| {
        checks.own_length(model, 1..=bounds::MAX_MODEL);
    });
    checks.set(".tiers", &matches.tiers, bounds::MAX_TIERS, |checks, tier| {
        checks.own_length(tier, 1..=bounds::MAX_LIMIT_NAME);
    });
    checks.items(".headers", matches.headers.len(), 0..=bounds::MAX_HEADERS);
    let names: Vec<_> = matches.headers.iter().map(|header| &header.name).collect();
    checks.distinct(".headers", &names);
    checks.each(".headers", &matches.headers, |checks, header| {
        checks.at(".name", |checks| header_name(checks, &header.name));
        checks.length(".value", &header.value, 1..=bounds::MAX_HEADER_VALUE);
    });
    checks.set(".cidrs", &matches.cidrs, bounds::MAX_NETWORKS, network);
}

fn path(checks: &mut Checks, path: &PathMatch) {
    checks.at(".value", |checks| {
        checks.own_length(&path.value, 0..=bounds::MAX_REQUEST_PATH);
        checks.rule(&rules::REQUEST_PATH, text::is_request_path(&path.value));
    });
}

fn per(checks: &mut Checks, per: &[String]) {
    checks.items(".per", per.len(), 1..=bounds::MAX_PER);
    checks.distinct(".per", per);
    checks.each(".per", per, |checks, part| {
        checks.own_length(part, 0..=bounds::MAX_KEY_PART);
        checks.rule(&rules::KEY_PART, text::is_key_part(part));
    });
    let alone = per.len() == 1 || !per.iter().any(|part| part == "Global");
    checks.at(".per", |checks| checks.rule(&rules::GLOBAL_ALONE, alone));
}

fn written_rate(checks: &mut Checks, written: &WrittenRate<'_>) {
    let Some(rate) = written.rate else { return };
    checks.at(&format!(".{}", written.field), |checks| {
        checks.own_length(rate, 0..=bounds::MAX_RATE);
        match rate.parse::<Rate>() {
            Ok(_) => {}
            Err(BadRate::Grammar) => checks.rule(&rules::RATE, false),
            Err(bad) => checks.refuse(bad.to_string()),
        }
    });
}

fn counts(checks: &mut Checks, limit: &Limit) {
    for (field, count, most) in [
        (".concurrency", limit.concurrency, bounds::MAX_CONCURRENCY),
        (".queued", limit.queued, bounds::MAX_CONCURRENCY),
        (".queuedTokens", limit.queued_tokens, bounds::MAX_BURST),
    ] {
        if let Some(count) = count {
            checks.within(field, count, 1..=most);
        }
    }
}

fn bursts(checks: &mut Checks, limit: &Limit, rates: &[WrittenRate<'_>; 5]) {
    checks.rule(&rules::NO_BURST_OF_WINDOWS, limit.burst.is_none() || !limit.algorithm.counts_windows());
    for (rate, rule) in rates.iter().zip(&rules::BURST_NEEDS_RATE) {
        let Some(burst) = rate.burst else {
            default_burst(checks, limit, rate);
            continue;
        };
        checks.rule(rule, rate.rate.is_some());
        checks.within(&format!(".burst.{}", rate.field), burst, 1..=bounds::MAX_BURST);
    }
}

/// A burst that nobody wrote is told where the rate stands that it follows from.
fn default_burst(checks: &mut Checks, limit: &Limit, written: &WrittenRate<'_>) {
    let Some(rate) = read(written.rate).filter(|_| !limit.algorithm.counts_windows()) else { return };
    let burst = written.default_burst(limit.algorithm, rate);
    if burst > u64::from(bounds::MAX_BURST) {
        let (field, most) = (written.field, bounds::MAX_BURST);
        checks.at(&format!(".{field}"), |checks| {
            checks.refuse(format!(
                "its burst would be {burst}, and is at most {most}: write a smaller burst.{field}"
            ));
        });
    }
}

fn algorithm(checks: &mut Checks, limit: &Limit, rates: &[WrittenRate<'_>; 5]) {
    if limit.algorithm == Algorithm::SlidingLog {
        let given = rates.iter().filter(|rate| rate.rate.is_some()).count();
        checks.rule(&rules::LOG_OF_REQUESTS, given == 1 && limit.requests.is_some());
        checks.rule(&rules::LOG_BOUND, read(limit.requests.as_deref()).is_none_or(fits_log));
    }
    let counts_rates = !matches!(limit.algorithm, Algorithm::TokenBucket | Algorithm::SlidingLog);
    checks.rule(&rules::ALGORITHM_OF_RATES, !counts_rates || rates.iter().any(|rate| rate.rate.is_some()));
    let fixed = limit.algorithm == Algorithm::FixedWindow;
    if fixed {
        for (rate, rule) in rates.iter().zip(&rules::WINDOW_BY_THE_CLOCK) {
            let by_the_clock = |rate: Rate| matches!(rate.window_seconds(), MINUTE | HOUR | DAY);
            checks.rule(rule, read(rate.rate).is_none_or(by_the_clock));
        }
    }
    let of_a_day = |rate: &WrittenRate<'_>| read(rate.rate).is_some_and(|rate| rate.window_seconds() == DAY);
    let days = fixed && rates.iter().any(of_a_day);
    reset(checks, limit, days);
}

/// The rate, where it can be read.
fn read(rate: Option<&str>) -> Option<Rate> {
    rate.and_then(|rate| rate.parse().ok())
}

fn fits_log(rate: Rate) -> bool {
    rate.count_milli() <= u64::from(bounds::MAX_LOG) * 1000
}

fn reset(checks: &mut Checks, limit: &Limit, days: bool) {
    if let Some(at) = &limit.reset_at {
        checks.rule(&rules::RESET_OF_DAYS, days);
        checks.at(".resetAt", |checks| {
            checks.own_length(at, 0..=bounds::MAX_TIME_OF_DAY);
            checks.rule(&rules::TIME_OF_DAY, text::minute_of_day(at).is_some());
        });
    }
    if let Some(zone) = &limit.time_zone {
        checks.rule(&rules::ZONE_OF_DAYS, days);
        checks.at(".timeZone", |checks| {
            checks.own_length(zone, 0..=bounds::MAX_TIME_ZONE);
            checks.rule(&rules::TIME_ZONE, text::is_time_zone(zone));
        });
    }
}

fn exceed(checks: &mut Checks, limit: &Limit, rates: &[WrittenRate<'_>; 5]) {
    let leaks = limit.algorithm == Algorithm::LeakyBucket;
    let action = limit.on_exceed.as_ref().map(|exceed| exceed.action);
    let waits = limit.queued.is_some() || limit.queued_tokens.is_some();
    let delays = leaks || action == Some(Action::Delay);
    checks.rule(&rules::DELAY_OF_RATES, !delays || !(waits || limit.concurrency.is_some()));
    let Some(OnExceed { action, max_wait, oversize }) = &limit.on_exceed else { return };
    let has_rate = rates.iter().any(|rate| rate.rate.is_some());
    let paced = (leaks || limit.algorithm == Algorithm::TokenBucket) && has_rate;
    checks.rule(&rules::DELAY_NEEDS_PACE, *action != Action::Delay || paced);
    checks.rule(&rules::LEAKY_DELAYS, !leaks || matches!(action, Action::Delay | Action::Reject));
    checks.rule(&rules::QUEUE_FROM_OUTSIDE, *action != Action::Queue || !waits);
    checks.rule(&rules::OVERSIZE_OF_RATES, *oversize != Oversize::Reject || has_rate);
    checks.at(".onExceed", |checks| {
        let waits = matches!(action, Action::Queue | Action::Delay);
        checks.rule(&rules::MAX_WAIT_WHERE_WAITING, waits == max_wait.is_some());
        if let Some(wait) = max_wait {
            checks.at(".maxWait", |checks| {
                checks.own_length(wait, 0..=bounds::MAX_WAIT_TEXT);
                checks.rule(&rules::MAX_WAIT, wait_ms(wait).is_some());
            });
        }
    });
}
