//! Simulated clients by the million over random paces, with settles in any order, streams, debts and plan swaps: not one
//! stretch of time may hold more than its algorithm's bound.
//!
//! The oracles go along in one pass and share nothing with the buckets: they see when a request was admitted, and of its
//! cost what is promised to be within the bound: no more than it reserved (what goes beyond is debt), than it really
//! cost, or than the limit.

use std::collections::VecDeque;

use corral_limiter::algo::{
    fixed_window::FixedWindow, gcra::TokenBucket, sliding_log::SlidingLog, sliding_window::SlidingWindow,
};

use crate::subject::{Run, Subject};

/// Says whether a stretch that ends with this charge holds too much.
trait Oracle {
    fn exceeded_by(&mut self, at: u64, cost: u64) -> bool;
}

/// An algorithm with what it promises.
trait Judged: Subject {
    type Oracle: Oracle;

    fn oracle(limit: u64, window: u64) -> Self::Oracle;
}

/// No closed stretch of length t holds more than B + ⌊t/T⌋: of all stretches that end now, the worst one's Σ·T − t.
struct Spaced {
    interval: u128,
    burst: u128,
    worst: u128,
    last: u64,
}

impl Oracle for Spaced {
    fn exceeded_by(&mut self, at: u64, cost: u64) -> bool {
        self.worst = self.worst.saturating_sub(u128::from(at - self.last)) + u128::from(cost) * self.interval;
        self.last = at;
        self.worst > self.burst * self.interval
    }
}

/// No window from edge to edge holds more than N.
struct Aligned {
    limit: u64,
    window: u64,
    index: u64,
    sum: u64,
}

impl Oracle for Aligned {
    fn exceeded_by(&mut self, at: u64, cost: u64) -> bool {
        if at / self.window != self.index {
            (self.index, self.sum) = (at / self.window, 0);
        }
        self.sum += cost;
        self.sum > self.limit
    }
}

/// No stretch, from an instant to less than `length` after it, holds more than `most`.
struct Stretch {
    most: u64,
    length: u64,
    charges: VecDeque<(u64, u64)>,
    sum: u64,
}

impl Stretch {
    fn new(most: u64, length: u64) -> Self {
        Self { most, length, charges: VecDeque::new(), sum: 0 }
    }
}

impl Oracle for Stretch {
    fn exceeded_by(&mut self, at: u64, cost: u64) -> bool {
        while let Some((_, gone)) = self.charges.pop_front_if(|(first, _)| at - *first >= self.length) {
            self.sum -= gone;
        }
        self.charges.push_back((at, cost));
        self.sum += cost;
        self.sum > self.most
    }
}

impl Judged for TokenBucket {
    type Oracle = Spaced;

    fn oracle(limit: u64, window: u64) -> Spaced {
        Spaced { interval: window.div_ceil(limit).into(), burst: limit.into(), worst: 0, last: 0 }
    }
}

impl Judged for FixedWindow {
    type Oracle = Aligned;

    fn oracle(limit: u64, window: u64) -> Aligned {
        Aligned { limit, window, index: 0, sum: 0 }
    }
}

impl Judged for SlidingWindow {
    type Oracle = Stretch;

    /// Less than 2N in a stretch of W, ends included.
    fn oracle(limit: u64, window: u64) -> Stretch {
        Stretch::new(2 * limit - 1, window + 1)
    }
}

impl Judged for SlidingLog {
    type Oracle = Stretch;

    fn oracle(limit: u64, window: u64) -> Stretch {
        Stretch::new(limit, window)
    }
}

/// Xorshift (Marsaglia, 2003), multiplied.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn limit(&mut self) -> u64 {
        let most = [4, 100, 10_000][usize::try_from(self.below(3)).unwrap()];
        1 + self.below(most)
    }

    /// Nanoseconds to 31 days.
    fn window(&mut self) -> u64 {
        let most = [100, 1_000_000_000, 60_000_000_000, 31 * 86_400_000_000_000]
            [usize::try_from(self.below(4)).unwrap()];
        1 + self.below(most)
    }
}

/// A request that was admitted: of which number, with what reserved.
struct Open<C> {
    number: u64,
    reserved: u64,
    charge: C,
}

/// A bucket, its clients, and its oracle.
struct Simulation<B: Judged> {
    random: Random,
    run: Run<B>,
    oracle: B::Oracle,
    open: Vec<Open<B::Charge>>,
    /// What was admitted and not yet shown to the oracle, in order, with its real cost once that is known.
    pending: VecDeque<(u64, Option<u64>)>,
    /// The number of the first of them.
    first: u64,
    admitted: u64,
    refused: u64,
    exceeded: u64,
}

const MOST_OPEN: usize = 16;
const MOST_PENDING: usize = 64;

