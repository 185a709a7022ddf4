//! Naive limiters: the list of what was charged, and a definition each.

/// What was charged, and when.
pub(crate) type Charged = [(u64, u64)];

/// What a fixed window holds at `now`: N less for each window passed, never less than nothing.
pub(crate) fn fixed_used(charged: &Charged, limit: u64, window: u64, now: u64) -> u64 {
    let of =
        |index: u64| charged.iter().filter(|(at, _)| at / window == index).map(|(_, cost)| cost).sum::<u64>();
    let before = (0..now / window).fold(0u64, |owed, index| (owed + of(index)).saturating_sub(limit));
    before + of(now / window)
}

/// What a sliding window holds at `now`, times W.
pub(crate) fn sliding_used(charged: &Charged, limit: u64, window: u64, now: u64) -> u64 {
    let index = now / window;
    let earlier: Vec<_> = charged.iter().copied().filter(|(at, _)| at / window < index).collect();
    let edge = (index * window).saturating_sub(1);
    let previous = if index == 0 { 0 } else { fixed_used(&earlier, limit, window, edge).min(limit) };
    fixed_used(charged, limit, window, now) * window + previous * (window - now % window)
}

/// What came less than W ago.
pub(crate) fn log_used(charged: &Charged, window: u64, now: u64) -> u64 {
    charged.iter().filter(|(at, _)| at + window > now).map(|(_, cost)| cost).sum()
}

/// By how much the costs of some stretch exceed what `most` says of its length, ends included; 0 if none does.
pub(crate) fn worst_excess(charged: &Charged, most: impl Fn(u64) -> u64) -> u64 {
    let mut worst = 0;
    for first in 0..charged.len() {
        let mut sum = 0;
        for (at, cost) in &charged[first..] {
            sum += cost;
            worst = worst.max(sum.saturating_sub(most(at - charged[first].0)));
        }
    }
    worst
}
