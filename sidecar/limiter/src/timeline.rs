//! The changes of a limit's pace, kept so that each bucket can be carried when it is next touched.
//!
//! A swap of plans is then work for each limit, not for each bucket. Nothing happens to an untouched bucket between
//! two swaps, so carrying it late is exact. The list is bounded: the caller carries all buckets before it is cut, a few
//! with each charge once it is half full, and those that are left at once when it is full.

use std::collections::VecDeque;

use crate::{
    Nanos,
    algo::{Bucket, Swap},
};

/// How many swaps are remembered at most; when there are more, the older half is forgotten. A charge from before what
/// is remembered stands in full.
const MOST_SWAPS: usize = 64;

/// How many swaps something has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// Its last 16 bits.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the last bits are what is asked for")]
    pub(crate) fn low(self) -> u16 {
        self.0 as u16
    }

    /// The one so many swaps before it.
    pub(crate) fn before(self, swaps: u16) -> Self {
        Self(self.0.saturating_sub(u64::from(swaps)))
    }
}

/// The pace of one limit, now and before.
#[derive(Debug)]
pub(crate) struct Timeline<B: Bucket> {
    pace: B::Pace,
    /// The epoch before the first of `swaps`.
    oldest: u64,
    swaps: VecDeque<Swap<B::Pace>>,
}

impl<B: Bucket> Timeline<B> {
    pub(crate) fn new(pace: B::Pace) -> Self {
        Self { pace, oldest: 0, swaps: VecDeque::new() }
    }

    /// The pace in force.
    #[inline]
    pub(crate) fn pace(&self) -> &B::Pace {
        &self.pace
    }

    /// The epoch of what is up to date.
    #[inline]
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.oldest.saturating_add(self.swaps.len() as u64))
    }

    /// Whether the next [`Self::swap`] forgets: carry all buckets before it.
    pub(crate) fn is_long(&self) -> bool {
        self.swaps.len() >= MOST_SWAPS
    }

    /// Whether there are swaps that may be forgotten once all buckets are carried.
    #[inline]
    pub(crate) fn is_growing(&self) -> bool {
        self.swaps.len() > MOST_SWAPS / 2
    }

    /// All buckets are carried up to an epoch: the swaps before it are forgotten, but for the latest, for charges.
    pub(crate) fn forget_before(&mut self, epoch: Epoch) {
        let carried = usize::try_from(epoch.0.saturating_sub(self.oldest)).unwrap_or(usize::MAX);
        self.forget(carried.min(self.swaps.len().saturating_sub(MOST_SWAPS / 2)));
    }

    fn forget(&mut self, swaps: usize) {
        let forgotten = self.swaps.drain(..swaps.min(self.swaps.len())).count();
        self.oldest = self.oldest.saturating_add(forgotten as u64);
    }

    /// Changes the pace. The same pace again changes nothing.
    pub(crate) fn swap(&mut self, to: B::Pace, at: Nanos) {
        if to == self.pace {
            return;
        }
        if self.is_long() {
            self.forget(MOST_SWAPS / 2);
        }
        self.swaps.push_back(Swap { at, from: self.pace.clone(), to: to.clone() });
        self.pace = to;
    }

    /// Replaces the pace by one that says the same of a later time: buckets need not be carried.
    pub(crate) fn refresh(&mut self, pace: B::Pace) {
        self.pace = pace;
    }

    /// Carries a bucket to the pace in force.
    pub(crate) fn carry_bucket(&self, bucket: &mut B, since: Epoch) {
        self.after(since).for_each(|swap| bucket.carry(swap));
    }

    /// The charge as it is now; none when it is older than what is remembered.
    pub(crate) fn carry_charge(&self, charge: B::Charge, since: Epoch) -> Option<B::Charge> {
        (since.0 >= self.oldest).then(|| self.after(since).fold(charge, B::carry_charge))
    }

    fn after(&self, since: Epoch) -> impl Iterator<Item = &Swap<B::Pace>> {
        let seen = usize::try_from(since.0.saturating_sub(self.oldest)).unwrap_or(usize::MAX);
        self.swaps.iter().skip(seen)
    }
}
