//! One table for all algorithms: what peek, commit, give back, settle and debt mean at one instant, and that it passes.

use corral_limiter::algo::{
    fixed_window::FixedWindow, gcra::TokenBucket, sliding_log::SlidingLog, sliding_window::SlidingWindow,
};

use crate::subject::{Run, Subject, WINDOW};

const LIMIT: u64 = 10;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A cost that is admitted; nothing is charged.
    Admits(u64),
    /// A cost that is not.
    Refuses(u64),
    Take(u64),
    /// Settles the so-manieth charge.
    Settle(usize, u64),
    Extend(usize, u64),
    /// What is then used, and available.
    Holds(u64, u64),
    /// Long enough for anything to be gone.
    Silence,
}
use Step::{Admits, Extend, Holds, Refuses, Settle, Silence, Take};

const TABLE: &[(&str, &[Step])] = &[
    ("a new bucket is full", &[Holds(0, 10), Admits(0), Admits(10), Admits(11), Admits(u64::MAX)]),
    ("peeking takes nothing", &[Admits(10), Admits(10), Holds(0, 10)]),
    ("a commit takes its cost", &[Take(3), Holds(3, 7), Admits(7), Refuses(8)]),
    ("commits add up", &[Take(3), Take(3), Take(4), Holds(10, 0), Refuses(1), Admits(0)]),
    ("what is given back at once is there again", &[Take(4), Settle(0, 0), Holds(0, 10), Admits(11)]),
    (
        "a give-back is that of its own charge",
        &[Take(4), Take(5), Settle(0, 1), Holds(6, 4), Settle(1, 5), Holds(6, 4)],
    ),
    (
        "all that was given back in order is there again",
        &[Take(4), Take(5), Settle(0, 0), Settle(1, 0), Holds(0, 10)],
    ),
    (
        "a stream that was charged in full settles to nothing more",
        &[Take(2), Extend(0, 3), Settle(0, 5), Holds(5, 5)],
    ),
    ("a stream settles to more", &[Take(2), Extend(0, 3), Settle(0, 8), Holds(8, 2)]),
    (
        "what was charged on top is not given back to others",
        &[Take(2), Take(5), Extend(0, 2), Settle(1, 0), Holds(4, 6)],
    ),
    (
        "a cost above the limit passes when nothing is used",
        &[Admits(25), Take(25), Holds(25, 0), Refuses(1), Refuses(25)],
    ),
    ("a cost above the limit waits for all that is used", &[Take(1), Refuses(11), Settle(0, 0), Admits(11)]),
    ("a cost above the limit gives back too", &[Take(25), Settle(0, 4), Holds(4, 6)]),
    ("nothing costs nothing", &[Take(0), Holds(0, 10), Settle(0, 0), Admits(11)]),
    ("a debt passes", &[Take(4), Settle(0, 50), Silence, Holds(0, 10), Admits(10)]),
    ("what has passed gives nothing back", &[Take(4), Silence, Take(6), Settle(0, 0), Holds(6, 4)]),
    (
        "silence gives no more than the limit",
        &[Take(4), Silence, Silence, Holds(0, 10), Take(10), Refuses(1)],
    ),
];

/// What a token bucket does not promise: a charge gets back less there if a later one was given back before.
const IN_ANY_ORDER: &[(&str, &[Step])] =
    &[("give-backs go in any order", &[Take(4), Take(5), Settle(1, 0), Settle(0, 0), Holds(0, 10)])];

fn run_table<B: Subject>() {
    let in_any_order: &[(&str, &[Step])] = if B::IN_ANY_ORDER { IN_ANY_ORDER } else { &[] };
    for (name, steps) in TABLE.iter().chain(in_any_order) {
        let mut run = Run::<B>::new(LIMIT, WINDOW);
        let mut charges = Vec::new();
        for step in *steps {
            match *step {
                Admits(cost) => assert!(run.admits(cost), "{name}: {step:?}"),
                Refuses(cost) => assert!(!run.admits(cost), "{name}: {step:?}"),
                Take(cost) => charges.push(Some(run.take(cost))),
                Settle(which, real) => run.settle(charges[which].take().unwrap(), real),
                Extend(which, more) => run.extend(charges[which].as_mut().unwrap(), more),
                Holds(used, available) => {
                    assert_eq!((run.used(), run.available()), (used, available), "{name}: {step:?}");
                }
                Silence => run.now += 20 * WINDOW,
            }
        }
        assert_eq!(run.is_full(), run.used() == 0, "{name}");
    }
}

#[test]
fn token_buckets_follow_the_table() {
    run_table::<TokenBucket>();
}

#[test]
fn fixed_windows_follow_the_table() {
    run_table::<FixedWindow>();
}

#[test]
fn sliding_windows_follow_the_table() {
    run_table::<SlidingWindow>();
}

#[test]
fn sliding_logs_follow_the_table() {
    run_table::<SlidingLog>();
}
