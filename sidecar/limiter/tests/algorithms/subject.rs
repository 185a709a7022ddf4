//! The algorithms under one roof, and what is done to them.

use corral_limiter::{
    Nanos,
    algo::{
        Bucket, Swap,
        fixed_window::{self, FixedWindow, Span},
        gcra::{self, TokenBucket},
        sliding_log::{self, SlidingLog},
        sliding_window::{self, SlidingWindow},
    },
};
use proptest::prelude::*;

/// An algorithm whose pace is known by a limit and a window.
pub(crate) trait Subject: Bucket {
    /// By how many units what is used may be rounded down when a swap cuts it.
    const ROUNDED: u64 = 0;
    /// Whether a charge gets back the same if a later one was given back before.
    const IN_ANY_ORDER: bool = true;

    fn pace(limit: u64, window: u64, now: u64) -> Self::Pace;
}

impl Subject for TokenBucket {
    const IN_ANY_ORDER: bool = false;

    fn pace(limit: u64, window: u64, _now: u64) -> Self::Pace {
        gcra::Pace::new(Nanos(window.div_ceil(limit)), limit)
    }
}

impl Subject for FixedWindow {
    fn pace(limit: u64, window: u64, now: u64) -> Self::Pace {
        let index = now / window;
        let span = Span { index, ends: Nanos((index + 1) * window), longest: Nanos(window) };
        fixed_window::Pace { limit, span }
    }
}

impl Subject for SlidingWindow {
    const ROUNDED: u64 = 1;

    fn pace(limit: u64, window: u64, _now: u64) -> Self::Pace {
        sliding_window::Pace { limit, window: Nanos(window) }
    }
}

impl Subject for SlidingLog {
    fn pace(limit: u64, window: u64, _now: u64) -> Self::Pace {
        sliding_log::Pace { limit, window: Nanos(window) }
    }
}

/// A bucket with its limit and its clock.
#[derive(Clone)]
pub(crate) struct Run<B: Subject> {
    pub(crate) bucket: B,
    pub(crate) limit: u64,
    pub(crate) window: u64,
    pub(crate) now: u64,
}

impl<B: Subject> Run<B> {
    pub(crate) fn new(limit: u64, window: u64) -> Self {
        Self { bucket: B::full(), limit, window, now: 0 }
    }

    pub(crate) fn pace(&self) -> B::Pace {
        B::pace(self.limit, self.window, self.now)
    }

    pub(crate) fn wait(&self, cost: u64) -> u64 {
        self.bucket.wait(&self.pace(), cost, Nanos(self.now)).0
    }

    pub(crate) fn admits(&self, cost: u64) -> bool {
        self.wait(cost) == 0
    }

    pub(crate) fn take(&mut self, cost: u64) -> B::Charge {
        let (pace, now) = (self.pace(), Nanos(self.now));
        self.bucket.take(&pace, cost, now)
    }

    pub(crate) fn settle(&mut self, charge: B::Charge, real: u64) {
        let (pace, now) = (self.pace(), Nanos(self.now));
        self.bucket.settle(&pace, charge, real, now);
    }

    pub(crate) fn extend(&mut self, charge: &mut B::Charge, more: u64) {
        let (pace, now) = (self.pace(), Nanos(self.now));
        self.bucket.extend(&pace, charge, more, now);
    }

    pub(crate) fn used(&self) -> u64 {
        self.bucket.used(&self.pace(), Nanos(self.now))
    }

    pub(crate) fn available(&self) -> u64 {
        self.bucket.available(&self.pace(), Nanos(self.now))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bucket.is_full(&self.pace(), Nanos(self.now))
    }

    pub(crate) fn until_full(&self) -> u64 {
        self.bucket.until_full(&self.pace(), Nanos(self.now)).0
    }

    pub(crate) fn later(&self, by: u64) -> Self {
        Self { now: self.now + by, ..self.clone() }
    }

    /// Another limit and window from now on; says by which swap.
    pub(crate) fn swap(&mut self, limit: u64, window: u64) -> Swap<B::Pace> {
        let from = self.pace();
        (self.limit, self.window) = (limit, window);
        let swap = Swap { at: Nanos(self.now), from, to: self.pace() };
        self.bucket.carry(&swap);
        swap
    }
}

/// The window of most tests: it divides by much.
pub(crate) const WINDOW: u64 = 60;

/// Times that meet: many at one instant, many at edges and halves of windows, some anywhere.
pub(crate) fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(0),
        2 => 1..20u64,
        2 => prop::sample::select(vec![WINDOW / 2, WINDOW - 1, WINDOW, WINDOW + 1]),
        1 => 0..4 * WINDOW,
    ]
}

/// A property of the algorithms that count windows: one test for each, in a module with the property's name.
macro_rules! for_each_window_algorithm {
    ($name:ident, $strategy:expr, $check:ident $(, $test:ident $bucket:ident)?) => {
        mod $name {
            use corral_limiter::algo::{
                fixed_window::FixedWindow, sliding_log::SlidingLog, sliding_window::SlidingWindow,
            };
            use proptest::prelude::*;

            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(500))]

                #[test]
                fn fixed_window(input in $strategy) {
                    $check::<FixedWindow>(input)?;
                }

                #[test]
                fn sliding_window(input in $strategy) {
                    $check::<SlidingWindow>(input)?;
                }

                #[test]
                fn sliding_log(input in $strategy) {
                    $check::<SlidingLog>(input)?;
                }

                $(#[test]
                fn $test(input in $strategy) {
                    $check::<corral_limiter::algo::gcra::$bucket>(input)?;
                })?
            }
        }
    };
}
pub(crate) use for_each_window_algorithm;

/// A property of all algorithms.
macro_rules! for_each_algorithm {
    ($name:ident, $strategy:expr, $check:ident) => {
        crate::subject::for_each_window_algorithm!($name, $strategy, $check, token_bucket TokenBucket);
    };
}
pub(crate) use for_each_algorithm;
