//! The sliding window: the count of this window, and that of the one before by how much of it still counts.
//!
//! Cloudflare's approximation of the sliding log ("How we built rate limiting capable of scaling to millions of
//! domains", 2017): two counters a key. Windows are aligned to the origin of the clock. At `elapsed` into a window a
//! cost c is admitted iff `(current + c)·W + previous·(W − elapsed) ≤ N·W`, all in whole numbers. It takes the window
//! before as evenly spread: one of length W that straddles an edge can hold up to, but never, 2N. At an edge what was
//! current becomes previous, and what it held beyond N stays current, as debt.
//!
//! A give-back takes away what of its charge lies in the window in force, and of what lies in the one before as much
//! as is left there; nothing of older ones. What is charged on top of a charge counts in the window in which it becomes
//! known.
//!
//! A swap within one window length keeps both counters. What is above the new limit is cut from `previous` first: so
//! what a bucket that knew the real costs would still hold is not cut below. Another window length makes what is used
//! look as though it had come evenly, at the new rate. Both keep what is used to the unit, not to its fractions.

pub use super::ledger::Charge;
use super::{Bucket, Swap, ledger::Ledger};
use crate::Nanos;

/// What a bucket enforces: about `limit` in any stretch as long as `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// N. 0 is taken as 1.
    pub limit: u64,
    /// W. 0 is taken as 1 ns.
    pub window: Nanos,
}

impl Pace {
    fn limit(&self) -> u64 {
        self.limit.max(1)
    }

    fn window(&self) -> u64 {
        self.window.0.max(1)
    }

    /// The window that an instant lies in.
    fn index(&self, at: Nanos) -> u64 {
        at.0.checked_div(self.window()).unwrap_or(0)
    }

    /// Where a window begins on the line of a bucket.
    fn floor(&self, index: u64) -> i128 {
        i128::from(index).saturating_mul(i128::from(self.limit()))
    }

    /// The limit in the measure of [`SlidingWindow::weighed`].
    fn weight(&self) -> u128 {
        weigh(self.limit().into(), self.window())
    }

    /// How much of the window in force is left.
    fn left(&self, index: u64, now: Nanos) -> u64 {
        let ends = u128::from(index).saturating_add(1).saturating_mul(self.window().into());
        let left = ends.saturating_sub(now.0.into()).min(self.window().into());
        u64::try_from(left).unwrap_or(u64::MAX)
    }
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingWindow {
    ledger: Ledger,
    /// The window before which `previous` was counted.
    index: u64,
    previous: u64,
}

impl SlidingWindow {
    /// As it is in the window that `now` lies in.
    fn rolled(&self, pace: &Pace, now: Nanos) -> Self {
        let index = pace.index(now);
        if index <= self.index {
            return self.clone();
        }
        let held = self.ledger.used(pace.floor(index.saturating_sub(1)));
        let previous = u64::try_from(held).unwrap_or(u64::MAX).min(pace.limit());
        Self { index, previous, ..self.clone() }
    }

    /// What this window holds, with debt.
    fn current(&self, pace: &Pace) -> u128 {
        self.ledger.used(pace.floor(self.index))
    }

    /// What is used, times W: current·W + previous·(W − elapsed).
    fn weighed(&self, pace: &Pace, now: Nanos) -> u128 {
        weigh(self.current(pace), pace.window())
            .saturating_add(weigh(self.previous.into(), pace.left(self.index, now)))
    }

    fn used_up(&self, pace: &Pace, now: Nanos) -> u128 {
        self.weighed(pace, now).div_ceil(pace.window().into())
    }

    /// After how many edges `cost` fits at some time before the next edge, what is then used of that window, and what
    /// the one before it holds.
    fn next_fit(&self, pace: &Pace, cost: u64) -> (u128, u128, u128) {
        let (limit, current) = (u128::from(pace.limit()), self.current(pace));
        let edges = current.saturating_add(cost.into()).saturating_sub(limit).div_ceil(limit);
        let Some(before) = edges.checked_sub(1) else {
            return (0, current, self.previous.into());
        };
        let held = current.saturating_sub(before.saturating_mul(limit));
        (edges, held.saturating_sub(limit), held.min(limit))
    }

    /// When nothing is used any more.
    fn full_at(&self, pace: &Pace) -> u128 {
        let current = self.current(pace);
        let edges = match current.div_ceil(pace.limit().into()) {
            0 if self.previous == 0 => return 0,
            0 => 1,
            edges => edges.saturating_add(1),
        };
        self.starts(pace, edges)
    }

    /// When `cost` fits, if it can.
    fn fits_at(&self, pace: &Pace, cost: u64) -> u128 {
        let (edges, current, previous) = self.next_fit(pace, cost);
        let room = u128::from(pace.limit()).saturating_sub(current).saturating_sub(cost.into());
        let window = u128::from(pace.window());
        // The window before may then still count for this long. If that is nothing, it fits at the next edge: there
        // `current` becomes `previous`, and counts as much as now.
        let Some(counts) = room.saturating_mul(window).checked_div(previous) else {
            return self.starts(pace, edges);
        };
        self.starts(pace, edges.saturating_add(1)).saturating_sub(counts.min(window))
    }

    /// When the window in force began, or the so-manieth after it begins.
    fn starts(&self, pace: &Pace, edges: u128) -> u128 {
        u128::from(self.index).saturating_add(edges).saturating_mul(pace.window().into())
    }

