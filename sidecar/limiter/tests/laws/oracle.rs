//! A naive token bucket: the list of what was admitted, and a scan of all windows that end now.

/// Admits iff no closed window then holds more than B + ⌊t/T⌋.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    pub(crate) interval: u128,
    pub(crate) burst: u128,
    pub(crate) admitted: Vec<u128>,
}

impl Windows {
    /// `count_milli`/1000 in `window_ns`.
    pub(crate) fn new(count_milli: u64, window_ns: u64, burst: u64) -> Self {
        let interval = (u128::from(window_ns) * 1000).div_ceil(u128::from(count_milli));
        Self { interval, burst: u128::from(burst), admitted: Vec::new() }
    }

    /// How long until one more is admitted.
    pub(crate) fn wait(&self, now: u64) -> u128 {
        let now = u128::from(now);
        let count = self.admitted.len();
        let mut earliest = now;
        for (place, start) in self.admitted.iter().enumerate() {
            let with_it = (count - place + 1) as u128;
            if with_it > self.burst {
                earliest = earliest.max(start + (with_it - self.burst) * self.interval);
            }
        }
        earliest - now
    }

    pub(crate) fn admit(&mut self, now: u64) {
        self.admitted.push(u128::from(now));
    }
}

/// The worst window: by how much the costs in some closed window exceed `burst` + ⌊length/interval⌋; 0 if in none.
pub(crate) fn worst_excess(mut charged: Vec<(u64, u64)>, interval: u128, burst: u128) -> u128 {
    charged.sort_unstable();
    let mut worst = 0;
    for first in 0..charged.len() {
        let mut sum = 0;
        for (at, cost) in &charged[first..] {
            sum += u128::from(*cost);
            let bound = burst + u128::from(at - charged[first].0) / interval;
            worst = worst.max(sum.saturating_sub(bound));
        }
    }
    worst
}
