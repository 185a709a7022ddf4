//! Law 10: what all pods together admit in any window is the policy's, plus what the splitting of a burst can add.

use corral_limiter::{Limiter, Nanos};
use corral_wire::{KeyPart, LimitDoc, Scope};
use proptest::prelude::*;

use crate::{
    oracle::{Windows, worst_excess},
    support::{SECOND, ask, gap, limit, limiter_of, model, passes, pods, rate, rated},
};

const CLIENT: [KeyPart; 1] = [KeyPart::Client];

/// Brings the pool from one number of serving pods to another, as the exchange does: when it grows all take the new D
/// before the newcomers serve, when it shrinks the old ones go first. Says how often D changed.
fn scale(pool: &mut Vec<Limiter>, to: usize, limits: &[LimitDoc], now: u64) -> usize {
    let changes = usize::from(to != pool.len());
    pool.truncate(to);
    let divisor = u32::try_from(to).unwrap();
    for pod in pool.iter_mut() {
        pod.set_divisor(pods(divisor), Nanos(now));
    }
    pool.resize_with(to, || limiter_of(limits, divisor, 1000));
    changes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn all_pods_together_keep_the_bound_of_the_pool(
        count_milli in 1000..20_000u64, burst in 1..8u64, start in 1..5usize,
        events in prop::collection::vec((gap(), any::<prop::sample::Index>(), 0..40usize), 1..120),
    ) {
        let rate = corral_wire::RateDoc { count_milli, window_seconds: 1, burst };
        let limits = [rated("l", &CLIENT, rate)];
        let divisor = u32::try_from(start).unwrap();
        let mut pool: Vec<_> = (0..start).map(|_| limiter_of(&limits, divisor, 1000)).collect();
        let (mut now, mut changes, mut largest, mut admitted) = (0, 0, start, Vec::new());
        for (after, which, kind) in events {
            now += after;
            if (1..5).contains(&kind) {
                changes += scale(&mut pool, kind, &limits, now);
                largest = largest.max(kind);
            }
            let pod = which.index(pool.len());
            if passes(&mut pool[pod], 1, now) {
                admitted.push((now, 1));
            }
        }
        let whole = Windows::new(count_milli, SECOND, burst);
        let one_burst = whole.burst.max(largest as u128);
        let bound = one_burst * (1 + changes as u128);
        prop_assert_eq!(worst_excess(admitted, whole.interval, bound), 0);
    }
}

#[test]
fn two_pods_admit_half_each_and_ten_together() {
    let limits = [rated("l", &CLIENT, rate(60, 60, 10))];
    let mut pool = [limiter_of(&limits, 2, 1000), limiter_of(&limits, 2, 1000)];
    for pod in &mut pool {
        assert_eq!((0..20).filter(|_| passes(pod, 1, 0)).count(), 5);
    }
}

#[test]
fn scope_pod_gives_each_pod_the_whole() {
    let limits = [LimitDoc { scope: Scope::Pod, ..rated("l", &CLIENT, rate(60, 60, 10)) }];
    let mut limiter = limiter_of(&limits, 4, 1000);
    assert_eq!((0..20).filter(|_| passes(&mut limiter, 1, 0)).count(), 10);
    assert!(!ask(&mut limiter, 1, &model(0), 0).unwrap_err().retry.split);
}

#[test]
fn concurrency_is_shared_but_never_below_one() {
    let limits = [LimitDoc { concurrency: Some(5), ..limit("c", &CLIENT) }];
    for (divisor, share) in [(1, 5), (2, 2), (5, 1), (9, 1)] {
        let mut limiter = limiter_of(&limits, divisor, 1000);
        let held: Vec<_> = (0..9).filter_map(|_| ask(&mut limiter, 1, &model(0), 0).ok()).collect();
        assert_eq!(held.len(), share);
    }
}
