//! Law 10: what all pods together admit in any window is the policy's, plus what the splitting of a burst, changes of D
//! and restarts can add.

use corral_limiter::{Limiter, Nanos, Unit};
use corral_wire::{Algorithm, KeyPart, LimitDoc, RateDoc, Scope};
use proptest::prelude::*;

use crate::{
    oracle::{Windows, worst_excess},
    support::{SECOND, algorithms, ask, gap, limit, limiter_of, model, passes, plan, pods, rate, rated},
};

const CLIENT: [KeyPart; 1] = [KeyPart::Client];

/// What happens to the pool. Which pod: as an index into those that serve then.
#[derive(Debug, Clone, Copy)]
enum Event {
    Ask(prop::sample::Index),
    Scale(usize),
    Restart(prop::sample::Index),
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![
        20 => any::<prop::sample::Index>().prop_map(Event::Ask),
        2 => (1..5usize).prop_map(Event::Scale),
        2 => any::<prop::sample::Index>().prop_map(Event::Restart),
    ];
    prop::collection::vec((gap(), event), 1..140)
}

/// The pods that serve, and how much they may admit at one instant of all time, over the rate.
struct Serving {
    limits: [LimitDoc; 1],
    burst: usize,
    pods: Vec<Limiter>,
    bursts: usize,
}

impl Serving {
    fn start(rate: RateDoc, count: usize) -> Self {
        let burst = usize::try_from(rate.burst).unwrap();
        let mut serving = Self { limits: [rated("l", &CLIENT, rate)], burst, pods: Vec::new(), bursts: 0 };
        serving.scale(count, 0);
        serving
    }

    fn fresh(&self, divisor: usize) -> Limiter {
        limiter_of(&self.limits, u32::try_from(divisor).unwrap(), 1000)
    }

    /// Brings the pool to another number of pods, as the exchange does: when it grows all take the new D before the
    /// newcomers serve, when it shrinks the old ones go first. One burst more if D changes: B, or one for each pod.
    fn scale(&mut self, to: usize, now: u64) {
        if to != self.pods.len() {
            self.bursts += self.burst.max(to);
        }
        self.pods.truncate(to);
        let divisor = pods(u32::try_from(to).unwrap());
        self.pods.iter_mut().for_each(|pod| pod.set_divisor(divisor, Nanos(now)));
        while self.pods.len() < to {
            self.pods.push(self.fresh(to));
        }
    }

    /// A sidecar restarts: it is counted in D already and knows nothing of what it has admitted. One share's burst more.
    fn restart(&mut self, which: usize) {
        self.bursts += (self.burst / self.pods.len()).max(1);
        self.pods[which] = self.fresh(self.pods.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn all_pods_together_keep_the_bound_of_the_pool(
        count_milli in 1000..20_000u64, burst in 1..8u64, start in 1..5usize, events in events(),
    ) {
        let mut serving = Serving::start(RateDoc { count_milli, window_seconds: 1, burst }, start);
        let (mut now, mut admitted) = (0, Vec::new());
        for (after, event) in events {
            now += after;
            let count = serving.pods.len();
            match event {
                Event::Scale(to) => serving.scale(to, now),
                Event::Restart(which) => serving.restart(which.index(count)),
                Event::Ask(which) if passes(&mut serving.pods[which.index(count)], 1, now) => {
                    admitted.push((now, 1));
                }
                Event::Ask(_) => {}
            }
        }
        let interval = Windows::new(count_milli, SECOND, burst).interval;
        prop_assert_eq!(worst_excess(admitted, interval, serving.bursts as u128), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn whatever_the_algorithm_all_pods_together_keep_what_is_printed(
        algorithm in algorithms(), count in 1..20u64, serving in 1..5u32,
        asks in prop::collection::vec((gap(), any::<prop::sample::Index>()), 1..140),
    ) {
        let window = if algorithm == Algorithm::FixedWindow { 60 } else { 3 };
        let limits = [LimitDoc { algorithm, ..rated("l", &CLIENT, rate(count, window, count)) }];
        let plan = plan(&limits);
        let bound = plan.bound(plan.limits().last().unwrap(), pods(serving));
        let bound = bound.per_window(Unit::Requests).unwrap();
        let mut pool: Vec<_> = (0..serving).map(|_| limiter_of(&limits, serving, 1000)).collect();
        let (mut now, mut admitted) = (0, Vec::new());
        for (after, which) in asks {
            now += after;
            let place = which.index(pool.len());
            if passes(&mut pool[place], 1, now) {
                admitted.push(now);
            }
        }
        for from in &admitted {
            let until = from + window * SECOND;
            let held = admitted.iter().filter(|at| (*from..until).contains(at)).count() as u64;
            prop_assert!(held <= bound, "{} in a window, the bound is {}", held, bound);
        }
    }
}

#[test]
fn a_sidecar_that_restarts_admits_its_share_of_the_burst_once_more_and_nothing_else() {
    let mut serving = Serving::start(rate(60, 60, 10), 2);
    let admits = |pods: &mut Vec<Limiter>| {
        pods.iter_mut().map(|pod| (0..20).filter(|_| passes(pod, 1, 0)).count()).collect::<Vec<_>>()
    };
    assert_eq!(admits(&mut serving.pods), [5, 5]);
    serving.restart(1);
    assert_eq!(admits(&mut serving.pods), [0, 5]);
    assert_eq!(serving.bursts, 15);
}

#[test]
fn two_pods_admit_half_each_and_ten_together() {
    let limits = [rated("l", &CLIENT, rate(60, 60, 10))];
    let mut pool = [limiter_of(&limits, 2, 1000), limiter_of(&limits, 2, 1000)];
    for pod in &mut pool {
        assert_eq!((0..20).filter(|_| passes(pod, 1, 0)).count(), 5);
    }
}

#[test]
fn scope_pod_gives_each_pod_the_whole() {
    let limits = [LimitDoc { scope: Scope::Pod, ..rated("l", &CLIENT, rate(60, 60, 10)) }];
    let mut limiter = limiter_of(&limits, 4, 1000);
    assert_eq!((0..20).filter(|_| passes(&mut limiter, 1, 0)).count(), 10);
    assert!(!ask(&mut limiter, 1, &model(0), 0).unwrap_err().retry.split);
}

#[test]
fn concurrency_is_shared_but_never_below_one() {
    let limits = [LimitDoc { concurrency: Some(5), ..limit("c", &CLIENT) }];
    for (divisor, share) in [(1, 5), (2, 2), (5, 1), (9, 1)] {
        let mut limiter = limiter_of(&limits, divisor, 1000);
        let held: Vec<_> = (0..9).filter_map(|_| ask(&mut limiter, 1, &model(0), 0).ok()).collect();
        assert_eq!(held.len(), share);
    }
}
