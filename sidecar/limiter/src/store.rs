//! The buckets of one limit: bounded in number, carried over changes of pace, and swept a little at a time.
//!
//! An entry is dropped only when its bucket is full again, for then it decides as a new one would. When there is no
//! room for another key, the key is counted in one of 1,024 overflow buckets, picked by its hash, each with the normal
//! limit: sharing can only refuse more. A key without an entry whose overflow bucket is not full goes on using it, so
//! that nobody gets a second burst by moving to an entry of its own.

mod tracked;

use std::num::NonZeroU64;

use self::tracked::Tracked;
use crate::{
    Nanos,
    algo::gcra::{Bucket, Charge, Pace},
    key::BucketKey,
    timeline::{Epoch, Timeline},
};

const OVERFLOW_BUCKETS: usize = 1024;
/// How many places of the tables a charge to a new key or to an overflow bucket sweeps: more than the one it can fill,
/// so that a sweep gets round.
const SWEPT_AT_ONCE: usize = 16;

/// Where a key's bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In an entry of its own.
    Tracked,
    /// Nowhere yet: it is full, and there is room for it.
    New,
    /// In a bucket that it shares with other keys.
    Overflow,
}

/// A bucket as it is now. What is seen here holds until the store next changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) place: Place,
    pub(crate) bucket: Bucket,
}

/// A charge, and how to find the bucket it was taken from.
#[derive(Debug)]
pub(crate) struct Taken {
    charge: Charge,
    epoch: Epoch,
    birth: Birth,
}

/// Tells an entry from an earlier one of the same key; none for an overflow bucket, which is never dropped.
type Birth = Option<NonZeroU64>;

/// A bucket at rest, with the epoch up to which it is carried.
#[derive(Debug, Clone, Copy)]
struct Kept {
    bucket: Bucket,
    epoch: Epoch,
    birth: Birth,
}

/// The buckets of one limit.
#[derive(Debug)]
pub(crate) struct Store {
    timeline: Timeline,
    tracked: Tracked,
    /// Made when it is first needed.
    overflow: Vec<Kept>,
    capacity: usize,
    /// Of the latest entry.
    birth: NonZeroU64,
}

impl Store {
    pub(crate) fn new(pace: Pace, capacity: usize) -> Self {
        Self {
            timeline: Timeline::new(pace),
            tracked: Tracked::new(),
            overflow: Vec::new(),
            capacity: capacity.max(1),
            birth: NonZeroU64::MIN,
        }
    }

    /// The pace in force.
    pub(crate) fn pace(&self) -> &Pace {
        self.timeline.pace()
    }

    /// How many keys have an entry.
    pub(crate) fn keys(&self) -> usize {
        self.tracked.len()
    }

    /// Changes the pace of all buckets: at once for whoever looks, lazily in memory.
    pub(crate) fn swap(&mut self, pace: Pace, at: Nanos) {
        if self.timeline.is_long() {
            let timeline = &self.timeline;
            self.tracked.each(|kept| kept.carry(timeline));
            self.overflow.iter_mut().for_each(|kept| kept.carry(timeline));
        }
        self.timeline.swap(pace, at);
    }

    /// The bucket that a key is counted in.
    pub(crate) fn look(&self, key: BucketKey, now: Nanos) -> Look {
        if let Some(kept) = self.tracked.find(key) {
            return Look { place: Place::Tracked, bucket: kept.bucket(&self.timeline) };
        }
        let shared = self.overflow.get(overflow_index(key)).map(|kept| kept.bucket(&self.timeline));
        let has_room = self.tracked.len() < self.capacity;
        match shared {
            Some(bucket) if !bucket.is_full(now) => Look { place: Place::Overflow, bucket },
            _ if has_room => Look { place: Place::New, bucket: Bucket::FULL },
            _ => Look { place: Place::Overflow, bucket: shared.unwrap_or(Bucket::FULL) },
        }
    }

    /// Charges `cost` to the bucket that `look` has just found.
    pub(crate) fn take(&mut self, key: BucketKey, look: Look, cost: u64, now: Nanos) -> Taken {
        let Look { place, mut bucket } = look;
        let charge = bucket.take(self.timeline.pace(), cost, now);
        let epoch = self.timeline.epoch();
        let birth = self.keep(key, place, bucket);
        if place != Place::Tracked {
            self.sweep(now);
        }
        Taken { charge, epoch, birth }
    }

    /// Settles a charge to its real cost. Nothing happens when its bucket is gone: it was full, so that nothing was
    /// left to give back.
    pub(crate) fn settle(&mut self, key: BucketKey, taken: Taken, real: u64, now: Nanos) {
        let Some(charge) = self.timeline.carry_charge(taken.charge, taken.epoch) else {
            return;
        };
        let kept = match taken.birth {
            Some(_) => self.tracked.find_mut(key).filter(|kept| kept.birth == taken.birth),
            None => self.overflow.get_mut(overflow_index(key)),
        };
        if let Some(kept) = kept {
            kept.carry(&self.timeline);
            kept.bucket.settle(self.timeline.pace(), charge, real, now);
        }
    }

    /// Writes a bucket back to where it was found.
    fn keep(&mut self, key: BucketKey, place: Place, bucket: Bucket) -> Birth {
        let epoch = self.timeline.epoch();
        match place {
            Place::Tracked => {
                let kept = self.tracked.find_mut(key)?;
                *kept = Kept { bucket, epoch, ..*kept };
                kept.birth
            }
            Place::New => {
                self.birth = self.birth.saturating_add(1);
                self.tracked.insert(key, Kept { bucket, epoch, birth: Some(self.birth) });
                Some(self.birth)
            }
            Place::Overflow => {
                if self.overflow.is_empty() {
                    let unused = Kept { bucket: Bucket::FULL, epoch, birth: None };
                    self.overflow = vec![unused; OVERFLOW_BUCKETS];
                }
                *self.overflow.get_mut(overflow_index(key))? = Kept { bucket, epoch, birth: None };
                None
            }
        }
    }

    fn sweep(&mut self, now: Nanos) {
        let timeline = &self.timeline;
        self.tracked.sweep(SWEPT_AT_ONCE, |kept| kept.bucket(timeline).is_full(now));
    }
}

impl Kept {
    fn bucket(&self, timeline: &Timeline) -> Bucket {
        timeline.carry_bucket(self.bucket, self.epoch)
    }

    fn carry(&mut self, timeline: &Timeline) {
        *self = Self { bucket: self.bucket(timeline), epoch: timeline.epoch(), ..*self };
    }
}

/// The bits above those that pick the table of a tracked key.
fn overflow_index(key: BucketKey) -> usize {
    usize::try_from((key.spread() >> 32) & 1023).unwrap_or(0)
}
