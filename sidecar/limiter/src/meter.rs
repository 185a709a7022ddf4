//! One unit of one limit over time: its buckets, whatever its algorithm.

use std::num::NonZeroU32;

use corral_wire::Algorithm;

use crate::{
    Limit, Nanos, Rate, Unit,
    algo::{
        Bucket,
        fixed_window::{self, FixedWindow},
        gcra::{self, TokenBucket},
        sliding_log::{self, SlidingLog},
        sliding_window::{self, SlidingWindow},
    },
    calendar::{Calendar, Windows},
    key::BucketKey,
    plan::Factor,
    store::{Look, Place, Reading, Store, Taken},
};

const HOUR: Nanos = Nanos::from_secs(3600);
const MINUTE: Nanos = Nanos::from_secs(60);
/// How many requests the logs of one limit note for each key that it may keep: with many in each, fewer keys have one.
const NOTED_PER_KEY: u64 = 16;

/// What the numbers of a limit are on this pod now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) pods: NonZeroU32,
    pub(crate) factor: Factor,
}

impl Share {
    /// One of the shares of a number: never less than 1.
    pub(crate) fn of(&self, number: u64) -> u64 {
        self.factor.times(number).checked_div(u64::from(self.pods.get())).unwrap_or(1).max(1)
    }
}

/// The wall clock as it was told: an instant of ours, and the nanoseconds since 1970 then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wall {
    pub(crate) at: Nanos,
    pub(crate) unix: i128,
}

impl Wall {
    fn unix_at(&self, now: Nanos) -> i128 {
        self.unix.saturating_add(i128::from(now.0)).saturating_sub(i128::from(self.at.0))
    }
}

/// The buckets of one unit.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) unit: Unit,
    pub(crate) birth: u64,
    /// How long what is exceeded may wait; zero: it may not.
    pub(crate) patience: Nanos,
    keys_at_most: usize,
    buckets: Buckets,
}

#[derive(Debug)]
enum Buckets {
    Token(Store<TokenBucket>),
    Sliding(Store<SlidingWindow>),
    Log(Store<SlidingLog>),
    Fixed { store: Store<FixedWindow>, windows: Windows },
}

/// What a request took from a meter.
#[derive(Debug)]
pub(crate) enum Charged {
    Token(Taken<gcra::Charge>),
    Sliding(Taken<sliding_window::Charge>),
    Log(Taken<sliding_log::Charge>),
    Fixed(Taken<fixed_window::Charge>),
}

/// Does the same with the store, whichever it is.
macro_rules! each {
    ($buckets:expr, $store:ident => $do:expr) => {
        match $buckets {
            Buckets::Token($store) => $do,
            Buckets::Sliding($store) => $do,
            Buckets::Log($store) => $do,
            Buckets::Fixed { store: $store, .. } => $do,
        }
    };
}

/// Does the same with the store and a charge of it; `None` for a charge of another kind.
macro_rules! each_charged {
    ($buckets:expr, $charged:expr, $store:ident, $taken:ident => $do:expr) => {
        match ($buckets, $charged) {
            (Buckets::Token($store), Charged::Token($taken)) => Some($do),
            (Buckets::Sliding($store), Charged::Sliding($taken)) => Some($do),
            (Buckets::Log($store), Charged::Log($taken)) => Some($do),
            (Buckets::Fixed { store: $store, .. }, Charged::Fixed($taken)) => Some($do),
            _ => None,
        }
    };
}

impl Meter {
    /// Full buckets for a unit of `limit`.
    pub(crate) fn new(
        limit: &Limit,
        (unit, rate): (Unit, &Rate),
        share: Share,
        (birth, keys): (u64, usize),
        (wall, now): (Wall, Nanos),
    ) -> Self {
        let buckets = match limit.algorithm() {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => {
                Buckets::Token(Store::new(token_pace(limit, unit, rate, share), keys))
            }
            Algorithm::SlidingWindow => Buckets::Sliding(Store::new(sliding_pace(unit, rate, share), keys)),
            Algorithm::SlidingLog => Buckets::Log(Store::new(log_pace(rate, share), keys)),
            Algorithm::FixedWindow => {
                let mut windows = Windows::new(calendar_of(limit, rate));
                let span = windows.span(now, wall.unix_at(now));
                let pace = fixed_window::Pace { limit: windowed(unit, rate, share), span };
                Buckets::Fixed { store: Store::new(pace, keys), windows }
            }
        };
        let mut meter = Self { unit, birth, patience: Nanos::ZERO, keys_at_most: keys, buckets };
        meter.settle_in(limit, rate, share);
        meter
    }

