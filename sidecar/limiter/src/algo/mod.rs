//! The algorithms, one a file: pure arithmetic on one bucket, without keys, plans or limits.

pub mod concurrency;
pub mod fixed_window;
pub mod gcra;
mod ledger;
mod packed;
pub mod sliding_log;
pub mod sliding_window;

use crate::Nanos;

/// The bucket of one key under one algorithm. Costs are permits; time is handed in and never decreases.
pub trait Bucket: Clone + std::fmt::Debug {
    /// What a bucket enforces on this pod: the rate, already shared among pods, tiers and adaptation.
    type Pace: Clone + PartialEq + std::fmt::Debug;
    /// What one request took: settled at most once; dropping it lets it stand.
    type Charge: std::fmt::Debug;

    /// A bucket that nobody has taken anything from.
    fn full() -> Self;

    /// How long until `cost` is admitted if nothing else happens: exactly, zero when it is admitted now. A cost above
    /// what the pace can ever hold is admitted when the bucket is full.
    fn wait(&self, pace: &Self::Pace, cost: u64, now: Nanos) -> Nanos;

    /// Charges `cost`, whether it fits or not: ask [`Self::wait`] before.
    fn take(&mut self, pace: &Self::Pace, cost: u64, now: Nanos) -> Self::Charge;

    /// Replaces the reserved cost by the real one: gives back at most what has not leaked back, or charges the rest as
    /// debt.
    fn settle(&mut self, pace: &Self::Pace, charge: Self::Charge, real: u64, now: Nanos);

    /// Charges more on top of a charge that stands (a stream outran its reservation); the charge then covers both.
    fn extend(&mut self, pace: &Self::Pace, charge: &mut Self::Charge, more: u64, now: Nanos);

    /// Whether it decides as a new one would.
    fn is_full(&self, pace: &Self::Pace, now: Nanos) -> bool;

    /// How long until nothing is used.
    fn until_full(&self, pace: &Self::Pace, now: Nanos) -> Nanos;

    /// How many permits are used, rounded up; above the capacity while there is debt.
    fn used(&self, pace: &Self::Pace, now: Nanos) -> u64;

    /// How many permits would be admitted now.
    fn available(&self, pace: &Self::Pace, now: Nanos) -> u64;

    /// The most that can be available.
    fn capacity(pace: &Self::Pace) -> u64;

    /// The longest that an exhausted bucket without debt makes `cost` wait: what another pod could ask for.
    fn longest_wait(pace: &Self::Pace, cost: u64, now: Nanos) -> Nanos;

    /// Carries what is used and owed into another pace.
    fn carry(&mut self, swap: &Swap<Self::Pace>);

    /// Carries a charge into another pace, as [`Self::carry`] does its bucket.
    fn carry_charge(charge: Self::Charge, swap: &Swap<Self::Pace>) -> Self::Charge;

    /// Entries that it keeps, for bounds on memory: 1 but for the sliding log.
    fn weight(&self) -> usize {
        1
    }
}

/// One change of pace, for all buckets of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swap<P> {
    /// When it happened.
    pub at: Nanos,
    /// The pace before.
    pub from: P,
    /// The pace after.
    pub to: P,
}
