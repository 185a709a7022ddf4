//! What time brings: windows of the clock, and limits that adapt themselves.

use corral_limiter::{Limiter, LimiterSettings, Nanos, Unit};
use corral_wire::{AdaptiveDoc, Algorithm, KeyPart, LimitDoc, ResetDoc};

use crate::support::{SECOND, ask, limit, limiter, model, passes, plan, pods, rate, rated};

const CLIENT: [KeyPart; 1] = [KeyPart::Client];
/// 2026-03-29 00:00 UTC, the day on which clocks go forward in Kyiv.
const MARCH: i128 = 1_774_742_400_000_000_000;
const HOUR: u64 = 3600 * SECOND;

fn at(limits: &[LimitDoc], unix: i128) -> Limiter {
    let mut limiter = Limiter::new(LimiterSettings { hash_key: *b"a key for tests!", keys_per_limit: 1000 });
    limiter.tell_wall(Nanos::ZERO, unix);
    limiter.swap(plan(limits), pods(1), Nanos::ZERO);
    limiter
}

fn fixed(count: u64, window: u64) -> LimitDoc {
    LimitDoc { algorithm: Algorithm::FixedWindow, ..rated("f", &CLIENT, rate(count, window, count)) }
}

fn passed(limiter: &mut Limiter, now: u64) -> usize {
    (0..10).filter(|_| passes(limiter, 1, now)).count()
}

#[test]
fn a_window_of_the_clock_begins_with_the_minute() {
    let mut limiter = at(&[fixed(3, 60)], MARCH + 50 * i128::from(SECOND));
    assert_eq!(passed(&mut limiter, 0), 3);
    let refusal = ask(&mut limiter, 1, &model(0), SECOND).unwrap_err();
    assert_eq!(refusal.retry.wait, Nanos(9 * SECOND));
    assert_eq!(passed(&mut limiter, 10 * SECOND - 1), 0);
    assert_eq!(passed(&mut limiter, 10 * SECOND), 3);
    assert_eq!(passed(&mut limiter, 69 * SECOND), 0);
    assert_eq!(passed(&mut limiter, 70 * SECOND), 3);
}

#[test]
fn a_day_ends_at_its_reset_in_its_time_zone_however_long_it_is() {
    let reset = ResetDoc { minute_of_day: 0, time_zone: "Europe/Kyiv".into() };
    let daily = LimitDoc { reset: Some(reset), ..fixed(3, 86_400) };
    // It is 02:00 in Kyiv; this day has 23 hours.
    let mut limiter = at(&[daily], MARCH);
    assert_eq!(passed(&mut limiter, 0), 3);
    assert_eq!(ask(&mut limiter, 1, &model(0), 0).unwrap_err().retry.wait, Nanos(21 * HOUR));
    assert_eq!(passed(&mut limiter, 21 * HOUR - 1), 0);
    assert_eq!(passed(&mut limiter, 21 * HOUR), 3);
}

#[test]
fn a_clock_that_is_put_back_begins_no_window_again() {
    let mut limiter = at(&[fixed(3, 3600)], MARCH);
    assert_eq!(passed(&mut limiter, HOUR), 3);
    limiter.tell_wall(Nanos(HOUR), MARCH + i128::from(HOUR / 2));
    assert_eq!(passed(&mut limiter, HOUR), 0);
    let wait = ask(&mut limiter, 1, &model(0), HOUR).unwrap_err().retry.wait;
    assert_eq!(wait, Nanos(HOUR + HOUR / 2));
    assert_eq!(passed(&mut limiter, HOUR + wait.0), 3);
}

#[test]
fn another_reset_begins_fresh_and_is_told() {
    let daily = |minute_of_day| LimitDoc {
        reset: Some(ResetDoc { minute_of_day, time_zone: "UTC".into() }),
        ..fixed(3, 86_400)
    };
    let mut limiter = at(&[daily(0)], MARCH);
    assert_eq!(passed(&mut limiter, 0), 3);
    assert!(limiter.swap(plan(&[daily(0)]), pods(1), Nanos(0)).fresh.is_empty());
    assert_eq!(passed(&mut limiter, 0), 0);
    let summary = limiter.swap(plan(&[daily(60)]), pods(1), Nanos(0));
    assert_eq!(summary.fresh.iter().map(|(_, unit)| *unit).collect::<Vec<_>>(), [Unit::Requests]);
    assert_eq!(passed(&mut limiter, 0), 3);
}

fn milli(limiter: &Limiter) -> Vec<u32> {
    limiter.stats().iter().map(|stats| stats.adaptive_milli).collect()
}

#[test]
fn only_limits_that_adapt_are_halved_by_trouble_once_a_second_and_grow_again() {
    let adaptive = |min_milli| Some(AdaptiveDoc { min_milli });
    let limits = [
        LimitDoc { adaptive: adaptive(200), concurrency: Some(8), ..rated("a", &CLIENT, rate(80, 1, 8)) },
        LimitDoc { adaptive: adaptive(900), ..limit_of(4) },
        rated("plain", &CLIENT, rate(80, 1, 8)),
    ];
    let mut limiter = limiter(&limits);
    assert_eq!(milli(&limiter), [1000; 4]);
    for _ in 0..10 {
        limiter.trouble(Nanos(5 * SECOND));
    }
    assert_eq!(milli(&limiter), [1000, 500, 900, 1000]);
    limiter.trouble(Nanos(6 * SECOND));
    limiter.trouble(Nanos(7 * SECOND));
    assert_eq!(milli(&limiter), [1000, 200, 900, 1000]);
    let standing = limiter.standing(&crate::support::head(1), None, Nanos(7 * SECOND));
    let a = standing.iter().filter(|one| one.limit.name == "a").map(|one| (one.quota, one.capacity));
    assert_eq!(a.collect::<Vec<_>>(), [(16, 1), (1, 1)]);
    // A plan that says the same changes nothing.
    limiter.swap(plan(&limits), pods(1), Nanos(7 * SECOND));
    assert_eq!(milli(&limiter), [1000, 200, 900, 1000]);
    for second in 8..38 {
        passes(&mut limiter, 2, second * SECOND);
    }
    assert_eq!(milli(&limiter)[1], 220);
    for second in 38..600 {
        passes(&mut limiter, 2, second * SECOND);
    }
    assert_eq!(milli(&limiter), [1000; 4]);
    assert_eq!(passed(&mut limiter, 600 * SECOND), 8);
}

fn limit_of(concurrency: u32) -> LimitDoc {
    LimitDoc { concurrency: Some(concurrency), ..limit("b", &CLIENT) }
}
