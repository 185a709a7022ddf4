//! Starts that requests were told and will not make use of: those that left before, with others behind them.
//!
//! What such a request was charged cannot be given back, for those behind it have been told when they start. But its
//! start itself is as good as ever: the next request of the same cost takes it over, with the charge, and starts between
//! those that wait. So clients that lose patience and come again cost a bucket nothing, and no window ever holds more
//! than it would if they had stayed; nor does a change of pace make a difference between the two.

use hashbrown::HashTable;

use super::Taken;
use crate::{Nanos, key::BucketKey};

/// The most that are kept for a limit; beyond it charges stand in full.
const MOST: usize = 4096;

#[derive(Debug)]
pub(super) struct Vacancies<C> {
    buckets: HashTable<OfBucket<C>>,
    count: usize,
}

#[derive(Debug)]
struct OfBucket<C> {
    key: BucketKey,
    /// In no order.
    vacancies: Vec<Vacancy<C>>,
}

#[derive(Debug)]
struct Vacancy<C> {
    cost: u64,
    taken: Taken<C>,
}

impl<C> Default for Vacancies<C> {
    fn default() -> Self {
        Self { buckets: HashTable::new(), count: 0 }
    }
}

impl<C> Vacancies<C> {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Nobody takes over any of them: what they were charged stands.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A request of this cost that was to start later has left.
    pub(super) fn leave(&mut self, key: BucketKey, cost: u64, taken: Taken<C>, now: Nanos) {
        if self.count >= MOST {
            self.forget_past(now);
        }
        if self.count < MOST && taken.starts > now {
            let entry = self.buckets.entry(key.hash(), |of| of.key == key, |of| of.key.hash());
            let of = entry.or_insert_with(|| OfBucket { key, vacancies: Vec::new() }).into_mut();
            of.vacancies.push(Vacancy { cost, taken });
            self.count = self.count.saturating_add(1);
        }
    }

    /// The first start after now that one of this cost could take over.
    pub(super) fn first(&self, key: BucketKey, cost: u64, now: Nanos) -> Option<Nanos> {
        let of = self.buckets.find(key.hash(), |of| of.key == key)?;
        let fitting = of.vacancies.iter().filter(|one| one.cost == cost && one.taken.starts > now);
        fitting.map(|one| one.taken.starts).min()
    }

    /// Takes over the charge that starts then.
    pub(super) fn take(&mut self, key: BucketKey, cost: u64, starts: Nanos) -> Option<Taken<C>> {
        let of = self.buckets.find_mut(key.hash(), |of| of.key == key)?;
        let place = of.vacancies.iter().position(|one| one.cost == cost && one.taken.starts == starts)?;
        self.count = self.count.saturating_sub(1);
        Some(of.vacancies.swap_remove(place).taken)
    }

    fn forget_past(&mut self, now: Nanos) {
        self.buckets.retain(|of| {
            of.vacancies.retain(|one| one.taken.starts > now);
            !of.vacancies.is_empty()
        });
        self.count = self.buckets.iter().map(|of| of.vacancies.len()).sum();
    }
}