    /// Within one window length: cuts what is used beyond `most`, both times W.
    fn cut(&mut self, swap: &Swap<Pace>, most: u128) {
        let (window, left) = (swap.to.window(), swap.to.left(self.index, swap.at));
        let (mut current, used) = (self.current(&swap.from), self.weighed(&swap.from, swap.at));
        let mut kept = used;
        if used > most {
            current = current.min(whole(most, window));
            self.previous = self.previous.min(whole_u64(most.saturating_sub(weigh(current, window)), left));
            kept = weigh(current, window).saturating_add(weigh(self.previous.into(), left));
        }
        let cut = used.saturating_sub(kept).div_ceil(window.into());
        self.ledger.carry(current, cut, swap.to.floor(self.index));
    }

    /// Into another window length: `kept` units that came evenly at the new rate, as far as they are that many.
    fn spread(&mut self, swap: &Swap<Pace>, kept: u128) {
        let current = self.current(&swap.from);
        let lost = self.used_up(&swap.from, swap.at).saturating_sub(kept);
        self.index = swap.to.index(swap.at);
        let (window, left) = (swap.to.window(), swap.to.left(self.index, swap.at));
        let used = weigh(kept, window);
        self.previous = whole_u64(used, left).min(swap.to.limit());
        let kept_current = whole(used.saturating_sub(weigh(self.previous.into(), left)), window);
        // Charges in this window must not give back what now counts as the one before.
        let cut = lost.max(current.saturating_sub(kept_current));
        self.ledger.carry(kept_current, cut, swap.to.floor(self.index));
    }
}

impl Bucket for SlidingWindow {
    type Pace = Pace;
    type Charge = Charge;

    fn full() -> Self {
        Self { ledger: Ledger::EMPTY, index: 0, previous: 0 }
    }

    fn wait(&self, pace: &Pace, cost: u64, now: Nanos) -> Nanos {
        let rolled = self.rolled(pace, now);
        let at = if cost > pace.limit() { rolled.full_at(pace) } else { rolled.fits_at(pace, cost) };
        Nanos(u64::try_from(at.saturating_sub(now.0.into())).unwrap_or(u64::MAX))
    }

    fn take(&mut self, pace: &Pace, cost: u64, now: Nanos) -> Charge {
        *self = self.rolled(pace, now);
        self.ledger.take(cost, pace.floor(self.index))
    }

    fn settle(&mut self, pace: &Pace, charge: Charge, real: u64, now: Nanos) {
        *self = self.rolled(pace, now);
        let floor = pace.floor(self.index);
        if !charge.is_carried() {
            let floor_before = floor.saturating_sub(pace.limit().into());
            let in_both = self.ledger.back(&charge, real, floor_before);
            let before = in_both.saturating_sub(self.ledger.back(&charge, real, floor));
            self.previous = self.previous.saturating_sub(u64::try_from(before).unwrap_or(u64::MAX));
        }
        self.ledger.settle(&charge, real, floor);
    }

    fn extend(&mut self, pace: &Pace, charge: &mut Charge, more: u64, now: Nanos) {
        *self = self.rolled(pace, now);
        self.ledger.extend(charge, more, pace.floor(self.index));
    }

    fn is_full(&self, pace: &Pace, now: Nanos) -> bool {
        self.rolled(pace, now).weighed(pace, now) == 0
    }

    fn until_full(&self, pace: &Pace, now: Nanos) -> Nanos {
        self.wait(pace, u64::MAX, now)
    }

    fn used(&self, pace: &Pace, now: Nanos) -> u64 {
        u64::try_from(self.rolled(pace, now).used_up(pace, now)).unwrap_or(u64::MAX)
    }

    fn available(&self, pace: &Pace, now: Nanos) -> u64 {
        pace.limit().saturating_sub(self.used(pace, now))
    }

    fn capacity(pace: &Pace) -> u64 {
        pace.limit()
    }

    /// All of it at the beginning of a window: it counts in full until the next one, and then leaks. Windows of other
    /// pods begin at other times, so that where this pod is in its window says nothing of them.
    fn longest_wait(pace: &Pace, cost: u64, _now: Nanos) -> Nanos {
        Self { ledger: Ledger::holding(pace.limit(), 0), ..Self::full() }.wait(pace, cost, Nanos::ZERO)
    }

    fn carry(&mut self, swap: &Swap<Pace>) {
        let Swap { from, to, at } = swap;
        if from == to {
            return;
        }
        *self = self.rolled(from, *at);
        if from.window() == to.window() {
            let owed = self.weighed(from, *at).saturating_sub(from.weight());
            return self.cut(swap, to.weight().saturating_add(owed));
        }
        let used = self.used_up(from, *at);
        let owed = used.saturating_sub(from.limit().into());
        self.spread(swap, used.min(owed.saturating_add(to.limit().into())));
    }

    fn carry_charge(charge: Charge, swap: &Swap<Pace>) -> Charge {
        let Swap { from, to, at } = swap;
        if from == to {
            return charge;
        }
        charge.carried(from.floor(from.index(*at)), to.floor(to.index(*at)))
    }
}

fn weigh(units: u128, time: u64) -> u128 {
    units.saturating_mul(time.into())
}

/// How many whole units make up what weighs so much.
fn whole(weight: u128, time: u64) -> u128 {
    weight.checked_div(time.into()).unwrap_or(u128::MAX)
}

fn whole_u64(weight: u128, time: u64) -> u64 {
    u64::try_from(whole(weight, time)).unwrap_or(u64::MAX)
}
