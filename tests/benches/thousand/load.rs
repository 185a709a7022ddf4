//! What pods say of their load: numbers that move as those of a busy pool do.

use std::time::Duration;

use corral_wire::{Counters, Gauges};

/// Slots of a pod.
const SLOTS: u32 = 4;
/// For how long a request holds one.
const SERVICE_MILLIS: u64 = 8_000;
/// Milliseconds from one request of a pod to the next: with [`SERVICE_MILLIS`] it uses 2.4 of its slots.
const EVERY_MILLIS: u64 = 3_333;

/// Requests that a pod works at, at one time.
const UNDER_WAY: u64 = 2;

/// What a pod has counted after `life`. `seed` keeps pods apart.
pub(crate) fn counters(life: Duration, seed: u64) -> Counters {
    let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    let arrivals = millis.saturating_add(scatter(seed) % EVERY_MILLIS) / EVERY_MILLIS;
    let completions = arrivals.saturating_sub(UNDER_WAY);
    Counters {
        arrivals,
        completions,
        slot_millis: completions.saturating_mul(SERVICE_MILLIS),
        tokens_in: completions.saturating_mul(300),
        tokens_out: completions.saturating_mul(200),
        ..Counters::default()
    }
}

/// How it stands at its `nth` report: one in five finds a request or two that wait. `burst` of them more are scripted.
pub(crate) fn gauges(seed: u64, nth: u32, burst: u32) -> Gauges {
    let chance = scatter(seed.wrapping_mul(1_000_003).wrapping_add(u64::from(nth)));
    let waits = if chance.is_multiple_of(5) { 1 + u32::from(chance.is_multiple_of(2)) } else { 0 };
    let queued = burst.saturating_add(waits);
    Gauges {
        slots: SLOTS,
        in_flight: 1 + u32::from(chance.is_multiple_of(3)) + u32::from(chance.is_multiple_of(7)),
        queued,
        queued_cost_ms: u64::from(queued).saturating_mul(SERVICE_MILLIS),
        oldest_wait_ms: if queued > 0 { chance % 1_000 } else { 0 },
        predicted_wait_ms: 0,
        load_permille: 600,
    }
}

/// Numbers that look like chance, the same each time (splitmix64).
fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
