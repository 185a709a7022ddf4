//! The sliding log: every request by its time, so that any stretch of length W holds at most N, exactly.
//!
//! An entry counts from its instant on for W and not at its end: the bound holds for any half-open stretch. That costs
//! memory for each request; so it is for counts of requests up to [`MOST`], and [`Bucket::weight`] says how much it
//! keeps. What came at one instant is one entry. Entries carry running totals, so that a decision is a binary search.
//!
//! A request costs 1 and a give-back removes it from where it stands, if it still counts. Other costs work the same:
//! one above N is admitted when the log is empty. There is no debt to carry on: what is too much leaves as it came, W
//! later. A swap keeps the times; what is above the new limit is cut from the oldest.

use std::collections::VecDeque;

use super::{Bucket, Swap};
use crate::Nanos;

/// The largest limit a log is for.
pub const MOST: u64 = 10_000;
/// More than any limit: what a single charge counts as at most, so that totals do not overflow.
const MOST_COST: u64 = u32::MAX as u64;

/// Entries that a bucket keeps room for once it has needed it.
const ROOM_KEPT: usize = 16;

/// What a bucket enforces: `limit` in any stretch as long as `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// N: 1 to [`MOST`]; what is outside counts as the nearest.
    pub limit: u64,
    /// W. 0 is taken as 1 ns.
    pub window: Nanos,
}

impl Pace {
    fn limit(&self) -> u64 {
        self.limit.clamp(1, MOST)
    }

    fn window(&self) -> Nanos {
        self.window.max(Nanos(1))
    }
}

/// What came at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    at: Nanos,
    /// The sum of costs up to and with it.
    through: u64,
}

/// What one request took: with it, and only once, it is settled.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a charge that is dropped stands in full"]
pub struct Charge {
    at: Nanos,
    cost: u64,
    /// What was charged on top, at other instants.
    more: u64,
    is_carried: bool,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingLog {
    /// In order of time, none without a cost.
    entries: VecDeque<Entry>,
    /// The sum of costs before the first entry.
    gone: u64,
    /// What swaps cut off: charges from before them give back from here first.
    cut: u64,
}

impl SlidingLog {
    fn total(&self) -> u64 {
        self.entries.back().map_or(self.gone, |last| last.through)
    }

    /// How many entries no longer count.
    fn expired(&self, window: Nanos, now: Nanos) -> usize {
        self.entries.partition_point(|entry| entry.at.plus(window) <= now)
    }

    /// The sum of costs before a place.
    fn before(&self, place: usize) -> u64 {
        let earlier = place.checked_sub(1).and_then(|earlier| self.entries.get(earlier));
        earlier.map_or(self.gone, |entry| entry.through)
    }

    fn counted(&self, window: Nanos, now: Nanos) -> u64 {
        self.total().saturating_sub(self.before(self.expired(window, now)))
    }

    /// How long until no more than `most` are used.
    fn until_at_most(&self, most: u64, window: Nanos, now: Nanos) -> Nanos {
        let total = self.total();
        if total == self.gone || self.counted(window, now) <= most {
            return Nanos::ZERO;
        }
        let last_to_leave = self.entries.partition_point(|entry| total.saturating_sub(entry.through) > most);
        self.entries.get(last_to_leave).map_or(Nanos::ZERO, |entry| entry.at.plus(window).since(now))
    }

    /// Forgets what no longer counts.
    fn purge(&mut self, window: Nanos, now: Nanos) {
        let expired = self.expired(window, now);
        self.gone = self.before(expired);
        self.entries.drain(..expired);
        if self.entries.is_empty() {
            (self.gone, self.cut) = (0, 0);
        }
        if self.entries.capacity() > ROOM_KEPT && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len().saturating_mul(2));
        }
    }

    /// Adds a cost; says at which instant it counts.
    fn push(&mut self, cost: u64, now: Nanos) -> Nanos {
        let through = self.total().saturating_add(cost);
        match self.entries.back_mut() {
            Some(last) if last.at >= now => {
                last.through = through;
                last.at
            }
            _ if cost == 0 => now,
            _ => {
                self.entries.push_back(Entry { at: now, through });
                now
            }
        }
    }

    /// Takes up to `most` away from what came at an instant.
    fn remove(&mut self, at: Nanos, most: u64) {
        let Ok(place) = self.entries.binary_search_by_key(&at, |entry| entry.at) else {
            return;
        };
        let before = self.before(place);
        let own = self.entries.get(place).map_or(0, |entry| entry.through.saturating_sub(before));
        let back = own.min(most);
        let later = self.entries.iter_mut().skip(place);
        later.for_each(|entry| entry.through = entry.through.saturating_sub(back));
        if back == own {
            self.entries.remove(place);
        }
    }
}

