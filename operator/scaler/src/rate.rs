//! How fast requests come: windows over time, whatever the rhythm in which it is looked.
//!
//! What a pod reports has happened evenly since its report before, so a report that is missed makes no burst when the next
//! one comes. Pods report at different moments: a window ends at the mean of them, and what the later ones tell beyond it
//! stands for what the earlier ones have not told yet.

use std::collections::VecDeque;
use std::time::Duration;

use crate::counters::{Flow, Piece};

/// The window in which a sudden rise shows. No rate is taken over less.
pub(crate) const SUDDEN: Duration = Duration::from_secs(6);
/// The window by which a pool is sized.
pub(crate) const STABLE: Duration = Duration::from_mins(1);
/// What is kept.
pub(crate) const LONGEST: Duration = Duration::from_mins(10);

/// What happened in a pool, of late.
#[derive(Debug, Clone)]
pub(crate) struct Rates {
    since: Duration,
    edge: Duration,
    fine: Buckets,
    coarse: Buckets,
}

/// What happened in a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) flow: Flow,
    /// Requests that the queue has refused within [`LONGEST`]: whoever comes again may have been refused before the window.
    pub(crate) refused: f64,
    pub(crate) seconds: f64,
}

impl Window {
    /// New requests.
    pub(crate) fn wanted(&self) -> f64 {
        self.flow.wanted(self.refused)
    }

    /// New requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.wanted() / self.seconds
    }

    /// The rate that it is at least, but for chance: that many come by so many standard deviations.
    pub(crate) fn rate_but_chance(&self, deviations: f64) -> f64 {
        let wanted = self.wanted();
        (wanted - deviations * wanted.sqrt()).max(0.0) / self.seconds
    }
}

impl Rates {
    pub(crate) fn new(now: Duration) -> Self {
        // One bucket more than a window needs: its begin and its end each lie within one.
        Self { since: now, edge: now, fine: Buckets::new(1, 70), coarse: Buckets::new(10, 63) }
    }

    pub(crate) fn add(&mut self, piece: &Piece) {
        self.fine.add(piece);
        self.coarse.add(piece);
    }

    /// Says until when reports tell, on average.
    pub(crate) fn look(&mut self, edge: Duration) {
        self.edge = edge;
    }

    /// What happened in the last while, at most [`LONGEST`]: as much of it as has been looked at.
    pub(crate) fn over(&self, window: Duration) -> Window {
        let looked = self.edge.saturating_sub(self.since);
        let window = window.min(looked).max(SUDDEN);
        let buckets = if window <= STABLE { &self.fine } else { &self.coarse };
        let flow = buckets.from(self.edge.saturating_sub(window));
        Window { flow, refused: self.refused(), seconds: window.as_secs_f64() }
    }

    fn refused(&self) -> f64 {
        self.coarse.from(self.edge.saturating_sub(LONGEST)).capacity_rejects
    }

    /// New requests a second in each of the last steps of 10 s that are over, the latest last, with their middle in
    /// seconds before the edge.
    pub(crate) fn steps(&self, most: usize) -> Vec<(f64, f64)> {
        let (edge, since) = (self.edge.as_secs_f64(), self.since.as_secs_f64());
        let refused = self.refused();
        let whole = self.coarse.iter().filter(|(begin, end, _)| *begin >= since && *end <= edge);
        let steps: Vec<_> = whole
            .map(|(begin, end, flow)| {
                (f64::midpoint(begin, end) - edge, flow.wanted(refused) / (end - begin))
            })
            .collect();
        steps.into_iter().rev().take(most).rev().collect()
    }
}

/// Sums by the time in which things happened.
#[derive(Debug, Clone)]
struct Buckets {
    seconds: u64,
    most: usize,
    /// The number of the first that is kept.
    first: u64,
    sums: VecDeque<Flow>,
}

impl Buckets {
    fn new(seconds: u64, most: usize) -> Self {
        Self { seconds, most, first: 0, sums: VecDeque::with_capacity(most) }
    }

    fn number(&self, at: Duration) -> u64 {
        at.as_secs().checked_div(self.seconds).unwrap_or_default()
    }

    /// Each, with its begin and end in seconds.
    fn iter(&self) -> impl Iterator<Item = (f64, f64, &Flow)> {
        let width = crate::counters::count(self.seconds);
        let first = crate::counters::count(self.first);
        self.sums.iter().scan(first, move |number, sum| {
            let begin = *number * width;
            *number += 1.0;
            Some((begin, begin + width, sum))
        })
    }

    fn add(&mut self, piece: &Piece) {
        self.reach(self.number(piece.to));
        let (from, to) = (piece.from.as_secs_f64(), piece.to.as_secs_f64());
        let width = crate::counters::count(self.seconds);
        let passed = to - from;
        let skipped = self.number(piece.from).saturating_sub(self.first);
        let end = self.number(piece.to).saturating_sub(self.first);
        let mut begin = crate::counters::count(self.first.saturating_add(skipped)) * width;
        let [skipped, end] = [skipped, end].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        for sum in self.sums.iter_mut().take(end.saturating_add(1)).skip(skipped) {
            let overlap = (begin + width).min(to) - begin.max(from);
            let share = if passed > 0.0 { overlap.max(0.0) / passed } else { 1.0 };
            sum.add(&piece.flow, share);
            begin += width;
        }
    }

