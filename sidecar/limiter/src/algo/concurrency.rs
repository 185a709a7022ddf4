//! Requests at one time: a count for each key, taken when a request is admitted and given back when it ends.
//!
//! A key is there only while a request holds it, so there are never more keys than requests under way.

use hashbrown::HashTable;

use crate::key::BucketKey;

/// The counts of one limit.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    held: HashTable<Held>,
}

#[derive(Debug)]
struct Held {
    key: BucketKey,
    count: u32,
}

impl Guards {
    /// How many requests hold this key.
    pub(crate) fn count(&self, key: BucketKey) -> u32 {
        self.held.find(key.hash(), |held| held.key == key).map_or(0, |held| held.count)
    }

    /// One more holds it.
    pub(crate) fn take(&mut self, key: BucketKey) {
        let held = self
            .held
            .entry(key.hash(), |held| held.key == key, |held| held.key.hash())
            .or_insert(Held { key, count: 0 })
            .into_mut();
        held.count = held.count.saturating_add(1);
    }

    /// One less holds it. Nothing happens if none does.
    pub(crate) fn release(&mut self, key: BucketKey) {
        let Ok(mut entry) = self.held.find_entry(key.hash(), |held| held.key == key) else {
            return;
        };
        entry.get_mut().count = entry.get().count.saturating_sub(1);
        if entry.get().count == 0 {
            entry.remove();
        }
    }

    /// How many keys are held.
    pub(crate) fn keys(&self) -> usize {
        self.held.len()
    }
}
