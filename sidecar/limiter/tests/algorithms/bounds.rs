//! Law 1 and exact decisions: what any stretch of time admits, and that nothing is refused which the definition admits.

use corral_limiter::algo::{
    fixed_window::FixedWindow, sliding_log::SlidingLog, sliding_window::SlidingWindow,
};
use proptest::prelude::*;

use crate::{
    oracle::{fixed_used, log_used, sliding_used, worst_excess},
    subject::{Run, Subject, WINDOW, gap},
};

/// A request: how long after the one before, what it reserves, what it costs, how many requests later it is settled,
/// and how much of its real cost is charged as it streams.
type Request = (u64, u64, u64, usize, u64);

fn requests() -> impl Strategy<Value = Vec<Request>> {
    prop::collection::vec((gap(), 1..9u64, 0..14u64, 0..5usize, 0..4u64), 1..60)
}

/// Runs requests; says what was charged when, in real costs, and the two excesses that law 1 allows.
fn run<B: Subject>(limit: u64, requests: &[Request]) -> (Vec<(u64, u64)>, u64) {
    let mut run = Run::<B>::new(limit, WINDOW);
    let mut open: Vec<(usize, B::Charge, u64)> = Vec::new();
    let (mut charged, mut more_than_reserved, mut above_limit) = (Vec::new(), 0, 0);
    for (place, (after, reserved, real, settled_after, streamed)) in requests.iter().enumerate() {
        run.now += after;
        let (due, rest) = open.into_iter().partition(|(when, ..)| *when <= place);
        open = rest;
        for (_, mut charge, real) in due {
            run.extend(&mut charge, *streamed.min(&real));
            run.settle(charge, real);
        }
        if !run.admits(*reserved) {
            continue;
        }
        open.push((place + settled_after, run.take(*reserved), *real));
        charged.push((run.now, *real));
        more_than_reserved += real.saturating_sub(*reserved);
        above_limit = above_limit.max(reserved.saturating_sub(limit));
    }
    (charged, more_than_reserved + above_limit)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_stretch_holds_more_than_fixed_windows_admit(limit in 1..12u64, requests in requests()) {
        let (charged, allowed) = run::<FixedWindow>(limit, &requests);
        let excess = worst_excess(&charged, |length| limit * (length.div_ceil(WINDOW) + 1));
        prop_assert!(excess <= allowed, "{} above the bound, {} allowed", excess, allowed);
    }

    #[test]
    fn no_stretch_of_a_window_holds_twice_what_sliding_windows_allow(limit in 1..12u64, requests in requests()) {
        let (charged, allowed) = run::<SlidingWindow>(limit, &requests);
        let excess = worst_excess(&charged, |length| if length <= WINDOW { 2 * limit - 1 } else { u64::MAX });
        prop_assert!(excess <= allowed, "{} above the bound, {} allowed", excess, allowed);
    }

    #[test]
    fn no_half_open_stretch_of_a_window_holds_more_than_a_log_allows(limit in 1..12u64, requests in requests()) {
        let (charged, allowed) = run::<SlidingLog>(limit, &requests);
        let excess = worst_excess(&charged, |length| if length < WINDOW { limit } else { u64::MAX });
        prop_assert!(excess <= allowed, "{} above the bound, {} allowed", excess, allowed);
    }

    #[test]
    fn fixed_windows_decide_as_their_definition(limit in 1..12u64, asks in asks()) {
        decides_as::<FixedWindow>(limit, &asks, |charged, now| (fixed_used(charged, limit, WINDOW, now), 1))?;
    }

    #[test]
    fn sliding_windows_decide_as_their_definition(limit in 1..12u64, asks in asks()) {
        decides_as::<SlidingWindow>(limit, &asks, |charged, now| {
            (sliding_used(charged, limit, WINDOW, now), WINDOW)
        })?;
    }

    #[test]
    fn logs_decide_as_their_definition(limit in 1..12u64, asks in asks()) {
        decides_as::<SlidingLog>(limit, &asks, |charged, now| (log_used(charged, WINDOW, now), 1))?;
    }
}

/// Requests of this cost after that time; the odd ones are charged even if they do not fit.
fn asks() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
    prop::collection::vec((gap(), 0..16u64, prop::bool::weighted(0.1)), 1..60)
}

/// `used` says what is used, and in which fraction of a unit.
fn decides_as<B: Subject>(
    limit: u64,
    asks: &[(u64, u64, bool)],
    used: impl Fn(&[(u64, u64)], u64) -> (u64, u64),
) -> Result<(), TestCaseError> {
    let mut run = Run::<B>::new(limit, WINDOW);
    let mut charged = Vec::new();
    for (after, cost, regardless) in asks {
        run.now += after;
        let (used, unit) = used(&charged, run.now);
        let fits = if *cost > limit { used == 0 } else { used + cost * unit <= limit * unit };
        prop_assert_eq!(run.admits(*cost), fits);
        prop_assert_eq!(run.used(), used.div_ceil(unit));
        prop_assert_eq!(run.available(), limit.saturating_sub(used.div_ceil(unit)));
        prop_assert_eq!(run.is_full(), used == 0);
        if fits || *regardless {
            let _stands = run.take(*cost);
            charged.push((run.now, *cost));
        }
    }
    Ok(())
}

/// How many of many are admitted in a stretch of one window that straddles an edge.
fn admitted_around_an_edge<B: Subject>() -> usize {
    let mut run = Run::<B>::new(10, WINDOW);
    let mut admitted = 0;
    for now in WINDOW - 1..2 * WINDOW - 1 {
        run.now = now;
        while run.admits(1) {
            let _stands = run.take(1);
            admitted += 1;
        }
    }
    admitted
}

#[test]
fn around_an_edge_a_fixed_window_admits_twice_its_limit_a_sliding_window_less_and_a_log_just_its_limit() {
    assert_eq!(admitted_around_an_edge::<FixedWindow>(), 20);
    assert_eq!(admitted_around_an_edge::<SlidingWindow>(), 19);
    assert_eq!(admitted_around_an_edge::<SlidingLog>(), 10);
}
