//! The buckets of one limit: bounded in number, carried over changes of pace, and swept a little at a time.
//!
//! An entry is dropped only when its bucket is full again, for then it decides as a new one would. When there is no
//! room for another key, the key is counted in one of 1,024 overflow buckets, picked by its hash, each with the normal
//! limit: sharing can only refuse more. A key without an entry whose overflow bucket is not full goes on using it, so
//! that nobody gets a second burst by moving to an entry of its own.

mod bookings;
mod stamp;
mod tracked;
mod vacancies;

pub(crate) use self::tracked::Slot;
use self::{bookings::Bookings, stamp::Stamp, tracked::Tracked, vacancies::Vacancies};
use crate::{
    Nanos,
    algo::Bucket,
    key::BucketKey,
    timeline::{Epoch, Timeline},
};

const OVERFLOW_BUCKETS: usize = 1024;
/// How many places of the tables a charge to a new key or to an overflow bucket sweeps: more than the one it can fill,
/// so that a sweep gets round.
const SWEPT_AT_ONCE: usize = 16;
/// How many places a charge brings up to date when the pace has changed often.
const CARRIED_AT_ONCE: usize = 8;

/// Where a key's bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In an entry of its own, in this slot.
    Tracked(Slot),
    /// Nowhere yet: it is full, and there is room for it.
    New,
    /// In a bucket that it shares with other keys.
    Overflow,
}

/// How a bucket takes a cost. What is seen here holds until the store next changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) place: Place,
    /// Until the cost is admitted; zero: it is now.
    pub(crate) wait: Nanos,
}

/// The numbers of a bucket, in permits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) used: u64,
    pub(crate) available: u64,
    pub(crate) capacity: u64,
    /// Until one more permit is admitted.
    pub(crate) next: Nanos,
    /// Until nothing is used.
    pub(crate) full: Nanos,
}

/// A charge, and how to find the bucket it was taken from.
#[derive(Debug)]
pub(crate) struct Taken<C> {
    charge: C,
    epoch: Epoch,
    /// Of the entry; 0 for an overflow bucket, which is never dropped.
    birth: u64,
    /// Later charges of the store have higher ones.
    number: u64,
    /// When the request may start, if that was later than its arrival; else zero.
    starts: Nanos,
}

/// A bucket at rest.
#[derive(Debug, Clone)]
struct Kept<B> {
    bucket: B,
    stamp: Stamp,
}

/// The buckets of one limit.
#[derive(Debug)]
pub(crate) struct Store<B: Bucket> {
    timeline: Timeline<B>,
    tracked: Tracked<B>,
    /// Made when it is first needed.
    overflow: Vec<Kept<B>>,
    capacity: usize,
    /// Of the latest entry.
    birth: u64,
    bookings: Bookings,
    vacancies: Vacancies<B::Charge>,
    /// When the round began in which buckets are brought up to date.
    round: Option<Epoch>,
}

impl<B: Bucket> Store<B> {
    pub(crate) fn new(pace: B::Pace, capacity: usize) -> Self {
        Self {
            timeline: Timeline::new(pace),
            tracked: Tracked::new(),
            overflow: Vec::new(),
            capacity: capacity.max(1),
            birth: 0,
            bookings: Bookings::default(),
            vacancies: Vacancies::default(),
            round: None,
        }
    }

    /// The pace in force.
    pub(crate) fn pace(&self) -> &B::Pace {
        self.timeline.pace()
    }

    /// How many keys have an entry.
    pub(crate) fn keys(&self) -> usize {
        self.tracked.len()
    }

