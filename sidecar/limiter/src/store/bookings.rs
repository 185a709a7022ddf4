//! Which buckets have charges for requests that start later.
//!
//! Such a request is told its start once. What is charged before it and then not used must not be given back: those
//! that come after would start among those that were told to wait.

use hashbrown::HashTable;

use crate::{Nanos, key::BucketKey};

/// How many bookings there are before the first search for those that have started.
const FEW: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Bookings {
    booked: HashTable<Booked>,
    /// How many there may be until the next search.
    most: usize,
    /// Of the latest charge.
    number: u64,
}

/// The latest booking of a bucket.
#[derive(Debug)]
struct Booked {
    key: BucketKey,
    number: u64,
    starts: Nanos,
}

impl Bookings {
    /// The number of a new charge.
    pub(super) fn next(&mut self) -> u64 {
        self.number = self.number.saturating_add(1);
        self.number
    }

    pub(super) fn book(&mut self, key: BucketKey, number: u64, starts: Nanos, now: Nanos) {
        if self.booked.len() >= self.most.max(FEW) {
            self.booked.retain(|booked| booked.starts > now);
            self.most = self.booked.len().saturating_mul(2);
        }
        let booked = self
            .booked
            .entry(key.hash(), |booked| booked.key == key, |booked| booked.key.hash())
            .or_insert(Booked { key, number, starts })
            .into_mut();
        // One that takes over an earlier start has the number of who had it.
        *booked = Booked { key, number: booked.number.max(number), starts: booked.starts.max(starts) };
    }

    /// Whether a request that was charged after this number has yet to start.
    pub(super) fn stand_behind(&self, key: BucketKey, number: u64, now: Nanos) -> bool {
        let booked = self.booked.find(key.hash(), |booked| booked.key == key);
        booked.is_some_and(|booked| booked.number > number && booked.starts > now)
    }
}
