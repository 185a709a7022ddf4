//! The token bucket as GCRA: one instant a bucket instead of a level and a timestamp.
//!
//! A permit takes T = ⌈W/N⌉ ns to come back, rounded once; costs and bursts are exact multiples of it. `tat` (the
//! theoretical arrival time, ITU-T I.371) is the instant at which the bucket is full again. A cost c is admitted iff
//! `max(tat, now) + c·T − now ≤ B·T`, and then `tat = max(tat, now) + c·T`. So any closed window of length t admits
//! at most B + ⌊t/T⌋. Instants here are `i128`: B·T of a slow rate over many pods does not fit 64 bits, and the start
//! of an old charge may lie before the origin; `packed` keeps them in less. Overflow saturates towards admitting less.

use std::num::NonZeroU32;

use super::{
    Bucket, Swap,
    packed::{Numbers, Packed},
};
use crate::Nanos;

/// What a bucket enforces: a permit every `interval`, at most `burst` at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    interval: i128,
    burst: u64,
}

impl Pace {
    /// Any pace. 0 is taken as 1, of both.
    pub fn new(interval: Nanos, burst: u64) -> Self {
        Self { interval: i128::from(interval.0.max(1)), burst: burst.max(1) }
    }

    /// What one of `pods` pods enforces: T·D, and a burst that is a share already.
    pub fn shared(interval: Nanos, burst: u64, pods: NonZeroU32) -> Self {
        let whole = Self::new(interval, burst);
        Self { interval: whole.interval.saturating_mul(i128::from(pods.get())), ..whole }
    }

    /// T: how long one permit takes to come back. Saturates at 584 years.
    pub fn interval(&self) -> Nanos {
        to_nanos(self.interval)
    }

    /// B: how many permits there are at one instant.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// How long `cost` permits take to come back: what an empty bucket makes a request wait.
    pub fn time_of(&self, cost: u64) -> Nanos {
        to_nanos(self.length(cost))
    }

    #[inline]
    fn length(&self, cost: u64) -> i128 {
        match u64::try_from(self.interval) {
            // A product of 64 bits each is one step of the machine, one of 128 bits with its overflow is many.
            Ok(interval) => {
                let length = u128::from(interval).saturating_mul(u128::from(cost));
                i128::try_from(length).unwrap_or(i128::MAX)
            }
            Err(_) => self.interval.saturating_mul(i128::from(cost)),
        }
    }
}

/// A bucket. Two that were never charged are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBucket {
    /// The end is `tat`, the instant from which on it is full; given is R, all time that it has ever given back.
    packed: Packed,
}

/// What one request took from a bucket: with it, and only once, it is settled.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a charge that is dropped stands in full"]
pub struct Charge {
    /// p = s + R: where it starts, in coordinates that later give-backs do not move.
    place: i128,
    cost: u64,
    /// Whether a swap has happened since.
    is_carried: bool,
}

impl Bucket for TokenBucket {
    type Pace = Pace;
    type Charge = Charge;

    fn full() -> Self {
        Self { packed: Packed::NONE }
    }

    /// A cost above the burst can never fit: it is admitted when the bucket is full, and leaves a debt.
    fn wait(&self, pace: &Pace, cost: u64, now: Nanos) -> Nanos {
        let room = pace.length(pace.burst.saturating_sub(cost));
        to_nanos(self.ahead(now).saturating_sub(room))
    }

    fn take(&mut self, pace: &Pace, cost: u64, now: Nanos) -> Charge {
        let Numbers { end: tat, given, cut } = self.packed.numbers();
        let start = tat.max(instant(now));
        self.packed = Packed::new(Numbers { end: start.saturating_add(pace.length(cost)), given, cut });
        Charge { place: start.saturating_add(given), cost, is_carried: false }
    }

    /// Less gives back, but never what has leaked back already: of the reserved length c and the real length a it
    /// gives back `(s' + c) − max(s' + a, now)` if that is positive, where s' = p − R is the charge's start moved by
    /// all that was given back since. (`tat −= c − a` would admit more than the bound: take 10 of B = 10, T = 1 at 0,
    /// another takes 1 at 9, give 10 back at 9: 10 more would pass at 9.) More is charged on top, as debt.
    fn settle(&mut self, pace: &Pace, charge: Charge, real: u64, now: Nanos) {
        let more = pace.length(real.saturating_sub(charge.cost));
        let Numbers { end: tat, given, cut } = self.packed.numbers();
        let start = charge.place.saturating_sub(given);
        let reserved_to = start.saturating_add(pace.length(charge.cost));
        let spent_to = start.saturating_add(pace.length(real)).max(instant(now));
        let back = reserved_to.saturating_sub(spent_to).max(0);
        let from_cut = if charge.is_carried { back.min(cut) } else { 0 };
        self.packed = Packed::new(Numbers {
            end: tat.saturating_add(more).saturating_sub(back.saturating_sub(from_cut)),
            given: given.saturating_add(back),
            cut: cut.saturating_sub(from_cut),
        });
    }

