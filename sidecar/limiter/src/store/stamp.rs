//! What an entry is told by, in 64 bits: which entry of its key it is, and up to which change of pace it is carried.

use crate::timeline::Epoch;

const EPOCH_BITS: u32 = 16;
const MOST_BIRTHS: u64 = u64::MAX >> EPOCH_BITS;

/// The birth above the last bits of the epoch. No entry is ever 2¹⁶ changes behind, so that those say which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64);

impl Stamp {
    #[inline]
    pub(super) fn new(birth: u64, epoch: Epoch) -> Self {
        Self(birth.wrapping_shl(EPOCH_BITS) | u64::from(epoch.low()))
    }

    /// Tells an entry from an earlier one of the same key; 0 for an overflow bucket.
    #[inline]
    pub(super) fn birth(self) -> u64 {
        self.0 >> EPOCH_BITS
    }

    #[inline]
    pub(super) fn is_of(self, epoch: Epoch) -> bool {
        self.low() == epoch.low()
    }

    /// Up to when it is carried, seen from the epoch in force.
    pub(super) fn epoch(self, now: Epoch) -> Epoch {
        now.before(now.low().wrapping_sub(self.low()))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the rest is the birth")]
    fn low(self) -> u16 {
        self.0 as u16
    }
}

/// The next birth. At a million new keys a second they begin again after nine years: only a charge that is as old could
/// then be taken for one of another entry of its key.
pub(super) fn next_birth(birth: u64) -> u64 {
    if birth >= MOST_BIRTHS { 1 } else { birth.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Nanos,
        algo::gcra::{Pace, TokenBucket},
        timeline::Timeline,
    };

    #[test]
    fn a_stamp_keeps_the_birth_and_finds_the_epoch_again_when_its_bits_have_wrapped() {
        let mut timeline = Timeline::<TokenBucket>::new(Pace::new(Nanos(1), 1));
        let mut turn = 0;
        let mut stamps = std::collections::VecDeque::new();
        while turn < 70_000 {
            stamps.push_back((
                Stamp::new(MOST_BIRTHS - turn, timeline.epoch()),
                timeline.epoch(),
                MOST_BIRTHS - turn,
            ));
            if stamps.len() > 60 {
                let (stamp, epoch, birth) = stamps.pop_front().unwrap();
                assert_eq!((stamp.epoch(timeline.epoch()), stamp.birth()), (epoch, birth));
                assert!(!stamp.is_of(timeline.epoch()));
            }
            turn += 1;
            timeline.swap(Pace::new(Nanos(1 + turn % 2), 1), Nanos(turn));
        }
        assert_eq!(next_birth(MOST_BIRTHS), 1);
    }
}