    /// Whether buckets of this meter may go on as those of `limit`.
    pub(crate) fn is_for(&self, limit: &Limit, unit: Unit, rate: &Rate) -> bool {
        let same = match (&self.buckets, limit.algorithm()) {
            (Buckets::Token(_), Algorithm::TokenBucket | Algorithm::LeakyBucket)
            | (Buckets::Sliding(_), Algorithm::SlidingWindow)
            | (Buckets::Log(_), Algorithm::SlidingLog) => true,
            // Windows that begin otherwise count otherwise.
            (Buckets::Fixed { windows, .. }, Algorithm::FixedWindow) => {
                *windows.calendar() == calendar_of(limit, rate)
            }
            _ => false,
        };
        same && self.unit == unit
    }

    /// Puts other numbers in force.
    pub(crate) fn swap(&mut self, limit: &Limit, rate: &Rate, share: Share, now: Nanos) {
        let unit = self.unit;
        match &mut self.buckets {
            Buckets::Token(store) => store.swap(token_pace(limit, unit, rate, share), now),
            Buckets::Sliding(store) => store.swap(sliding_pace(unit, rate, share), now),
            Buckets::Log(store) => store.swap(log_pace(rate, share), now),
            Buckets::Fixed { store, .. } => {
                let span = store.pace().span;
                store.swap(fixed_window::Pace { limit: windowed(unit, rate, share), span }, now);
            }
        }
        self.settle_in(limit, rate, share);
    }

    /// What hangs on the numbers beside the pace.
    fn settle_in(&mut self, limit: &Limit, rate: &Rate, share: Share) {
        self.patience = match (limit.algorithm(), limit.max_wait()) {
            (Algorithm::LeakyBucket, None) => {
                let pace = token_pace(limit, self.unit, rate, share);
                pace.time_of(share.of(rate.burst.saturating_mul(self.unit.permits())))
            }
            (_, max_wait) => max_wait.unwrap_or(Nanos::ZERO),
        };
        if self.patience == Nanos::ZERO {
            each!(&mut self.buckets, store => store.delay_nobody());
        }
        if let Buckets::Log(store) = &mut self.buckets {
            let noted = (self.keys_at_most as u64).saturating_mul(NOTED_PER_KEY);
            let keys = noted.checked_div(store.pace().limit).unwrap_or(noted);
            store.set_capacity(usize::try_from(keys).unwrap_or(usize::MAX).min(self.keys_at_most));
        }
    }

    /// Brings windows of the clock up to date; says when they must be again, if ever.
    pub(crate) fn roll(&mut self, wall: Wall, now: Nanos) -> Option<Nanos> {
        let Buckets::Fixed { store, windows } = &mut self.buckets else {
            return None;
        };
        let span = windows.span(now, wall.unix_at(now));
        store.refresh(fixed_window::Pace { limit: store.pace().limit, span });
        Some(span.ends)
    }

    /// How many keys have buckets of their own.
    pub(crate) fn keys(&self) -> usize {
        each!(&self.buckets, store => store.keys())
    }

    /// Looks, and changes nothing.
    #[inline]
    pub(crate) fn look(&self, key: BucketKey, cost: u64, now: Nanos) -> Look {
        each!(&self.buckets, store => store.look(key, cost, now))
    }

    /// The numbers of a bucket.
    pub(crate) fn reading(&self, key: BucketKey, now: Nanos) -> Reading {
        each!(&self.buckets, store => store.reading(key, now))
    }