    /// As if the charge had been for all of it from the start: the bucket is then at least as used as it would be, and
    /// what a later settle gives back is counted from that start, so that it is never too much.
    fn extend(&mut self, pace: &Pace, charge: &mut Charge, more: u64, _now: Nanos) {
        let numbers = self.packed.numbers();
        let end = numbers.end.saturating_add(pace.length(more));
        self.packed = Packed::new(Numbers { end, ..numbers });
        charge.cost = charge.cost.saturating_add(more);
    }

    fn is_full(&self, _pace: &Pace, now: Nanos) -> bool {
        self.packed.end() <= instant(now)
    }

    fn until_full(&self, _pace: &Pace, now: Nanos) -> Nanos {
        to_nanos(self.ahead(now))
    }

    fn used(&self, pace: &Pace, now: Nanos) -> u64 {
        to_u64(scale_up(self.ahead(now), pace.interval, 1))
    }

    fn available(&self, pace: &Pace, now: Nanos) -> u64 {
        pace.burst.saturating_sub(self.used(pace, now))
    }

    fn capacity(pace: &Pace) -> u64 {
        pace.burst
    }

    fn longest_wait(pace: &Pace, cost: u64, _now: Nanos) -> Nanos {
        pace.time_of(cost.min(pace.burst))
    }

    /// In permits: u = (tat − at)⁺/T used and d = (u − B)⁺ owed become u' = min(u, B' + d): raising acts at once,
    /// lowering makes no debt. Times scale by T'/T about the instant of the swap, rounded so that no charge can get back
    /// more than the bucket has of it.
    ///
    /// What u' cuts off is kept apart. Charges from before give back of that first, and only then of what is used: else
    /// they would give back what they had been let off. (Two take 5 each of B = 10; B' = 5 leaves u' = 5; one gives
    /// its 5 back: the other's 5 are still used.)
    fn carry(&mut self, swap: &Swap<Pace>) {
        let (from, to) = (swap.from.interval, swap.to.interval);
        let ahead = self.ahead(swap.at);
        let mut numbers = self.packed.numbers();
        numbers.given = scale_up(numbers.given, from, to);
        numbers.cut = scale_up(numbers.cut, from, to);
        if ahead == 0 {
            self.packed = Packed::new(numbers);
            return;
        }
        let owed = ahead.saturating_sub(swap.from.length(swap.from.burst)).max(0);
        let used = scale_up(ahead, from, to);
        let kept = used.min(swap.to.length(swap.to.burst).saturating_add(scale_up(owed, from, to)));
        numbers.cut = numbers.cut.saturating_add(used.saturating_sub(kept));
        numbers.end = instant(swap.at).saturating_add(kept);
        self.packed = Packed::new(numbers);
    }

    fn carry_charge(charge: Charge, swap: &Swap<Pace>) -> Charge {
        let at = instant(swap.at);
        let from_swap = charge.place.saturating_sub(at);
        let place = at.saturating_add(scale_down(from_swap, swap.from.interval, swap.to.interval));
        Charge { place, is_carried: true, ..charge }
    }
}

impl TokenBucket {
    fn ahead(&self, now: Nanos) -> i128 {
        self.packed.end().saturating_sub(instant(now)).max(0)
    }
}

fn instant(now: Nanos) -> i128 {
    i128::from(now.0)
}

fn to_nanos(length: i128) -> Nanos {
    Nanos(to_u64(length))
}

fn to_u64(length: i128) -> u64 {
    u64::try_from(length.max(0)).unwrap_or(u64::MAX)
}

/// ⌊x·to/from⌋ for positive `from` and `to`. Whole intervals and the rest apart, so that only a rest above 10¹⁹ can
/// overflow; that is then left out.
fn scale_down(x: i128, from: i128, to: i128) -> i128 {
    let whole = x.checked_div_euclid(from).unwrap_or(0).saturating_mul(to);
    let rest = x.checked_rem_euclid(from).unwrap_or(0).checked_mul(to);
    whole.saturating_add(rest.and_then(|product| product.checked_div(from)).unwrap_or(0))
}

/// ⌈x·to/from⌉ for positive `from` and `to`; where the rest overflows it counts as a whole interval.
fn scale_up(x: i128, from: i128, to: i128) -> i128 {
    let whole = x.checked_div_euclid(from).unwrap_or(0).saturating_mul(to);
    let rest = x.checked_rem_euclid(from).unwrap_or(0).checked_mul(to);
    let up = rest.map(|product| product.saturating_add(from.saturating_sub(1)));
    whole.saturating_add(up.and_then(|product| product.checked_div(from)).unwrap_or(to))
}
