//! Time that never goes back: what is handed in may jump either way, and a jump must not be taken for a long quiet.

use std::time::Duration;

/// Counts what has passed between one look and the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeline {
    now: Duration,
    told: Duration,
}

impl Timeline {
    pub(crate) fn new(told: Duration) -> Self {
        Self { now: told, told }
    }

    /// Takes the time as told, and gives what has passed since the look before: nothing where it went back.
    pub(crate) fn step(&mut self, told: Duration) -> Duration {
        let passed = told.saturating_sub(self.told);
        self.told = told;
        self.now = self.now.saturating_add(passed);
        passed
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// A moment as told, on this line. What is still to come counts as now.
    pub(crate) fn at(&self, told: Duration) -> Duration {
        self.now.saturating_sub(self.told.saturating_sub(told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_goes_back_stands_still_and_then_goes_on() {
        let at = Duration::from_secs;
        let mut line = Timeline::new(at(100));
        assert_eq!((line.step(at(110)), line.now()), (at(10), at(110)));
        assert_eq!((line.step(at(40)), line.now()), (at(0), at(110)));
        assert_eq!((line.step(at(42)), line.now()), (at(2), at(112)));
        assert_eq!((line.at(at(41)), line.at(at(99))), (at(111), at(112)));
    }
}