    /// How many keys may have an entry from now on; who has one keeps it.
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.max(1);
    }

    /// Changes the pace of all buckets: at once for whoever looks, lazily in memory. All buckets are brought up to date
    /// here only when the pace changes again and again and too few requests come in between to do it bit by bit.
    pub(crate) fn swap(&mut self, pace: B::Pace, at: Nanos) {
        if self.timeline.is_long() {
            self.round = None;
            self.tracked.begin_round();
            let timeline = &self.timeline;
            self.tracked.each(|kept| kept.carry(timeline));
            self.overflow.iter_mut().for_each(|kept| kept.carry(timeline));
        }
        self.timeline.swap(pace, at);
    }

    /// The limit delays nobody any more: starts that nobody needs are taken over by nobody.
    pub(crate) fn delay_nobody(&mut self) {
        self.vacancies.clear();
    }

    /// Replaces the pace by one that says the same of a later time.
    pub(crate) fn refresh(&mut self, pace: B::Pace) {
        self.timeline.refresh(pace);
    }

    /// Looks at the bucket that a key is counted in.
    #[inline]
    pub(crate) fn look(&self, key: BucketKey, cost: u64, now: Nanos) -> Look {
        let wait = |bucket: &B| bucket.wait(self.pace(), cost, now);
        if let Some((slot, kept)) = self.tracked.find(key) {
            let look = Look { place: Place::Tracked(slot), wait: kept.read(&self.timeline, wait) };
            return self.or_vacancy(look, key, cost, now);
        }
        let (place, kept) = self.find(key, now);
        let wait = kept.map_or_else(|| wait(&B::full()), |kept| kept.read(&self.timeline, wait));
        self.or_vacancy(Look { place, wait }, key, cost, now)
    }

    /// Whoever must wait may take over an earlier start of somebody who has left.
    fn or_vacancy(&self, look: Look, key: BucketKey, cost: u64, now: Nanos) -> Look {
        if look.wait == Nanos::ZERO || self.vacancies.is_empty() {
            return look;
        }
        let first = self.vacancies.first(Self::shared_key(key, look.place), cost, now);
        Look { wait: first.map_or(look.wait, |starts| look.wait.min(starts.since(now))), ..look }
    }

    /// The numbers of the bucket that a key is counted in.
    pub(crate) fn reading(&self, key: BucketKey, now: Nanos) -> Reading {
        let read = |bucket: &B| Reading {
            used: bucket.used(self.pace(), now),
            available: bucket.available(self.pace(), now),
            capacity: B::capacity(self.pace()),
            next: bucket.wait(self.pace(), 1, now),
            full: bucket.until_full(self.pace(), now),
        };
        match self.find(key, now).1 {
            Some(kept) => kept.read(&self.timeline, read),
            None => read(&B::full()),
        }
    }

    /// Which bucket a key found in a place is counted in: what all its keys share, in no other place.
    pub(crate) fn shared_key(key: BucketKey, place: Place) -> BucketKey {
        match place {
            Place::Tracked(_) | Place::New => key,
            Place::Overflow => BucketKey::of_overflow(overflow_index(key)),
        }
    }

    /// Charges `cost` to the bucket that was just looked at, for a request that starts when it allows, or hands on the
    /// charge of one that has left.
    pub(crate) fn take(
        &mut self,
        key: BucketKey,
        Look { place, wait }: Look,
        cost: u64,
        now: Nanos,
    ) -> Option<Taken<B::Charge>> {
        let starts = if wait == Nanos::ZERO { Nanos::ZERO } else { now.plus(wait) };
        if starts > Nanos::ZERO
            && !self.vacancies.is_empty()
            && let Some(taken) = self.vacancies.take(Self::shared_key(key, place), cost, starts)
        {
            return Some(taken);
        }
        let epoch = self.timeline.epoch();
        let timeline = &self.timeline;
        let kept = match place {
            Place::Tracked(slot) => self.tracked.at_mut(key, slot)?,
            Place::New => {
                self.birth = stamp::next_birth(self.birth);
                let kept = Kept { bucket: B::full(), stamp: Stamp::new(self.birth, epoch) };
                self.tracked.insert(key, kept)?
            }
            Place::Overflow => {
                if self.overflow.is_empty() {
                    let unused = Kept { bucket: B::full(), stamp: Stamp::new(0, epoch) };
                    self.overflow = vec![unused; OVERFLOW_BUCKETS];
                }
                self.overflow.get_mut(overflow_index(key))?
            }
        };
        kept.carry(timeline);
        let charge = kept.bucket.take(timeline.pace(), cost, now);
        let birth = kept.stamp.birth();
        if !matches!(place, Place::Tracked(_)) {
            self.sweep(now);
        }
        if self.timeline.is_growing() {
            self.carry_some();
        }
        Some(Taken { charge, epoch, birth, number: self.bookings.next(), starts })
    }

    /// Notes that a charge is for a request that starts later: until then nothing is given back before it.
    pub(crate) fn book(&mut self, key: BucketKey, taken: &Taken<B::Charge>, starts: Nanos, now: Nanos) {
        self.bookings.book(Self::charged_key(key, taken.birth), taken.number, starts, now);
    }

    /// Settles a charge of `reserved` to its real cost. Nothing happens when its bucket is gone: it was full, so that
    /// nothing was left to give back.
    pub(crate) fn settle(
        &mut self,
        key: BucketKey,
        taken: Taken<B::Charge>,
        (reserved, real): (u64, u64),
        now: Nanos,
    ) {
        let shared = Self::charged_key(key, taken.birth);
        if real < reserved && self.bookings.stand_behind(shared, taken.number, now) {
            if real == 0 {
                self.vacancies.leave(shared, reserved, taken, now);
            }
            return;
        }
        let Some(charge) = self.timeline.carry_charge(taken.charge, taken.epoch) else {
            return;
        };
        if let Some((kept, timeline)) = self.charged(key, taken.birth) {
            kept.bucket.settle(timeline.pace(), charge, real, now);
        }
    }

    /// Charges more on top of a charge; none when its bucket is gone or the charge forgotten.
    pub(crate) fn extend(
        &mut self,
        key: BucketKey,
        taken: Taken<B::Charge>,
        more: u64,
        now: Nanos,
    ) -> Option<Taken<B::Charge>> {
        let mut charge = self.timeline.carry_charge(taken.charge, taken.epoch)?;
        let (kept, timeline) = self.charged(key, taken.birth)?;
        kept.bucket.extend(timeline.pace(), &mut charge, more, now);
        Some(Taken { charge, epoch: timeline.epoch(), ..taken })
    }

    /// The bucket that a key is counted in, and where it is.
    fn find(&self, key: BucketKey, now: Nanos) -> (Place, Option<&Kept<B>>) {
        if let Some((slot, kept)) = self.tracked.find(key) {
            return (Place::Tracked(slot), Some(kept));
        }
        let shared = self.overflow.get(overflow_index(key));
        let is_full = |kept: &Kept<B>| kept.read(&self.timeline, |bucket| bucket.is_full(self.pace(), now));
        let has_room = self.tracked.len() < self.capacity;
        if has_room && shared.is_none_or(is_full) { (Place::New, None) } else { (Place::Overflow, shared) }
    }

    /// The bucket that a charge was taken from, carried.
    fn charged(&mut self, key: BucketKey, birth: u64) -> Option<(&mut Kept<B>, &Timeline<B>)> {
        let kept = match birth {
            0 => self.overflow.get_mut(overflow_index(key)),
            _ => self.tracked.find_mut(key).filter(|kept| kept.stamp.birth() == birth),
        }?;
        kept.carry(&self.timeline);
        Some((kept, &self.timeline))
    }

    fn charged_key(key: BucketKey, birth: u64) -> BucketKey {
        Self::shared_key(key, if birth == 0 { Place::Overflow } else { Place::New })
    }

    /// Brings the next few buckets up to date; after a round through all of them the changes from before it can be
    /// forgotten.
    #[cold]
    fn carry_some(&mut self) {
        let timeline = &self.timeline;
        let since = *self.round.get_or_insert(timeline.epoch());
        if self.tracked.go_round(CARRIED_AT_ONCE, |kept| kept.carry(timeline)) {
            self.overflow.iter_mut().for_each(|kept| kept.carry(timeline));
            self.timeline.forget_before(since);
            self.round = None;
        }
    }

    fn sweep(&mut self, now: Nanos) {
        let timeline = &self.timeline;
        let is_full = |bucket: &B| bucket.is_full(timeline.pace(), now);
        self.tracked.sweep(SWEPT_AT_ONCE, |kept| kept.read(timeline, is_full));
    }
}

