//! The state of one limit: its buckets, its guards, and what it has done.

use std::num::NonZeroU32;

use crate::{
    Limit, Nanos,
    algo::{concurrency::Guards, gcra::Pace},
    key::BucketKey,
    plan::share_of,
    reserve::{Held, Holding},
    store::{Look, Place, Store},
};

/// What every request costs in requests.
pub(crate) const ONE: u64 = 1;

/// Numbers stores and guards: a new one is never taken for an old one of the same limit.
#[derive(Debug, Default)]
pub(crate) struct Births(u64);

impl Births {
    fn next(&mut self) -> u64 {
        self.0 = self.0.saturating_add(1);
        self.0
    }
}

#[derive(Debug)]
struct Born<T> {
    birth: u64,
    it: T,
}

/// The state of one limit.
#[derive(Debug, Default)]
pub(crate) struct LimitState {
    store: Option<Born<Store>>,
    guards: Option<Born<Guards>>,
    /// The concurrency that this pod allows.
    allowed: u32,
    pub(crate) tally: Tally,
}

/// Counts of decisions; each only grows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    pub(crate) would_refuse: u64,
    pub(crate) overflowed: u64,
}

/// How a limit sees a request; it holds until the state next changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Place of the limit in the plan.
    pub(crate) place: usize,
    pub(crate) key: BucketKey,
    pub(crate) rate: Option<Look>,
    /// The request does not hold a guard yet.
    pub(crate) needs_guard: bool,
}

impl LimitState {
    /// The state of `limit` when `pods` pods share it: `old` carried over, what it lacks begun anew.
    pub(crate) fn carried(
        old: Self,
        limit: &Limit,
        pods: NonZeroU32,
        (keys, now): (usize, Nanos),
        births: &mut Births,
    ) -> Self {
        let mut state = Self { tally: old.tally, ..Self::default() };
        if let Some(rate) = &limit.info().rate {
            let pace = Pace::share(rate, limit.sharers(pods));
            let mut store =
                old.store.unwrap_or_else(|| Born { birth: births.next(), it: Store::new(pace, keys) });
            store.it.swap(pace, now);
            state.store = Some(store);
        }
        if let Some(most) = limit.info().concurrency {
            let new = || Born { birth: births.next(), it: Guards::default() };
            state.guards = Some(old.guards.unwrap_or_else(new));
            state.allowed = share_of(most, limit.sharers(pods));
        }
        state
    }

    /// This state without its buckets and guards.
    pub(crate) fn emptied(self) -> Self {
        Self { tally: self.tally, ..Self::default() }
    }

    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.as_ref().map(|store| &store.it)
    }

    pub(crate) fn has_guards(&self) -> bool {
        self.guards.is_some()
    }

    /// The concurrency that this pod allows, and how much of it a key uses.
    pub(crate) fn concurrency(&self, key: BucketKey) -> Option<(u32, u32)> {
        self.guards.as_ref().map(|guards| (self.allowed, guards.it.count(key)))
    }

    /// How many buckets and counts are kept.
    pub(crate) fn keys(&self) -> usize {
        let guards = self.guards.as_ref().map_or(0, |guards| guards.it.keys());
        self.store().map_or(0, Store::keys).saturating_add(guards)
    }

    /// Looks, and changes nothing.
    pub(crate) fn look(&self, place: usize, key: BucketKey, held: &[Held], now: Nanos) -> Seen {
        let rate = self.store().map(|store| store.look(key, now));
        let needs_guard = self.guards.as_ref().is_some_and(|guards| !holds(held, guards.birth, key));
        Seen { place, key, rate, needs_guard }
    }

    /// How long the rate alone makes the request wait; zero if it admits it.
    pub(crate) fn wait(&self, seen: &Seen, now: Nanos) -> Nanos {
        match (&seen.rate, self.store()) {
            (Some(look), Some(store)) => look.bucket.wait(store.pace(), ONE, now),
            _ => Nanos::ZERO,
        }
    }

    /// Whether the request lacks a guard and there is none left for it.
    pub(crate) fn is_crowded(&self, seen: &Seen) -> bool {
        seen.needs_guard && self.concurrency(seen.key).is_some_and(|(allowed, used)| used >= allowed)
    }

    /// Whether the limit admits the request.
    pub(crate) fn fits(&self, seen: &Seen, now: Nanos) -> bool {
        self.wait(seen, now) == Nanos::ZERO && !self.is_crowded(seen)
    }

    /// Takes the guard that the request needs.
    pub(crate) fn take_guard(&mut self, seen: &Seen) -> Option<Held> {
        let guards = self.guards.as_mut().filter(|_| seen.needs_guard)?;
        guards.it.take(seen.key);
        Some(Held { place: seen.place, birth: guards.birth, key: seen.key, what: Holding::Guard })
    }

    /// Charges the request to its bucket.
    pub(crate) fn charge(&mut self, seen: &Seen, now: Nanos) -> Option<Held> {
        let (store, look) = (self.store.as_mut()?, seen.rate?);
        if look.place == Place::Overflow {
            self.tally.overflowed = self.tally.overflowed.saturating_add(1);
        }
        let taken = store.it.take(seen.key, look, ONE, now);
        Some(Held { place: seen.place, birth: store.birth, key: seen.key, what: Holding::Charge(taken) })
    }

    /// Whether what is held was taken here.
    pub(crate) fn bore(&self, held: &Held) -> bool {
        let birth = match held.what {
            Holding::Guard => self.guards.as_ref().map(|guards| guards.birth),
            Holding::Charge(_) => self.store.as_ref().map(|store| store.birth),
        };
        birth == Some(held.birth)
    }

    /// Takes back what is held: a guard is released, a charge settled at nothing if it is to be given back.
    pub(crate) fn take_back(&mut self, held: Held, give_back: bool, now: Nanos) {
        match held.what {
            Holding::Guard => {
                if let Some(guards) = &mut self.guards {
                    guards.it.release(held.key);
                }
            }
            Holding::Charge(taken) if give_back => {
                if let Some(store) = &mut self.store {
                    store.it.settle(held.key, taken, 0, now);
                }
            }
            Holding::Charge(_) => {}
        }
    }
}

fn holds(held: &[Held], birth: u64, key: BucketKey) -> bool {
    held.iter().any(|held| held.birth == birth && held.key == key)
}
