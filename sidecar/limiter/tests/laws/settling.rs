//! Law 2: settling never leaves a bucket with more than if the real costs had been known from the start.

use corral_limiter::{
    Nanos,
    algo::{
        Bucket, Swap,
        gcra::{Pace, TokenBucket},
    },
};
use corral_wire::KeyPart;
use proptest::prelude::*;

use crate::support::{ask, limiter, model, passes, rate, rated};

/// Charges of a naive bucket, each with what it is known to cost: how long until it is full.
fn replayed(interval: u64, charges: &[(u64, u64)], now: u64) -> u64 {
    let full_at = charges.iter().fold(0, |full_at: u64, (at, cost)| full_at.max(*at) + cost * interval);
    full_at.saturating_sub(now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn after_every_settle_at_least_as_much_is_used_as_had_the_costs_been_known(
        interval in 1..6u64,
        events in prop::collection::vec((0..10u64, 1..9u64, 0..12u64, any::<prop::sample::Index>()), 1..30),
    ) {
        let pace = Pace::new(Nanos(interval), 10);
        let mut bucket = TokenBucket::full();
        let (mut open, mut known) = (Vec::new(), Vec::new());
        let mut now = 0;
        for (place, (after, reserved, real, which)) in events.into_iter().enumerate() {
            now += after;
            open.push((place, bucket.take(&pace, reserved, Nanos(now))));
            known.push((now, reserved));
            if real % 2 == 0 {
                let (settled, charge) = open.remove(which.index(open.len()));
                known[settled].1 = real;
                bucket.settle(&pace, charge, real, Nanos(now));
                prop_assert!(bucket.until_full(&pace, Nanos(now)).0 >= replayed(interval, &known, now));
            }
        }
    }

    #[test]
    fn settling_the_latest_charge_at_once_to_nothing_leaves_no_trace(
        interval in 1..1_000_000u64, costs in prop::collection::vec(1..9u64, 0..5), now in 0..1_000_000u64,
    ) {
        let pace = Pace::new(Nanos(interval), 10);
        let mut bucket = TokenBucket::full();
        for cost in costs {
            let _stands = bucket.take(&pace, cost, Nanos(0));
        }
        let before = bucket.until_full(&pace, Nanos(now));
        let charge = bucket.take(&pace, 3, Nanos(now));
        bucket.settle(&pace, charge, 0, Nanos(now));
        prop_assert_eq!(bucket.until_full(&pace, Nanos(now)), before);
    }

    #[test]
    fn settling_at_what_was_reserved_changes_nothing(
        interval in 1..1000u64, cost in 1..9u64, later in 0..5000u64,
    ) {
        let pace = Pace::new(Nanos(interval), 10);
        let mut bucket = TokenBucket::full();
        let charge = bucket.take(&pace, cost, Nanos(0));
        let before = bucket.clone();
        bucket.settle(&pace, charge, cost, Nanos(later));
        prop_assert_eq!(bucket, before);
    }

    #[test]
    fn a_charge_settles_across_swaps_as_in_one_pace_and_rounds_towards_admitting_less(
        paces in prop::collection::vec((1000..50_000u64, 1..20u64, 0..40_000u64), 1..5), taken in 1..10u64, real in 0..10u64,
    ) {
        let mut pace = Pace::new(Nanos(10_000), 10);
        let mut bucket = TokenBucket::full();
        let mut charge = bucket.take(&pace, taken, Nanos(0));
        let (mut now, mut leaked) = (0, 0.0);
        for (interval, burst, after) in paces {
            now += after;
            leaked += to_f64(after) / to_f64(pace.interval().0);
            let to = Pace::new(Nanos(interval), burst.max(taken));
            let swap = Swap { at: Nanos(now), from: pace, to };
            bucket.carry(&swap);
            (charge, pace) = (TokenBucket::carry_charge(charge, &swap), to);
        }
        bucket.settle(&pace, charge, real.min(taken), Nanos(now));
        let left = (to_f64(real.min(taken)) - leaked).max(0.0);
        let used = to_f64(bucket.until_full(&pace, Nanos(now)).0) / to_f64(pace.interval().0);
        prop_assert!(used >= left - 1e-9, "{} used, {} really", used, left);
        prop_assert!(used <= left + 0.02, "{} used, {} really", used, left);
    }
}

/// What happened to a bucket, at an instant.
#[derive(Debug, Clone, Copy)]
enum Event {
    Take(u64),
    Swap(Pace),
}

/// Permits used now had all costs been known: by filling and leaking, in floating point.
fn level(first: Pace, events: &[(u64, Event)], now: u64) -> f64 {
    let (mut pace, mut level, mut last) = (first, 0.0_f64, 0);
    let burst = |pace: Pace| to_f64(pace.burst());
    for (at, event) in events.iter().copied().chain([(now, Event::Take(0))]) {
        level = (level - to_f64(at - last) / to_f64(pace.interval().0)).max(0.0);
        last = at;
        match event {
            Event::Take(cost) => level += to_f64(cost),
            Event::Swap(to) => {
                level = level.min(burst(to) + (level - burst(pace)).max(0.0));
                pace = to;
            }
        }
    }
    level
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn across_swaps_too_at_least_as_much_is_used_as_had_the_costs_been_known(
        steps in prop::collection::vec(
            (0..60_000u64, 0..10u8, 1..9u64, 0..9u64, 1000..30_000u64, any::<prop::sample::Index>()), 1..30,
        ),
    ) {
        let first = Pace::new(Nanos(10_000), 10);
        let (mut pace, mut bucket, mut now) = (first, TokenBucket::full(), 0);
        let (mut open, mut known) = (Vec::new(), Vec::new());
        for (after, kind, cost, real, interval, which) in steps {
            now += after;
            match kind {
                0..5 => {
                    open.push((known.len(), cost, bucket.take(&pace, cost, Nanos(now))));
                    known.push((now, Event::Take(cost)));
                }
                5..7 => {
                    let to = Pace::new(Nanos(interval), cost);
                    let swap = Swap { at: Nanos(now), from: pace, to };
                    bucket.carry(&swap);
                    open = open.into_iter().map(|(at, cost, charge)| (at, cost, TokenBucket::carry_charge(charge, &swap))).collect();
                    pace = to;
                    known.push((now, Event::Swap(to)));
                }
                _ if !open.is_empty() => {
                    let (at, reserved, charge) = open.remove(which.index(open.len()));
                    known[at].1 = Event::Take(real.min(reserved));
                    bucket.settle(&pace, charge, real.min(reserved), Nanos(now));
                }
                _ => {}
            }
            let used = to_f64(bucket.until_full(&pace, Nanos(now)).0) / to_f64(pace.interval().0);
            let really = level(first, &known, now);
            prop_assert!(used >= really - 1e-6, "{} used, {} really", used, really);
        }
    }
}

fn to_f64(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}

#[test]
fn giving_back_what_has_leaked_admits_nothing_more() {
    let pace = Pace::new(Nanos(1), 10);
    let mut bucket = TokenBucket::full();
    let first = bucket.take(&pace, 10, Nanos(0));
    assert_eq!(bucket.wait(&pace, 1, Nanos(9)), Nanos::ZERO);
    let _stands = bucket.take(&pace, 1, Nanos(9));
    bucket.settle(&pace, first, 0, Nanos(9));
    // Nine of the first ten had leaked back: with the one that was taken at 9, nine more make ten.
    assert_eq!(bucket.available(&pace, Nanos(9)), 9);
    assert_eq!(bucket.wait(&pace, 10, Nanos(9)), Nanos(1));
}

#[test]
fn forty_thousand_tokens_a_minute_nearly_used_make_3100_wait_two_seconds_not_seven() {
    let pace = Pace::new(Nanos(1_500_000), 40_000);
    let mut bucket = TokenBucket::full();
    let _stands = bucket.take(&pace, 38_210, Nanos(0));
    assert_eq!(bucket.used(&pace, Nanos(0)), 38_210);
    assert_eq!(bucket.wait(&pace, 3_100, Nanos(0)), Nanos(1_965_000_000));
}

#[test]
fn a_cost_above_the_burst_waits_for_a_full_bucket_and_leaves_a_debt() {
    let pace = Pace::new(Nanos(10), 5);
    let mut bucket = TokenBucket::full();
    let _stands = bucket.take(&pace, 1, Nanos(0));
    assert_eq!(bucket.wait(&pace, 8, Nanos(0)), Nanos(10));
    assert_eq!(bucket.wait(&pace, 8, Nanos(10)), Nanos::ZERO);
    let _stands = bucket.take(&pace, 8, Nanos(10));
    assert_eq!(bucket.used(&pace, Nanos(10)), 8);
    assert_eq!(bucket.wait(&pace, 1, Nanos(10)), Nanos(40));
}

#[test]
fn who_leaves_unserved_gets_back_what_has_not_leaked_and_no_more() {
    let mut limiter = limiter(&[rated("l", &[KeyPart::Client], rate(1, 1, 2))]);
    let ticket = ask(&mut limiter, 1, &model(0), 0).unwrap();
    limiter.abandon(ticket, Nanos(0));
    assert!(passes(&mut limiter, 1, 0));
    let ticket = ask(&mut limiter, 1, &model(0), 0).unwrap();
    assert!(!passes(&mut limiter, 1, 0));
    // It was charged from 1 s to 2 s: half of that has leaked back by 1.5 s.
    limiter.abandon(ticket, Nanos(1_500_000_000));
    assert!(passes(&mut limiter, 1, 1_500_000_000));
    assert!(passes(&mut limiter, 1, 1_500_000_000));
    assert!(!passes(&mut limiter, 1, 1_500_000_000));
}