impl<B: Bucket> Kept<B> {
    /// Reads the bucket as it is now.
    #[inline]
    fn read<T>(&self, timeline: &Timeline<B>, read: impl FnOnce(&B) -> T) -> T {
        let now = timeline.epoch();
        if self.stamp.is_of(now) {
            return read(&self.bucket);
        }
        let mut bucket = self.bucket.clone();
        timeline.carry_bucket(&mut bucket, self.stamp.epoch(now));
        read(&bucket)
    }

    #[inline]
    fn carry(&mut self, timeline: &Timeline<B>) {
        let now = timeline.epoch();
        if !self.stamp.is_of(now) {
            timeline.carry_bucket(&mut self.bucket, self.stamp.epoch(now));
            self.stamp = Stamp::new(self.stamp.birth(), now);
        }
    }
}

/// The bits above those that pick the table of a tracked key.
fn overflow_index(key: BucketKey) -> usize {
    usize::try_from((key.spread() >> 32) & 1023).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algo::gcra::{Pace, TokenBucket};

    const KEYS: u64 = 4000;

    fn key(number: u64) -> BucketKey {
        let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        BucketKey::of(spread, spread.rotate_left(32))
    }

    fn pace(turn: u64) -> Pace {
        Pace::new(Nanos::from_secs(3600 + turn % 7), 100)
    }

    fn charge(store: &mut Store<TokenBucket>, number: u64) {
        let look = store.look(key(number), 1, Nanos(1));
        assert!(store.take(key(number), look, 1, Nanos(1)).is_some());
    }

    #[test]
    fn charges_bring_buckets_up_to_date_so_that_a_change_of_pace_need_not_while_keys_are_added() {
        let mut store = Store::<TokenBucket>::new(pace(0), 1_000_000);
        let mut alike: Vec<TokenBucket> = Vec::new();
        for turn in 0..70 {
            for number in 0..KEYS / 4 {
                // Known keys and new ones, so that tables grow while a round is under way.
                charge(&mut store, if number % 2 == 0 { number } else { number + turn * KEYS });
            }
            let swap = crate::algo::Swap { at: Nanos(1), from: pace(turn), to: pace(turn + 1) };
            alike.push(TokenBucket::full());
            for (begun, bucket) in alike.iter_mut().enumerate() {
                if begun as u64 == turn {
                    let _charge = bucket.take(&pace(turn), 1, Nanos(1));
                }
                bucket.carry(&swap);
            }
            assert!(!store.timeline.is_long(), "after {turn} changes");
            store.swap(pace(turn + 1), Nanos(1));
        }
        for (turn, bucket) in alike.iter().enumerate() {
            let (_, kept) = store.find(key(1 + turn as u64 * KEYS), Nanos(1));
            kept.unwrap().read(&store.timeline, |kept| assert_eq!(kept, bucket, "of turn {turn}"));
        }
    }
}
