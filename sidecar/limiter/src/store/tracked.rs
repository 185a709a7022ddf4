//! The entries of one limit, in 64 small tables: one that grows moves only its own entries, so that no request waits
//! for all of them to move.

use hashbrown::HashTable;

use super::Kept;
use crate::key::BucketKey;

const TABLES: usize = 64;

/// A place in the table of a key; a hint, for entries move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    /// None of a place that no table of ours has.
    fn new(place: usize) -> Self {
        Self(u32::try_from(place).unwrap_or(u32::MAX))
    }

    fn place(self) -> Option<usize> {
        usize::try_from(self.0).ok()
    }
}

/// A key with its bucket.
#[derive(Debug)]
struct Entry<B> {
    key: BucketKey,
    kept: Kept<B>,
}

#[derive(Debug)]
pub(super) struct Tracked<B> {
    /// Made with the first entry.
    tables: Vec<HashTable<Entry<B>>>,
    len: usize,
    /// Where the sweep goes on: a table, and a place in it.
    table: usize,
    place: usize,
    /// Where a round through all entries goes on: a table, and a place in it.
    round: (usize, usize),
}

impl<B> Tracked<B> {
    pub(super) fn new() -> Self {
        Self { tables: Vec::new(), len: 0, table: 0, place: 0, round: (0, 0) }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The entry of a key, and its slot: where it is until an entry is added.
    #[inline]
    pub(super) fn find(&self, key: BucketKey) -> Option<(Slot, &Kept<B>)> {
        let table = self.tables.get(table_index(key))?;
        let place = table.find_bucket_index(key.hash(), |entry| entry.key == key)?;
        Some((Slot::new(place), &table.get_bucket(place)?.kept))
    }

    /// The entry of a key that was once found in a slot.
    #[inline]
    pub(super) fn at_mut(&mut self, key: BucketKey, slot: Slot) -> Option<&mut Kept<B>> {
        let table = self.tables.get_mut(table_index(key))?;
        let is_there = |place: &usize| table.get_bucket(*place).is_some_and(|entry| entry.key == key);
        let place = slot.place().filter(is_there);
        let place = place.or_else(|| table.find_bucket_index(key.hash(), |entry| entry.key == key))?;
        Some(&mut table.get_bucket_mut(place)?.kept)
    }

    pub(super) fn find_mut(&mut self, key: BucketKey) -> Option<&mut Kept<B>> {
        let table = self.tables.get_mut(table_index(key))?;
        Some(&mut table.find_mut(key.hash(), |entry| entry.key == key)?.kept)
    }

    /// Adds a key that has no entry.
    pub(super) fn insert(&mut self, key: BucketKey, kept: Kept<B>) -> Option<&mut Kept<B>> {
        if self.tables.is_empty() {
            self.tables.resize_with(TABLES, HashTable::new);
        }
        let table = self.tables.get_mut(table_index(key))?;
        if table.len() == table.capacity() && self.round.0 == table_index(key) {
            // It moves its entries now: some that the round has yet to come to go to where it has been.
            self.round.1 = 0;
        }
        self.len = self.len.saturating_add(1);
        let entry = table.insert_unique(key.hash(), Entry { key, kept }, |entry| entry.key.hash());
        Some(&mut entry.into_mut().kept)
    }

    pub(super) fn each(&mut self, mut change: impl FnMut(&mut Kept<B>)) {
        self.tables.iter_mut().flat_map(HashTable::iter_mut).for_each(|entry| change(&mut entry.kept));
    }

    /// The next round begins at the first entry.
    pub(super) fn begin_round(&mut self) {
        self.round = (0, 0);
    }

    /// Changes what is in the next `places` places; whether a round ends there, in which all entries were changed that
    /// were there when it began.
    pub(super) fn go_round(&mut self, places: usize, change: impl Fn(&mut Kept<B>)) -> bool {
        for _ in 0..places {
            let (at, place) = self.round;
            let Some(table) = self.tables.get_mut(at) else {
                self.round = (0, 0);
                return true;
            };
            if let Some(entry) = table.get_bucket_mut(place) {
                change(&mut entry.kept);
            }
            let next = place.saturating_add(1);
            self.round = if next < table.num_buckets() { (at, next) } else { (at.saturating_add(1), 0) };
        }
        false
    }

    /// Looks at the next `places` places and drops those entries that may go.
    pub(super) fn sweep(&mut self, places: usize, may_go: impl Fn(&Kept<B>) -> bool) {
        for _ in 0..places {
            let Some(table) = self.tables.get_mut(self.table) else {
                return;
            };
            if let Ok(entry) = table.get_bucket_entry(self.place)
                && may_go(&entry.get().kept)
            {
                entry.remove();
                self.len = self.len.saturating_sub(1);
            }
            self.place = self.place.saturating_add(1);
            if self.place >= table.num_buckets() {
                self.place = 0;
                self.table = self.table.saturating_add(1) % TABLES;
            }
        }
    }
}

fn table_index(key: BucketKey) -> usize {
    usize::try_from(key.spread()).unwrap_or(0) % TABLES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algo::{fixed_window::FixedWindow, gcra::TokenBucket, sliding_window::SlidingWindow};

    #[test]
    fn an_entry_takes_40_bytes() {
        assert_eq!(size_of::<Entry<TokenBucket>>(), 40);
        assert_eq!(size_of::<Entry<FixedWindow>>(), 40);
        assert_eq!(size_of::<Entry<SlidingWindow>>(), 56);
    }
}