impl Bucket for SlidingLog {
    type Pace = Pace;
    type Charge = Charge;

    fn full() -> Self {
        Self { entries: VecDeque::new(), gone: 0, cut: 0 }
    }

    fn wait(&self, pace: &Pace, cost: u64, now: Nanos) -> Nanos {
        self.until_at_most(pace.limit().saturating_sub(cost), pace.window(), now)
    }

    fn take(&mut self, pace: &Pace, cost: u64, now: Nanos) -> Charge {
        self.purge(pace.window(), now);
        let cost = cost.min(MOST_COST);
        Charge { at: self.push(cost, now), cost, more: 0, is_carried: false }
    }

    fn settle(&mut self, pace: &Pace, charge: Charge, real: u64, now: Nanos) {
        self.purge(pace.window(), now);
        let (reserved, real) = (charge.cost.saturating_add(charge.more), real.min(MOST_COST));
        if real > reserved {
            self.push(real.saturating_sub(reserved), now);
            return;
        }
        let back = reserved.saturating_sub(real).min(charge.cost);
        let from_cut = if charge.is_carried { back.min(self.cut) } else { 0 };
        self.cut = self.cut.saturating_sub(from_cut);
        self.remove(charge.at, back.saturating_sub(from_cut));
    }

    fn extend(&mut self, pace: &Pace, charge: &mut Charge, more: u64, now: Nanos) {
        self.purge(pace.window(), now);
        let more = more.min(MOST_COST);
        self.push(more, now);
        charge.more = charge.more.saturating_add(more);
    }

    fn is_full(&self, pace: &Pace, now: Nanos) -> bool {
        self.counted(pace.window(), now) == 0
    }

    fn until_full(&self, pace: &Pace, now: Nanos) -> Nanos {
        self.until_at_most(0, pace.window(), now)
    }

    fn used(&self, pace: &Pace, now: Nanos) -> u64 {
        self.counted(pace.window(), now)
    }

    fn available(&self, pace: &Pace, now: Nanos) -> u64 {
        pace.limit().saturating_sub(self.used(pace, now))
    }

    fn capacity(pace: &Pace) -> u64 {
        pace.limit()
    }

    /// All of it at this instant.
    fn longest_wait(pace: &Pace, cost: u64, _now: Nanos) -> Nanos {
        if cost == 0 { Nanos::ZERO } else { pace.window() }
    }

    fn carry(&mut self, swap: &Swap<Pace>) {
        let Swap { from, to, at } = swap;
        if from == to {
            return;
        }
        self.purge(from.window(), *at);
        let used = self.total().saturating_sub(self.gone);
        let owed = used.saturating_sub(from.limit());
        let lost = used.saturating_sub(to.limit().saturating_add(owed));
        self.gone = self.gone.saturating_add(lost);
        let cut_whole = self.entries.partition_point(|entry| entry.through <= self.gone);
        self.entries.drain(..cut_whole);
        self.cut = self.cut.saturating_add(lost);
    }

    fn carry_charge(charge: Charge, swap: &Swap<Pace>) -> Charge {
        if swap.from == swap.to {
            return charge;
        }
        if charge.at.plus(swap.from.window()) <= swap.at {
            // It counted no more, so that nothing of it was cut off: all of it stands.
            return Charge {
                cost: 0,
                more: charge.cost.saturating_add(charge.more),
                is_carried: true,
                ..charge
            };
        }
        Charge { is_carried: true, ..charge }
    }

    fn weight(&self) -> usize {
        self.entries.len().max(1)
    }
}
