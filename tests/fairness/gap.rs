//! How far two clients' service differ over any interval in which both had something waiting.

/// The range of the difference is the largest gap of all intervals.
#[derive(Debug, Clone, Default)]
pub(crate) struct GapMeter {
    range: Option<(f64, f64)>,
    worst: f64,
}

impl GapMeter {
    /// Between two calls the difference must be linear.
    pub(crate) fn see(&mut self, both_wait: bool, difference: f64) {
        let seen = self
            .range
            .filter(|_| both_wait)
            .map_or((difference, difference), |(low, high)| (low.min(difference), high.max(difference)));
        self.range = both_wait.then_some(seen);
        self.worst = self.worst.max(seen.1 - seen.0);
    }

    pub(crate) fn worst(&self) -> f64 {
        self.worst
    }
}

#[test]
fn an_interval_ends_where_one_of_them_has_nothing_waiting() {
    let mut meter = GapMeter::default();
    for (both_wait, difference) in
        [(true, 1.0), (true, 4.0), (true, 2.0), (false, 50.0), (true, 60.0), (true, 62.0)]
    {
        meter.see(both_wait, difference);
    }
    assert!((meter.worst() - 3.0).abs() < 1e-9, "{}", meter.worst());
}
