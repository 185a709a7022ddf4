//! What others do, from their published formulas, all with the same target: so many in flight and queued a pod.

pub(crate) mod hpa;
pub(crate) mod kpa;
pub(crate) mod kubeai;

use std::collections::VecDeque;
use std::time::Duration;

use crate::agenda::Time;

/// In flight and queued a pod.
pub(crate) const TARGET: f64 = 3.0;

/// Values with their times, as far back as they are of use.
#[derive(Default)]
struct Window {
    values: VecDeque<(Time, f64)>,
}

impl Window {
    fn push(&mut self, now: Time, value: f64, kept: Duration) {
        self.values.push_back((now, value));
        while self.values.front().is_some_and(|(at, _)| *at + kept <= now) {
            self.values.pop_front();
        }
    }

    fn since(&self, from: Option<Time>) -> impl Iterator<Item = f64> {
        let recent = self.values.iter().rev();
        recent.take_while(move |(at, _)| from.is_none_or(|from| *at > from)).map(|(_, value)| *value)
    }

    /// Of the values of that long; 0 when there is none.
    fn mean(&self, now: Time, length: Duration) -> f64 {
        let (count, sum) =
            self.since(now.checked_sub(length)).fold((0.0, 0.0), |(count, sum), it| (count + 1.0, sum + it));
        if count > 0.0 { sum / count } else { 0.0 }
    }

    fn most(&self, now: Time, length: Duration) -> f64 {
        self.since(now.checked_sub(length)).fold(0.0, f64::max)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is brought between two small numbers"
)]
fn pods(count: f64, [min, max]: [u32; 2]) -> u32 {
    count.ceil().clamp(f64::from(min), f64::from(max)) as u32
}

#[test]
fn a_window_knows_only_what_is_recent() {
    let mut window = Window::default();
    let at = Time::from_secs;
    for (second, value) in [(0, 9.0), (8, 3.0), (9, 1.0), (10, 2.0)] {
        window.push(at(second), value, at(10));
    }
    assert_eq!(window.values.len(), 3);
    assert!((window.mean(at(10), at(2)) - 1.5).abs() < 1e-9);
    assert!((window.most(at(10), at(9)) - 3.0).abs() < 1e-9);
}