    /// Charges the bucket that was just looked at.
    pub(crate) fn take(&mut self, key: BucketKey, look: Look, cost: u64, now: Nanos) -> Option<Charged> {
        Some(match &mut self.buckets {
            Buckets::Token(store) => Charged::Token(store.take(key, look, cost, now)?),
            Buckets::Sliding(store) => Charged::Sliding(store.take(key, look, cost, now)?),
            Buckets::Log(store) => Charged::Log(store.take(key, look, cost, now)?),
            Buckets::Fixed { store, .. } => Charged::Fixed(store.take(key, look, cost, now)?),
        })
    }

    /// Notes that a charge is for a request that starts later.
    pub(crate) fn book(&mut self, key: BucketKey, charged: &Charged, starts: Nanos, now: Nanos) {
        each_charged!(&mut self.buckets, charged, store, taken => store.book(key, taken, starts, now));
    }

    /// Settles a charge of the first cost to the second.
    pub(crate) fn settle(&mut self, key: BucketKey, charged: Charged, costs: (u64, u64), now: Nanos) {
        each_charged!(&mut self.buckets, charged, store, taken => store.settle(key, taken, costs, now));
    }

    /// Charges more on top; none when the bucket is gone.
    pub(crate) fn extend(
        &mut self,
        key: BucketKey,
        charged: Charged,
        more: u64,
        now: Nanos,
    ) -> Option<Charged> {
        Some(match (&mut self.buckets, charged) {
            (Buckets::Token(store), Charged::Token(taken)) => {
                Charged::Token(store.extend(key, taken, more, now)?)
            }
            (Buckets::Sliding(store), Charged::Sliding(taken)) => {
                Charged::Sliding(store.extend(key, taken, more, now)?)
            }
            (Buckets::Log(store), Charged::Log(taken)) => Charged::Log(store.extend(key, taken, more, now)?),
            (Buckets::Fixed { store, .. }, Charged::Fixed(taken)) => {
                Charged::Fixed(store.extend(key, taken, more, now)?)
            }
            _ => return None,
        })
    }

    /// The longest that a share that is used up makes a cost wait, on any pod.
    pub(crate) fn longest_wait(&self, cost: u64, now: Nanos) -> Nanos {
        fn of<B: Bucket>(store: &Store<B>, cost: u64, now: Nanos) -> Nanos {
            B::longest_wait(store.pace(), cost, now)
        }
        each!(&self.buckets, store => of(store, cost, now))
    }

    /// The bucket that a key is counted in, as something that tells buckets apart.
    pub(crate) fn bucket(key: BucketKey, place: Place) -> BucketKey {
        match place {
            Place::Tracked(_) | Place::New => key,
            Place::Overflow => Store::<TokenBucket>::shared_key(key, place),
        }
    }
}

/// The pace of a token bucket; a leaky one lets one through at a time.
fn token_pace(limit: &Limit, unit: Unit, rate: &Rate, share: Share) -> gcra::Pace {
    let interval = rate.interval_of(share.factor, unit.permits());
    let burst = match limit.algorithm() {
        Algorithm::LeakyBucket => 1,
        _ => share.of(rate.burst.saturating_mul(unit.permits())),
    };
    gcra::Pace::shared(interval, burst, share.pods)
}

/// N of this pod's share.
fn windowed(unit: Unit, rate: &Rate, share: Share) -> u64 {
    share.of(rate.count().saturating_mul(unit.permits()))
}

fn sliding_pace(unit: Unit, rate: &Rate, share: Share) -> sliding_window::Pace {
    sliding_window::Pace { limit: windowed(unit, rate, share), window: rate.window }
}

fn log_pace(rate: &Rate, share: Share) -> sliding_log::Pace {
    sliding_log::Pace { limit: windowed(Unit::Requests, rate, share), window: rate.window }
}

fn calendar_of(limit: &Limit, rate: &Rate) -> Calendar {
    match rate.window {
        MINUTE => Calendar::minute(),
        HOUR => Calendar::hour(),
        _ => limit.day().cloned().unwrap_or_else(Calendar::hour),
    }
}
