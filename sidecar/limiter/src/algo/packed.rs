//! How the three numbers of a bucket lie in memory: in 16 bytes where they are what they nearly always are.
//!
//! Positions are `i128`, for B·T of a slow rate over many pods does not fit 64 bits. But nearly every bucket that ever
//! was has its position and what it gave back within 64 bits, and has been cut off by no swap. The others are put
//! elsewhere, whole: nothing is rounded, and no decision hangs on how a bucket is kept.

use std::num::NonZeroU64;

/// The numbers of one bucket, as they are reckoned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Up to where it is used.
    pub(super) end: i128,
    /// All that it has ever given back.
    pub(super) given: i128,
    /// What swaps cut off: charges from before them give back from here first.
    pub(super) cut: i128,
}

impl Numbers {
    pub(super) const NONE: Self = Self { end: 0, given: 0, cut: 0 };
}

/// The same, as they are kept. Equal numbers are kept in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packed {
    /// Nothing is cut off.
    Small {
        /// The end, plus 1.
        after: NonZeroU64,
        given: u64,
    },
    Large(Box<Numbers>),
}

impl Packed {
    pub(super) const NONE: Self = Self::Small { after: NonZeroU64::MIN, given: 0 };

    #[inline]
    pub(super) fn new(numbers: Numbers) -> Self {
        match Self::small(numbers) {
            Some(small) => small,
            None => Self::large(numbers),
        }
    }

    #[inline]
    fn small(Numbers { end, given, cut }: Numbers) -> Option<Self> {
        let after = u64::try_from(end.saturating_add(1)).ok().and_then(NonZeroU64::new)?;
        let given = u64::try_from(given).ok()?;
        (cut == 0).then_some(Self::Small { after, given })
    }

    #[cold]
    fn large(numbers: Numbers) -> Self {
        Self::Large(Box::new(numbers))
    }

    #[inline]
    pub(super) fn numbers(&self) -> Numbers {
        match self {
            Self::Small { after, given } => {
                Numbers { end: i128::from(after.get()).saturating_sub(1), given: i128::from(*given), cut: 0 }
            }
            Self::Large(numbers) => **numbers,
        }
    }

    #[inline]
    pub(super) fn end(&self) -> i128 {
        self.numbers().end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_takes_16_bytes_and_loses_nothing() {
        assert_eq!(size_of::<Packed>(), 16);
        let edges = [i128::MIN, -1, 0, 1, u64::MAX.into(), i128::from(u64::MAX) - 1, i128::MAX];
        for end in edges {
            for given in edges {
                for cut in edges {
                    let numbers = Numbers { end, given, cut };
                    assert_eq!(Packed::new(numbers).numbers(), numbers);
                }
            }
        }
        assert_eq!(Packed::new(Numbers::NONE), Packed::NONE);
    }
}
