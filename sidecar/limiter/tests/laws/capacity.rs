//! Law 9: bounded in keys, a limiter never admits what an unbounded one would refuse, and decides as it does for every
//! key that has an entry.

use corral_limiter::{LimitStats, Limiter, Nanos};
use corral_wire::{Algorithm, KeyPart, LimitDoc};
use proptest::prelude::*;

use crate::{
    oracle::Windows,
    support::{SECOND, algorithms, ask, limiter_of, model, passes, rate, rated},
};

const CLIENT: [KeyPart; 1] = [KeyPart::Client];

fn stats(limiter: &Limiter) -> LimitStats {
    limiter.stats().into_iter().find(|stats| stats.limit.name == "l").unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn few_entries_never_admit_what_many_would_refuse(
        capacity in 1..6usize, burst in 1..4u64,
        asks in prop::collection::vec((0..120_000_000u64, 0..10u32, any::<bool>()), 1..150),
    ) {
        let rate = rate(5, 1, burst);
        let mut bounded = limiter_of(&[rated("l", &CLIENT, rate)], 1, capacity);
        // What an unbounded limiter would hold after the same admissions.
        let mut unbounded = vec![Windows::new(5000, SECOND, burst); 10];
        let mut now = 0;
        for (after, client, abandons) in asks {
            now += after;
            let overflowed = stats(&bounded).overflowed;
            let wait = unbounded[client as usize].wait(now);
            match ask(&mut bounded, client, &model(0), now) {
                Ok(ticket) => {
                    prop_assert_eq!(wait, 0);
                    // An overflow bucket may keep more than one's own: only entries are compared with abandoned charges.
                    if abandons && stats(&bounded).overflowed == overflowed {
                        bounded.abandon(ticket, Nanos(now));
                    } else {
                        bounded.finish(ticket, None, Nanos(now));
                        unbounded[client as usize].admit(now);
                    }
                }
                // Only an overflow bucket is shared.
                Err(refusal) if !refusal.retry.shared => prop_assert_eq!(u128::from(refusal.retry.wait.0), wait),
                Err(refusal) => prop_assert!(u128::from(refusal.retry.wait.0) >= wait),
            }
            prop_assert!(stats(&bounded).keys <= capacity);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn whatever_the_algorithm_few_entries_never_admit_what_many_would_refuse(
        algorithm in algorithms(), capacity in 1..6usize, count in 1..5u64,
        asks in prop::collection::vec((0..4_000_000_000u64, 0..10u32), 1..150),
    ) {
        let window = if algorithm == Algorithm::FixedWindow { 60 } else { 10 };
        let limits = [LimitDoc { algorithm, ..rated("l", &CLIENT, rate(count, window, count)) }];
        let (mut bounded, mut unbounded) = (limiter_of(&limits, 1, capacity), limiter_of(&limits, 1, 1000));
        let mut now = 0;
        for (after, client) in asks {
            now += after;
            let wait = |limiter: &mut Limiter| match ask(limiter, client, &model(0), now) {
                Ok(ticket) => { limiter.abandon(ticket, Nanos(now)); Ok(()) }
                Err(refusal) => Err((refusal.retry.wait, refusal.retry.shared)),
            };
            match (wait(&mut bounded), wait(&mut unbounded)) {
                (Ok(()), Ok(())) => {
                    prop_assert!(passes(&mut bounded, client, now) && passes(&mut unbounded, client, now));
                }
                (Err((_, true)), Ok(())) => {}
                (Err((few, is_shared)), Err((many, _))) => prop_assert!(few == many || is_shared && few > many),
                (few, many) => prop_assert!(false, "{:?} with few entries, {:?} with many", few, many),
            }
            prop_assert!(stats(&bounded).keys <= capacity);
        }
    }
}

#[test]
fn two_hundred_thousand_strangers_do_not_reset_a_victim() {
    let mut limiter = limiter_of(&[rated("l", &CLIENT, rate(1, 3600, 2))], 1, 1000);
    assert!(passes(&mut limiter, 0, 0));
    assert!(passes(&mut limiter, 0, 0));
    for stranger in 1..200_000 {
        passes(&mut limiter, stranger, u64::from(stranger));
    }
    assert!(!passes(&mut limiter, 0, SECOND));
    assert_eq!(stats(&limiter).keys, 1000);
    // 1,024 overflow buckets of two each, however many strangers there are.
    assert_eq!(stats(&limiter).overflowed, 2048);
}

#[test]
fn full_buckets_make_room_without_a_pause() {
    let mut limiter = limiter_of(&[rated("l", &CLIENT, rate(10, 1, 1))], 1, 1000);
    for stranger in 0..50_000u32 {
        // 1,000 keys come in the time that a bucket takes to fill: entries are swept as fast as they come.
        assert!(passes(&mut limiter, stranger, u64::from(stranger) * 200_000));
    }
    assert_eq!(stats(&limiter).overflowed, 0);
    assert!(stats(&limiter).keys <= 1000);
}

#[test]
fn a_charge_to_an_entry_that_was_dropped_gives_nothing_back_to_its_successor() {
    let mut limiter = limiter_of(&[rated("l", &CLIENT, rate(1, 1, 1))], 1, 1000);
    for _ in 0..100 {
        let ticket = ask(&mut limiter, 1, &model(0), 0).unwrap();
        limiter.abandon(ticket, Nanos(0));
    }
    let old = ask(&mut limiter, 1, &model(0), 0).unwrap();
    // Enough strangers to sweep every table, after the bucket is full again.
    for stranger in 2..100 {
        assert!(passes(&mut limiter, stranger, 10 * SECOND));
    }
    assert!(passes(&mut limiter, 1, 10 * SECOND));
    limiter.abandon(old, Nanos(10 * SECOND));
    assert!(!passes(&mut limiter, 1, 10 * SECOND));
}

#[test]
fn nobody_gets_a_second_burst_by_moving_from_overflow_to_an_entry() {
    let mut limiter = limiter_of(&[rated("l", &CLIENT, rate(1, 1, 3))], 1, 1);
    assert!(passes(&mut limiter, 1, 0));
    for _ in 0..3 {
        assert!(passes(&mut limiter, 2, 0));
    }
    // At 1 s the only entry is full again; what client 2 used is not.
    assert!(passes(&mut limiter, 2, SECOND));
    assert!(!passes(&mut limiter, 2, SECOND));
}
