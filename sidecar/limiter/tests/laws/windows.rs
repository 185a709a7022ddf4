//! Law 1: no closed window of a bucket holds more real cost than B + ⌊t/T⌋, but for what real costs exceed what was
//! reserved and for costs above the burst.

use corral_limiter::{
    Nanos,
    algo::{
        Bucket,
        gcra::{Charge, Pace, TokenBucket},
    },
};
use corral_wire::KeyPart;
use proptest::prelude::*;

use crate::{
    oracle::{Windows, worst_excess},
    support::{SECOND, ask, gap, limiter, model, rate, rated},
};

/// A request on a bare bucket: what it reserves, what it costs, and how many requests later it is settled.
type Request = (u64, u64, u64, usize);

fn requests() -> impl Strategy<Value = Vec<Request>> {
    prop::collection::vec((0..12u64, 1..9u64, 0..14u64, 0..5usize), 1..40)
}

/// Runs requests over a bucket; says what was charged when, in real costs, and the two excesses that law 1 allows.
fn run(pace: &Pace, requests: &[Request]) -> (Vec<(u64, u64)>, u128) {
    let mut bucket = TokenBucket::full();
    let mut open: Vec<(usize, Charge, u64)> = Vec::new();
    let mut charged = Vec::new();
    let (mut now, mut more_than_reserved, mut above_burst) = (0, 0, 0);
    for (place, (after, reserved, real, settled_after)) in requests.iter().enumerate() {
        now += after;
        let (due, rest) = open.into_iter().partition(|(when, ..)| *when <= place);
        open = rest;
        for (_, charge, real) in due {
            bucket.settle(pace, charge, real, Nanos(now));
        }
        if bucket.wait(pace, *reserved, Nanos(now)) > Nanos::ZERO {
            continue;
        }
        open.push((place + settled_after, bucket.take(pace, *reserved, Nanos(now)), *real));
        charged.push((now, *real));
        more_than_reserved += u128::from(real.saturating_sub(*reserved));
        above_burst = above_burst.max(u128::from(reserved.saturating_sub(pace.burst())));
    }
    (charged, more_than_reserved + above_burst)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_bare_bucket_keeps_its_bound_whatever_requests_really_cost(
        interval in 1..6u64, burst in 1..12u64, requests in requests(),
    ) {
        let (charged, allowed) = run(&Pace::new(Nanos(interval), burst), &requests);
        let excess = worst_excess(charged, interval.into(), burst.into());
        prop_assert!(excess <= allowed, "{} above the bound, {} allowed", excess, allowed);
    }

    #[test]
    fn a_limit_admits_exactly_what_a_scan_of_all_windows_admits(
        count_milli in 1..30_000u64, window in 1..4u64, burst in 1..7u64,
        asks in prop::collection::vec((gap(), 0..3u32), 1..60),
    ) {
        let rate = corral_wire::RateDoc { count_milli, window_seconds: window, burst };
        let mut limiter = limiter(&[rated("l", &[KeyPart::Client], rate)]);
        let mut oracles = vec![Windows::new(count_milli, window * SECOND, burst); 3];
        let mut now = 0;
        for (after, client) in asks {
            now += after;
            let oracle = &mut oracles[client as usize];
            let wait = oracle.wait(now);
            match ask(&mut limiter, client, &model(0), now) {
                Ok(ticket) => {
                    limiter.finish(ticket, None, Nanos(now));
                    prop_assert_eq!(wait, 0);
                    oracle.admit(now);
                }
                Err(refusal) => prop_assert_eq!(u128::from(refusal.retry.wait.0), wait),
            }
        }
    }
}

#[test]
fn seven_a_minute_with_a_burst_of_two_admits_two_at_once() {
    let mut limiter = limiter(&[rated("l", &[KeyPart::Client], rate(7, 60, 2))]);
    let admitted = (0..9).filter(|_| crate::support::passes(&mut limiter, 1, 0)).count();
    assert_eq!(admitted, 2);
}
