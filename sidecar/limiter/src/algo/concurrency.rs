//! What is there at one time: an amount for each key, taken when a request is admitted and given back when it ends.
//!
//! A key is there only while a request holds it, so there are never more keys than requests under way.

use hashbrown::HashTable;

use crate::key::BucketKey;

/// The amounts of one limit.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    held: HashTable<Held>,
}

#[derive(Debug)]
struct Held {
    key: BucketKey,
    amount: u64,
    /// How many requests hold it: one that holds nothing counts too.
    holders: u32,
}

impl Guards {
    /// How much of this key is held.
    pub(crate) fn amount(&self, key: BucketKey) -> u64 {
        self.held.find(key.hash(), |held| held.key == key).map_or(0, |held| held.amount)
    }

    /// One more request holds it, so much of it.
    pub(crate) fn take(&mut self, key: BucketKey, amount: u64) {
        let held = self
            .held
            .entry(key.hash(), |held| held.key == key, |held| held.key.hash())
            .or_insert(Held { key, amount: 0, holders: 0 })
            .into_mut();
        held.amount = held.amount.saturating_add(amount);
        held.holders = held.holders.saturating_add(1);
    }

    /// One that held so much holds it no more. Nothing happens if none does.
    pub(crate) fn release(&mut self, key: BucketKey, amount: u64) {
        let Ok(mut entry) = self.held.find_entry(key.hash(), |held| held.key == key) else {
            return;
        };
        let held = entry.get_mut();
        held.amount = held.amount.saturating_sub(amount);
        held.holders = held.holders.saturating_sub(1);
        if held.holders == 0 {
            entry.remove();
        }
    }

    /// How many keys are held.
    pub(crate) fn keys(&self) -> usize {
        self.held.len()
    }
}
