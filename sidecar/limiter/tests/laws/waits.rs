//! Law 4: who waits as long as a time-based refusal says is admitted, and with one pod not a nanosecond earlier.

use corral_limiter::{Limiter, Nanos, Unit};
use corral_wire::{KeyPart, LimitDoc, RateDoc, Scope};
use proptest::prelude::*;

use crate::support::{
    Act, Trace, ask, head, limit, limiter_of, limits, model, passes, pods, rate, rated, steps,
};

/// Limits that the head alone decides, and rates only: what is refused at once says all that the limits have to say.
fn head_rates() -> impl Strategy<Value = Vec<LimitDoc>> {
    let rated = |limit: LimitDoc| {
        let rate = RateDoc { count_milli: 900, window_seconds: 1, burst: 2 };
        LimitDoc {
            models: vec![],
            per: limit
                .per
                .into_iter()
                .map(|part| if part == KeyPart::Model { KeyPart::Client } else { part })
                .collect(),
            requests: limit.requests.or(Some(rate)),
            concurrency: None,
            ..limit
        }
    };
    limits().prop_map(move |limits| limits.into_iter().map(rated).collect())
}

fn only_asks(steps: &mut Vec<crate::support::Step>) {
    steps.retain(|step| !matches!(step.act, Act::Bad | Act::AskInVain));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn one_pod_admits_at_the_stated_instant_and_refuses_a_nanosecond_before(
        limits in head_rates(), mut steps in steps(50), last in 0..4u32,
    ) {
        only_asks(&mut steps);
        let mut limiter = limiter_of(&limits, 1, 1000);
        let mut trace = Trace::default();
        for step in &steps {
            trace.step(&mut limiter, step);
        }
        if let Err(refusal) = ask(&mut limiter, last, &model(0), trace.now) {
            let retry = refusal.retry;
            prop_assert!(!retry.estimate && retry.wait > Nanos::ZERO && !retry.split);
            prop_assert!(!passes(&mut limiter, last, trace.now + retry.wait.0 - 1));
            prop_assert!(passes(&mut limiter, last, trace.now + retry.wait.0));
        }
    }

    #[test]
    fn every_pod_without_debt_admits_at_the_stated_instant(
        limits in head_rates(), traces in prop::collection::vec(steps(40), 3), last in 0..4u32, here in 0..3usize,
    ) {
        let mut pool: Vec<Limiter> = (0..3).map(|_| limiter_of(&limits, 3, 1000)).collect();
        let mut now = 0;
        for (pod, steps) in pool.iter_mut().zip(traces) {
            let mut trace = Trace::default();
            steps.iter().filter(|step| matches!(step.act, Act::Ask)).for_each(|step| {
                trace.step(pod, step);
            });
            now = now.max(trace.now);
        }
        if let Err(refusal) = ask(&mut pool[here], last, &model(0), now) {
            prop_assert!(!refusal.retry.estimate && refusal.retry.split);
            for pod in &mut pool {
                prop_assert!(passes(pod, last, now + refusal.retry.wait.0));
            }
        }
    }

    #[test]
    fn headers_and_refusals_tell_the_same_times(limits in head_rates(), steps in steps(40), last in 0..4u32) {
        let mut limiter = limiter_of(&limits, 1, 1000);
        let mut trace = Trace::default();
        for step in &steps {
            trace.step(&mut limiter, step);
        }
        let standings = limiter.standing(&head(last), None, Nanos(trace.now));
        let next = standings.iter().map(|standing| standing.next).max().unwrap_or(Nanos::ZERO);
        match ask(&mut limiter, last, &model(0), trace.now) {
            Ok(_under_way) => prop_assert_eq!(next, Nanos::ZERO),
            Err(refusal) => {
                prop_assert_eq!(next, refusal.retry.wait);
                let latest = standings.iter().filter_map(|s| s.reset_seconds(Some(&refusal.retry))).max();
                prop_assert_eq!(latest, Some(refusal.retry.wait.secs_ceil()));
            }
        }
        for standing in &standings {
            prop_assert!(standing.remaining <= standing.capacity);
            prop_assert_eq!(standing.remaining == 0, standing.next > Nanos::ZERO);
        }
    }
}

#[test]
fn with_several_pods_the_wait_covers_a_share_that_is_used_up_elsewhere() {
    let per = [KeyPart::Client];
    let limits = [rated("a", &per, rate(60, 60, 10)), rated("b", &per, rate(6, 60, 10))];
    let mut limiter = limiter_of(&limits, 2, 1000);
    let refused = (0..9).find_map(|_| ask(&mut limiter, 1, &model(0), 0).err()).unwrap();
    // Both shares of 5 are used up: b needs 10 s for one permit of the pool, 20 s for one of this pod.
    assert_eq!(refused.violations.len(), 2);
    assert_eq!(refused.retry.wait, Nanos::from_secs(20));
}

#[test]
fn a_limit_that_is_not_violated_lengthens_the_wait_only_with_several_pods() {
    let per = [KeyPart::Client];
    let limits = [rated("fast", &per, rate(60, 60, 1)), rated("slow", &per, rate(1, 60, 9))];
    let wait = |divisor| {
        let mut limiter = limiter_of(&limits, divisor, 1000);
        assert!(passes(&mut limiter, 1, 0));
        ask(&mut limiter, 1, &model(0), 0).unwrap_err().retry.wait
    };
    assert_eq!(wait(1), Nanos::from_secs(1));
    assert_eq!(wait(2), Nanos::from_secs(120));
}

#[test]
fn a_time_before_the_latest_is_taken_as_the_latest() {
    let mut limiter = limiter_of(&[rated("l", &[KeyPart::Client], rate(1, 10, 1))], 1, 1000);
    assert!(passes(&mut limiter, 1, 10_000_000_000));
    let refusal = ask(&mut limiter, 1, &model(0), 5_000_000_000).unwrap_err();
    assert_eq!(refusal.retry.wait, Nanos::from_secs(10));
}

#[test]
fn concurrency_says_that_its_wait_is_an_estimate() {
    let limits = [LimitDoc { concurrency: Some(1), scope: Scope::Pod, ..limit("c", &[KeyPart::Global]) }];
    let mut limiter = limiter_of(&limits, 2, 1000);
    let ticket = ask(&mut limiter, 1, &model(0), 0).unwrap();
    let refusal = ask(&mut limiter, 2, &model(0), 0).unwrap_err();
    assert_eq!(refusal.violations[0].unit, Unit::Concurrency);
    assert_eq!((refusal.violations[0].used, refusal.violations[0].allowed), (1, 1));
    let retry = refusal.retry;
    assert!(retry.estimate && retry.shared && !retry.split && retry.wait >= Nanos::from_secs(1));
    limiter.finish(ticket, Nanos(5));
    assert!(passes(&mut limiter, 2, 5));
}

#[test]
fn a_change_of_pods_between_refusal_and_retry_never_lengthens_the_wait_beyond_the_new_share() {
    let limits = [rated("l", &[KeyPart::Client], rate(1, 1, 4))];
    let mut limiter = limiter_of(&limits, 1, 1000);
    while passes(&mut limiter, 1, 0) {}
    limiter.set_divisor(pods(2), Nanos(0));
    let refusal = ask(&mut limiter, 1, &model(0), 0).unwrap_err();
    assert_eq!(refusal.retry.wait, Nanos::from_secs(2));
}
