//! A rate as a policy has it, and how its parts are printed.

use std::fmt;

use crate::Nanos;

/// `count_milli`/1000 permits per `window`, `burst` of them at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Permits per window, in thousandths; at least 1.
    pub count_milli: u64,
    /// 1 s to 31 d, in whole seconds.
    pub window: Nanos,
    /// Permits that may be taken at one instant; at least 1.
    pub burst: u64,
}

impl Rate {
    /// T = ⌈W/N⌉: how long one permit takes to come back, rounded up once, so that the rate is never exceeded.
    pub fn interval(&self) -> Nanos {
        let window_milli = u128::from(self.window.0).saturating_mul(1000);
        let interval = window_milli.div_ceil(u128::from(self.count_milli.max(1)));
        Nanos(u64::try_from(interval).unwrap_or(u64::MAX))
    }
}

/// What the numbers of a policy are multiplied by, in millionths: the scale of a tier, and what adaptation leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Factor(u64);

impl Factor {
    /// The numbers as they are written.
    pub(crate) const ONE: Self = Self(1_000_000);

    /// Of two parts in thousandths.
    pub(crate) fn of(scale_milli: u32, adaptive_milli: u32) -> Self {
        Self(u64::from(scale_milli).saturating_mul(u64::from(adaptive_milli)))
    }

    /// ⌊number · factor⌋, at least 1.
    pub(crate) fn times(self, number: u64) -> u64 {
        let product = u128::from(number).saturating_mul(u128::from(self.0)) / 1_000_000;
        u64::try_from(product).unwrap_or(u64::MAX).max(1)
    }
}

impl Rate {
    /// T of the rate times a factor, in permits of which one of the unit is `permits`: rounded up once.
    pub(crate) fn interval_of(&self, factor: Factor, permits: u64) -> Nanos {
        // ns · 10³ · 10⁶ of at most 2.7·10¹⁵ ns are below 2⁸².
        let window = u128::from(self.window.0).saturating_mul(1_000_000_000);
        let count = u128::from(self.count_milli).saturating_mul(u128::from(factor.0));
        let interval = window.div_ceil(count.saturating_mul(u128::from(permits)).max(1));
        Nanos(u64::try_from(interval).unwrap_or(u64::MAX))
    }

    /// N, rounded up: what algorithms that count windows let through in one.
    pub fn count(&self) -> u64 {
        self.count_milli.div_ceil(1000)
    }
}

/// Prints 1500 as `1.5`.
pub(super) struct Thousandths(pub(super) u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 / 1000)?;
        match self.0 % 1000 {
            0 => Ok(()),
            rest if rest % 100 == 0 => write!(f, ".{}", rest / 100),
            rest if rest % 10 == 0 => write!(f, ".{:02}", rest / 10),
            rest => write!(f, ".{rest:03}"),
        }
    }
}

/// Prints a window as the unit it is one of (`min`), or as many of the largest unit that divides it (`5min`).
pub(super) struct Window(pub(super) Nanos);

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.secs_ceil();
        let (count, unit) = match seconds {
            s if s % 86_400 == 0 => (s / 86_400, "d"),
            s if s % 3600 == 0 => (s / 3600, "h"),
            s if s % 60 == 0 => (s / 60, "min"),
            s => (s, "s"),
        };
        match count {
            1 => f.write_str(unit),
            _ => write!(f, "{count}{unit}"),
        }
    }
}
