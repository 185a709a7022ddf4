//! A million decisions over one plan of every algorithm, in which nothing is admitted beyond a bound.

use corral_limiter::{Limiter, Unit};
use corral_wire::{Algorithm, KeyPart, LimitDoc};

use crate::support::{SECOND, limiter_of, passes, plan, pods, rate, rated};

const CLIENTS: u32 = 97;

/// Cheap pseudo-random numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

fn of_algorithm(algorithm: Algorithm) -> LimitDoc {
    let window = if algorithm == Algorithm::FixedWindow { 60 } else { 5 };
    LimitDoc { algorithm, ..rated("l", &[KeyPart::Client], rate(7, window, 3)) }
}

/// Decides `decisions` times, and says the most that any client had in windows that begin with an admission.
fn most_in_a_window(mut limiter: Limiter, window: u64, decisions: usize) -> u64 {
    let mut dice = Dice(42);
    let mut recent = vec![std::collections::VecDeque::<u64>::new(); CLIENTS as usize];
    let (mut now, mut most) = (0, 0);
    for _ in 0..decisions {
        now += dice.below(SECOND / 40);
        let client = u32::try_from(dice.below(u64::from(CLIENTS))).unwrap();
        if passes(&mut limiter, client, now) {
            let admitted = &mut recent[client as usize];
            admitted.push_back(now);
            while admitted.front().is_some_and(|at| at + window <= now) {
                admitted.pop_front();
            }
            most = most.max(admitted.len() as u64);
        }
    }
    most
}

fn simulate(decisions: usize) {
    for algorithm in
        [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::SlidingLog, Algorithm::FixedWindow]
    {
        let limits = [of_algorithm(algorithm)];
        let window = limits[0].requests.unwrap().window_seconds * SECOND;
        let plan = plan(&limits);
        let bound = plan.bound(plan.limits().last().unwrap(), pods(1)).per_window(Unit::Requests).unwrap();
        let most = most_in_a_window(limiter_of(&limits, 1, 1000), window, decisions / 4);
        assert!(most <= bound, "{algorithm:?}: {most} in a window, the bound is {bound}");
        assert!(most >= 7, "{algorithm:?}: the simulation does not reach the limit");
    }
}

#[test]
fn a_million_decisions_admit_nothing_beyond_the_bounds() {
    simulate(1_000_000);
}

/// Some minutes in a release build: `cargo test --release -p corral-limiter -- --ignored hundred_million`.
#[test]
#[ignore = "takes minutes"]
fn a_hundred_million_decisions_admit_nothing_beyond_the_bounds() {
    simulate(100_000_000);
}
