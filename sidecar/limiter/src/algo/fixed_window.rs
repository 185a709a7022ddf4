//! The fixed window: so many in each window of the calendar, and then nothing until the next one begins.
//!
//! The oldest way to limit and that of quotas (`1M/d`): one counter, set back at each edge, as the Redis manual has it
//! under INCR ("Pattern: rate limiter"). Any stretch of length t admits at most N·(⌈t/W⌉ + 1), so up to 2N around an
//! edge: N just before it and N just after. W is then the shortest window there is, 23 h for days.
//!
//! What a window holds beyond N (an answer longer than was reserved, or one request above N) is debt: it uses up the
//! next windows, N of each, also of those that nobody looks at. A give-back takes away what of its charge lies in the
//! window in force: all of it in the window that was charged, only what is still owed in later ones. So what has been
//! reserved in one window never credits a later one, and a reservation above N that came to little blocks nobody for
//! days. What is charged on top of a charge counts in the window in which it becomes known.
//!
//! Which window an instant lies in is the calendar's business ([`crate::calendar`]): the caller keeps [`Pace::span`]
//! current. Waits that end with the window in force are exact; those that reach beyond assume that each further window
//! is as long as any can be, so that they are never early.

pub use super::ledger::Charge;
use super::{Bucket, Swap, ledger::Ledger};
use crate::Nanos;

/// The window that an instant lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Tells windows apart; the next one has the next number, and it never decreases.
    pub index: u64,
    /// When it ends and the next begins.
    pub ends: Nanos,
    /// As long as any window, or longer: 25 h for days.
    pub longest: Nanos,
}

/// What a bucket enforces: `limit` in each window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// N. 0 is taken as 1.
    pub limit: u64,
    /// The window in force. The next one is no other pace: it needs no swap.
    pub span: Span,
}

impl Pace {
    fn limit(&self) -> u64 {
        self.limit.max(1)
    }

    /// Where the window in force begins on the line of a bucket.
    fn floor(&self) -> i128 {
        i128::from(self.span.index).saturating_mul(i128::from(self.limit()))
    }

    /// How long until the next window has begun, or the so-manieth.
    fn until(&self, windows: u128, now: Nanos) -> Nanos {
        let Some(further) = windows.checked_sub(1) else {
            return Nanos::ZERO;
        };
        let further = u64::try_from(further).unwrap_or(u64::MAX).saturating_mul(self.span.longest.0);
        Nanos(self.span.ends.since(now).0.max(1).saturating_add(further))
    }
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedWindow {
    ledger: Ledger,
}

impl FixedWindow {
    fn held(&self, pace: &Pace) -> u128 {
        self.ledger.used(pace.floor())
    }
}

impl Bucket for FixedWindow {
    type Pace = Pace;
    type Charge = Charge;

    fn full() -> Self {
        Self { ledger: Ledger::EMPTY }
    }

    fn wait(&self, pace: &Pace, cost: u64, now: Nanos) -> Nanos {
        // How much may be used for it to be admitted: nothing, for one that can never fit.
        let room = u128::from(pace.limit().saturating_sub(cost));
        let above = self.held(pace).saturating_sub(room);
        pace.until(above.div_ceil(u128::from(pace.limit())), now)
    }

    fn take(&mut self, pace: &Pace, cost: u64, _now: Nanos) -> Charge {
        self.ledger.take(cost, pace.floor())
    }

    fn settle(&mut self, pace: &Pace, charge: Charge, real: u64, _now: Nanos) {
        self.ledger.settle(&charge, real, pace.floor());
    }

    fn extend(&mut self, pace: &Pace, charge: &mut Charge, more: u64, _now: Nanos) {
        self.ledger.extend(charge, more, pace.floor());
    }

    fn is_full(&self, pace: &Pace, _now: Nanos) -> bool {
        self.held(pace) == 0
    }

    fn until_full(&self, pace: &Pace, now: Nanos) -> Nanos {
        self.wait(pace, u64::MAX, now)
    }

    fn used(&self, pace: &Pace, _now: Nanos) -> u64 {
        u64::try_from(self.held(pace)).unwrap_or(u64::MAX)
    }

    fn available(&self, pace: &Pace, now: Nanos) -> u64 {
        pace.limit().saturating_sub(self.used(pace, now))
    }

    fn capacity(pace: &Pace) -> u64 {
        pace.limit()
    }

    fn longest_wait(pace: &Pace, cost: u64, now: Nanos) -> Nanos {
        Self { ledger: Ledger::holding(pace.limit(), pace.floor()) }.wait(pace, cost, now)
    }

    /// In units: u used and d = (u − N)⁺ owed become min(u, N' + d) of the window that is then in force, whatever that
    /// window is: a minute's count goes on in a day's.
    fn carry(&mut self, swap: &Swap<Pace>) {
        let Swap { from, to, .. } = swap;
        if from == to {
            return;
        }
        let used = self.held(from);
        let owed = used.saturating_sub(u128::from(from.limit()));
        let kept = used.min(u128::from(to.limit()).saturating_add(owed));
        self.ledger.carry(kept, used.saturating_sub(kept), to.floor());
    }

    fn carry_charge(charge: Charge, swap: &Swap<Pace>) -> Charge {
        if swap.from == swap.to {
            return charge;
        }
        charge.carried(swap.from.floor(), swap.to.floor())
    }
}
