//! Law 8: a swap to the same plan changes nothing, raising a limit never makes anyone wait longer, and what is admitted
//! after a swap keeps the new bound.

use corral_limiter::{Limiter, Nanos, SwapSummary, Unit};
use corral_wire::{Algorithm, KeyPart, LimitDoc, RateDoc};
use proptest::prelude::*;

use crate::{
    oracle::{Windows, worst_excess},
    support::{
        SECOND, Trace, algorithms, ask, gap, limit, limiter, limiter_of, mixed, model, passes, plan, pods,
        rate, rated, steps,
    },
};

const CLIENT: [KeyPart; 1] = [KeyPart::Client];

fn rate_doc() -> impl Strategy<Value = RateDoc> {
    (1..20_000u64, 1..4u64, 1..8u64).prop_map(|(count_milli, window_seconds, burst)| RateDoc {
        count_milli,
        window_seconds,
        burst,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_swap_to_the_same_plan_changes_nothing(limits in mixed(), steps in steps(60), every in 1..5usize) {
        let (mut quiet, mut swapped) = (limiter(&limits), limiter(&limits));
        let (mut first, mut second) = (Trace::default(), Trace::default());
        for (place, step) in steps.iter().enumerate() {
            prop_assert_eq!(first.step(&mut quiet, step), second.step(&mut swapped, step));
            if place % every == 0 {
                let summary = swapped.swap(plan(&limits), pods(1), Nanos(second.now));
                prop_assert_eq!(summary, SwapSummary::default());
            }
        }
    }

    #[test]
    fn raising_a_rate_or_a_burst_never_lengthens_a_wait(
        algorithm in algorithms(), from in rate_doc(), faster in 0..20_000u64, more in 0..9u64,
        asks in prop::collection::vec((gap(), 0..3u32), 0..40), later in gap(),
    ) {
        let from = if algorithm == Algorithm::FixedWindow { RateDoc { window_seconds: 60, ..from } } else { from };
        let to = RateDoc { count_milli: from.count_milli + faster, burst: from.burst + more, ..from };
        let limit = |rate| [LimitDoc { algorithm, ..rated("l", &CLIENT, rate) }];
        let (mut before, mut after) = (limiter(&limit(from)), limiter(&limit(from)));
        let mut now = 0;
        for (gap, client) in asks {
            now += gap;
            prop_assert_eq!(passes(&mut before, client, now), passes(&mut after, client, now));
        }
        after.swap(plan(&limit(to)), pods(1), Nanos(now));
        now += later;
        for client in 0..3 {
            let wait = |limiter: &mut Limiter| match ask(limiter, client, &model(0), now) {
                Ok(ticket) => { limiter.abandon(ticket, Nanos(now)); 0 }
                Err(refusal) => refusal.retry.wait.0,
            };
            let (was, is) = (wait(&mut before), wait(&mut after));
            prop_assert!(is <= was, "{} after, {} before", is, was);
        }
    }

    #[test]
    fn what_is_admitted_after_a_swap_keeps_the_new_bound(
        plans in prop::collection::vec((rate_doc(), 1..4u32, prop::collection::vec((gap(), 0..5u8), 0..25)), 1..4),
    ) {
        let mut limiter = limiter_of(&[rated("l", &CLIENT, plans[0].0)], plans[0].1, 1000);
        let mut now = 0;
        let mut under_way = Vec::new();
        for (rate, divisor, asks) in &plans {
            limiter.swap(plan(&[rated("l", &CLIENT, *rate)]), pods(*divisor), Nanos(now));
            let mut since: Vec<u64> = Vec::new();
            for (gap, act) in asks {
                now += gap;
                match act {
                    0 => under_way.pop().into_iter().for_each(|(at, ticket)| {
                        limiter.abandon(ticket, Nanos(now));
                        since.retain({ let mut gone = false; move |s| gone || *s != at || { gone = true; false } });
                    }),
                    _ => if let Ok(ticket) = ask(&mut limiter, 1, &model(0), now) {
                        since.push(now);
                        under_way.push((now, ticket));
                    },
                }
            }
            let whole = Windows::new(rate.count_milli, rate.window_seconds * SECOND, rate.burst);
            let burst = (whole.burst / u128::from(*divisor)).max(1);
            let served = since.iter().map(|at| (*at, 1)).collect();
            prop_assert_eq!(worst_excess(served, whole.interval * u128::from(*divisor), burst), 0);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_bucket_touched_after_many_swaps_is_as_one_touched_after_each(
        rates in prop::collection::vec((rate_doc(), gap()), 1..140), taken in 0..8u32, crowded in any::<bool>(),
    ) {
        let first = rated("l", &CLIENT, rates[0].0);
        let new = || limiter_of(std::slice::from_ref(&first), 1, 1);
        let (mut lazy, mut eager) = (new(), new());
        let mut now = 0;
        if crowded {
            // The only entry is another's: what follows happens in an overflow bucket.
            prop_assert_eq!(passes(&mut lazy, 9, now), passes(&mut eager, 9, now));
        }
        for _ in 0..taken {
            prop_assert_eq!(passes(&mut lazy, 1, now), passes(&mut eager, 1, now));
        }
        for (rate, after) in &rates {
            now += after;
            for limiter in [&mut lazy, &mut eager] {
                limiter.swap(plan(&[rated("l", &CLIENT, *rate)]), pods(1), Nanos(now));
            }
            // Charging and giving back at once touches the bucket and changes nothing.
            if let Ok(ticket) = ask(&mut eager, 1, &model(0), now) {
                eager.abandon(ticket, Nanos(now));
            }
        }
        let standing = |limiter: &Limiter| limiter.standing(&crate::support::head(1), None, Nanos(now));
        prop_assert_eq!(standing(&lazy), standing(&eager));
    }
}

#[test]
fn raising_a_limit_acts_at_once() {
    let mut limiter = limiter(&[rated("l", &CLIENT, rate(1, 60, 1))]);
    assert!(passes(&mut limiter, 1, 0));
    assert!(!passes(&mut limiter, 1, 0));
    limiter.swap(plan(&[rated("l", &CLIENT, rate(60, 60, 10))]), pods(1), Nanos(0));
    // One of the ten is used.
    assert_eq!((0..20).filter(|_| passes(&mut limiter, 1, 0)).count(), 9);
}

#[test]
fn lowering_a_limit_makes_no_debt() {
    let mut limiter = limiter(&[rated("l", &CLIENT, rate(60, 60, 10))]);
    while passes(&mut limiter, 1, 0) {}
    limiter.swap(plan(&[rated("l", &CLIENT, rate(1, 60, 2))]), pods(1), Nanos(0));
    assert_eq!(ask(&mut limiter, 1, &model(0), 0).unwrap_err().retry.wait, Nanos::from_secs(60));
}

#[test]
fn a_new_name_unit_or_per_starts_fresh_and_is_told() {
    let old = [rated("kept", &CLIENT, rate(1, 60, 1)), rated("gone", &CLIENT, rate(1, 60, 1))];
    let mut limiter = limiter(&old);
    assert!(passes(&mut limiter, 1, 0));
    let new = [
        LimitDoc { concurrency: Some(9), ..rated("kept", &CLIENT, rate(2, 60, 1)) },
        rated("new", &CLIENT, rate(1, 60, 1)),
    ];
    let summary = limiter.swap(plan(&new), pods(1), Nanos(0));
    let fresh: Vec<_> = summary.fresh.iter().map(|(limit, unit)| (limit.name.as_str(), *unit)).collect();
    assert_eq!(fresh, [("kept", Unit::Concurrency), ("new", Unit::Requests)]);
    assert_eq!(summary.gone.iter().map(|limit| limit.name.as_str()).collect::<Vec<_>>(), ["gone"]);
    let refusal = ask(&mut limiter, 1, &model(0), 0).unwrap_err();
    assert_eq!(refusal.violations.iter().map(|v| v.limit.name.as_str()).collect::<Vec<_>>(), ["kept"]);

    let other_per = [rated("kept", &[KeyPart::ClientIP], rate(2, 60, 1))];
    assert_eq!(limiter.swap(plan(&other_per), pods(1), Nanos(0)).fresh.len(), 1);
    assert!(passes(&mut limiter, 1, 0));
}

#[test]
fn what_is_held_outlives_every_swap_and_is_released_once() {
    let two = LimitDoc { concurrency: Some(2), ..limit("c", &CLIENT) };
    let one = LimitDoc { concurrency: Some(1), ..two.clone() };
    let mut limiter = limiter(std::slice::from_ref(&two));
    let (first, second) = (ask(&mut limiter, 1, &model(0), 0), ask(&mut limiter, 1, &model(0), 0));
    limiter.swap(plan(&[one]), pods(1), Nanos(0));
    limiter.finish(first.unwrap(), None, Nanos(1));
    assert!(ask(&mut limiter, 1, &model(0), 1).is_err());
    limiter.finish(second.unwrap(), None, Nanos(2));
    let third = ask(&mut limiter, 1, &model(0), 2).unwrap();
    // Gone and come again: the old guard must not release one of the new limit.
    limiter.swap(plan(&[]), pods(1), Nanos(3));
    limiter.swap(plan(&[two]), pods(1), Nanos(3));
    let _held = (ask(&mut limiter, 1, &model(0), 4).unwrap(), ask(&mut limiter, 1, &model(0), 4).unwrap());
    limiter.finish(third, None, Nanos(5));
    assert!(ask(&mut limiter, 1, &model(0), 5).is_err());
}

#[test]
fn a_charge_from_before_all_swaps_that_are_remembered_stands_in_full() {
    let slow = |seconds| rated("l", &CLIENT, rate(1, seconds, 1));
    let mut limiter = limiter(&[slow(60)]);
    let ticket = ask(&mut limiter, 1, &model(0), 0).unwrap();
    for swap in 1..100 {
        limiter.swap(plan(&[slow(60 + swap % 2)]), pods(1), Nanos(0));
    }
    limiter.abandon(ticket, Nanos(0));
    assert!(!passes(&mut limiter, 1, 0));
}

#[test]
fn a_charge_is_given_back_across_a_swap_and_to_a_bucket_that_is_gone_never() {
    let slow = rated("l", &CLIENT, rate(1, 60, 1));
    let mut limiter = limiter(std::slice::from_ref(&slow));
    let ticket = ask(&mut limiter, 1, &model(0), 0).unwrap();
    limiter.swap(plan(&[rated("l", &CLIENT, rate(1, 30, 1))]), pods(1), Nanos(0));
    limiter.abandon(ticket, Nanos(0));
    let ticket = ask(&mut limiter, 1, &model(0), 0).unwrap();
    limiter.swap(plan(&[]), pods(1), Nanos(0));
    limiter.swap(plan(&[slow]), pods(1), Nanos(0));
    assert!(passes(&mut limiter, 1, 0));
    limiter.abandon(ticket, Nanos(0));
    assert!(!passes(&mut limiter, 1, 0));
}