    /// Makes room up to this one; what is too old for it is dropped.
    fn reach(&mut self, last: u64) {
        let kept = u64::try_from(self.most).unwrap_or(u64::MAX);
        let first = last.saturating_add(1).saturating_sub(kept);
        let end = self.first.saturating_add(u64::try_from(self.sums.len()).unwrap_or(u64::MAX));
        if first >= end {
            self.sums.clear();
            self.first = first;
        }
        let end = self.first.saturating_add(u64::try_from(self.sums.len()).unwrap_or(u64::MAX));
        (end..=last).for_each(|_| self.sums.push_back(Flow::default()));
        while self.sums.len() > self.most {
            self.sums.pop_front();
            self.first = self.first.saturating_add(1);
        }
    }

    /// All from a moment on.
    fn from(&self, start: Duration) -> Flow {
        let start = start.as_secs_f64();
        let mut total = Flow::default();
        for (begin, end, sum) in self.iter().filter(|(_, end, _)| *end > start) {
            total.add(sum, (end - begin.max(start)) / (end - begin));
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(from: f64, to: f64, arrivals: f64) -> Piece {
        let flow = Flow { arrivals, ..Flow::default() };
        Piece { from: Duration::from_secs_f64(from), to: Duration::from_secs_f64(to), flow, is_used: false }
    }

    fn rates(pieces: &[Piece], edge: u64) -> Rates {
        let mut rates = Rates::new(Duration::ZERO);
        for piece in pieces {
            rates.add(piece);
        }
        rates.look(Duration::from_secs(edge));
        rates
    }

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-6
    }

    #[test]
    fn a_missed_report_makes_no_burst() {
        let steady = rates(&[piece(0.0, 90.0, 180.0), piece(90.0, 100.0, 20.0)], 100);
        assert!(close(steady.over(SUDDEN).rate(), 2.0));
        assert!(close(steady.over(STABLE).rate(), 2.0));
        assert!(close(steady.over(LONGEST).rate(), 2.0));
    }

    #[test]
    fn a_window_is_no_longer_than_has_been_looked_and_never_shorter_than_the_shortest() {
        let young = rates(&[piece(0.0, 20.0, 40.0)], 20);
        assert!(close(young.over(STABLE).rate(), 2.0));
        let new_born = rates(&[piece(0.0, 1.0, 6.0)], 1);
        assert!(close(new_born.over(STABLE).rate(), 1.0));
    }

    #[test]
    fn pods_that_report_at_different_moments_count_alike() {
        // Each has two a second; one has told up to second 99, the other up to 101.
        let both = rates(&[piece(0.0, 99.0, 198.0), piece(0.0, 101.0, 202.0)], 100);
        assert!(close(both.over(SUDDEN).rate(), 4.0), "{}", both.over(SUDDEN).rate());
    }

    #[test]
    fn chance_is_taken_off_what_came() {
        let some = rates(&[piece(94.0, 100.0, 9.0)], 100);
        assert!(close(some.over(SUDDEN).rate_but_chance(1.0), 1.0));
        let one = rates(&[piece(94.0, 100.0, 1.0)], 100);
        assert!(close(one.over(SUDDEN).rate_but_chance(1.0), 0.0));
    }

    #[test]
    fn steps_are_those_that_are_over() {
        let rising = rates(&[piece(0.0, 10.0, 10.0), piece(10.0, 20.0, 30.0), piece(20.0, 25.0, 99.0)], 25);
        let steps = rising.steps(9);
        assert_eq!(steps.len(), 2);
        assert!(close(steps[0].0, -20.0) && close(steps[0].1, 1.0) && close(steps[1].1, 3.0), "{steps:?}");
    }

    #[test]
    fn times_without_end_do_no_harm() {
        let mut rates = Rates::new(Duration::MAX);
        rates.add(&Piece {
            from: Duration::ZERO,
            to: Duration::MAX,
            flow: Flow { arrivals: 5.0, ..Flow::default() },
            is_used: false,
        });
        rates.look(Duration::MAX);
        assert!(rates.over(LONGEST).rate() >= 0.0);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_within_the_longest_window(
            spans in prop::collection::vec((0.0..30.0f64, 0..100u32), 1..15),
        ) {
            let (mut rates, mut now, mut all) = (Rates::new(Duration::ZERO), 0.0, 0.0);
            for (passed, arrivals) in spans {
                rates.add(&piece(now, now + passed, f64::from(arrivals)));
                now += passed;
                all += f64::from(arrivals);
            }
            rates.look(Duration::from_secs_f64(now));
            prop_assert!((rates.over(LONGEST).wanted() - all).abs() < 1e-6 * (all + 1.0));
            prop_assert!(rates.fine.sums.len() <= 70 && rates.coarse.sums.len() <= 63);
        }
    }
}