impl<B: Judged> Simulation<B> {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed | 1);
        let _ = (0..8).map(|_| random.next()).last();
        let (limit, window) = (random.limit(), random.window());
        let now = random.below(1 << 50);
        let run = Run::<B> { now, ..Run::new(limit, window) };
        let (open, pending) = (Vec::new(), VecDeque::new());
        let oracle = B::oracle(limit, window);
        Self { random, run, oracle, open, pending, first: 0, admitted: 0, refused: 0, exceeded: 0 }
    }

    fn step(&mut self) {
        self.run.now += self.gap();
        match self.random.below(16) {
            0 => self.extend(),
            1..7 => self.settle_any(),
            _ => {}
        }
        if self.random.one_in(1024) {
            self.swap();
        }
        let reserved = self.cost();
        if self.run.admits(reserved) {
            self.admit(reserved);
        } else {
            self.refused += 1;
        }
    }

    fn gap(&mut self) -> u64 {
        let (window, limit) = (self.run.window, self.run.limit);
        match self.random.below(32) {
            0..20 => 0,
            20..26 => self.random.below(window / limit + 2),
            26..29 => self.random.below(window / 4 + 2),
            29 => (window - self.run.now % window + 1).saturating_sub(self.random.below(3)),
            30 => 1,
            _ => self.random.below(3 * window),
        }
    }

    fn cost(&mut self) -> u64 {
        let limit = self.run.limit;
        match self.random.below(16) {
            0..6 => 1,
            6..10 => 1 + self.random.below(limit / 8 + 1),
            10..15 => 1 + self.random.below(limit),
            _ => 1 + self.random.below(2 * limit),
        }
    }

    fn admit(&mut self, reserved: u64) {
        self.admitted += 1;
        let number = self.first + self.pending.len() as u64;
        let charge = self.run.take(reserved);
        self.pending.push_back((self.run.now, None));
        self.open.push(Open { number, reserved, charge });
        if self.open.len() > MOST_OPEN || self.pending.len() > MOST_PENDING {
            self.settle(0);
        }
    }

    fn extend(&mut self) {
        let which = self.random.below(self.open.len() as u64);
        let more = 1 + self.random.below(self.run.limit / 4 + 1);
        if let Some(open) = self.open.get_mut(usize::try_from(which).unwrap()) {
            self.run.extend(&mut open.charge, more);
        }
    }

    fn settle_any(&mut self) {
        if !self.open.is_empty() {
            let which = self.random.below(self.open.len() as u64);
            self.settle(usize::try_from(which).unwrap());
        }
    }

    fn settle(&mut self, which: usize) {
        let Open { number, reserved, charge } = self.open.remove(which);
        let real = match self.random.below(8) {
            0..2 => reserved,
            2..4 => 0,
            4..7 => self.random.below(reserved + 1),
            _ => self.random.below(4 * reserved),
        };
        self.run.settle(charge, real);
        // Admitted before a swap: the new plan promises nothing about it.
        let Some(place) = number.checked_sub(self.first) else { return };
        let promised = real.min(reserved).min(self.run.limit);
        self.pending[usize::try_from(place).unwrap()].1 = Some(promised);
        while let Some((at, Some(cost))) = self.pending.pop_front_if(|(_, cost)| cost.is_some()) {
            self.first += 1;
            self.exceeded += u64::from(self.oracle.exceeded_by(at, cost));
        }
    }

    fn swap(&mut self) {
        let limit = self.random.limit();
        let window = if self.random.one_in(2) { self.run.window } else { self.random.window() };
        let swap = self.run.swap(limit, window);
        let carried =
            self.open.drain(..).map(|open| Open { charge: B::carry_charge(open.charge, &swap), ..open });
        self.open = carried.collect();
        self.first += self.pending.len() as u64;
        self.pending.clear();
        self.oracle = B::oracle(limit, window);
    }
}

/// What came of so many decisions, in lives of 10,000 each.
fn simulate<B: Judged>(decisions: u64) {
    let (mut admitted, mut refused) = (0, 0);
    for life in 0..decisions.div_ceil(10_000) {
        let mut simulation = Simulation::<B>::new(life.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1);
        (0..10_000).for_each(|_| simulation.step());
        assert_eq!(simulation.exceeded, 0, "{} in life {life}", std::any::type_name::<B>());
        admitted += simulation.admitted;
        refused += simulation.refused;
    }
    println!("{}: {admitted} admitted, {refused} refused", std::any::type_name::<B>());
    assert!(admitted > decisions / 10 && refused > decisions / 10, "{admitted} admitted, {refused} refused");
}

fn simulate_all(decisions: u64) {
    simulate::<TokenBucket>(decisions / 4);
    simulate::<FixedWindow>(decisions / 4);
    simulate::<SlidingWindow>(decisions / 4);
    simulate::<SlidingLog>(decisions / 4);
}

#[test]
fn a_million_decisions_over_random_paces_never_admit_too_much() {
    simulate_all(1_000_000);
}

#[test]
#[ignore = "takes minutes: cargo test --release -p corral-limiter --test algorithms -- --ignored"]
fn a_hundred_million_decisions_over_random_paces_never_admit_too_much() {
    simulate_all(100_000_000);
}

#[test]
fn the_oracles_see_one_too_many() {
    let mut spaced = TokenBucket::oracle(3, 30);
    assert!(!spaced.exceeded_by(5, 3) && !spaced.exceeded_by(15, 1) && spaced.exceeded_by(24, 1));
    let mut aligned = FixedWindow::oracle(3, 30);
    assert!(!aligned.exceeded_by(29, 3) && !aligned.exceeded_by(30, 3) && aligned.exceeded_by(59, 1));
    let mut stretch = SlidingWindow::oracle(3, 30);
    assert!(!stretch.exceeded_by(29, 3) && !stretch.exceeded_by(59, 2) && stretch.exceeded_by(59, 1));
    let mut log = SlidingLog::oracle(3, 30);
    assert!(!log.exceeded_by(29, 3) && !log.exceeded_by(59, 3) && log.exceeded_by(88, 1));
}
