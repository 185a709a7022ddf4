//! Law 2: settling never leaves a bucket with more than if the real costs had been known from the start; and debt.

use proptest::prelude::*;

use crate::subject::{Run, Subject, WINDOW, for_each_algorithm, for_each_window_algorithm, gap};

/// What happens after a time: a charge, a settle of one of those that are open, more on top of one, another pace.
#[derive(Debug, Clone)]
enum Act {
    Take(u64),
    Settle(prop::sample::Index, u64),
    Extend(prop::sample::Index, u64),
    Swap(u64, u64),
}

/// `swaps` in ten or so of them are other paces, of these windows.
fn acts(swaps: u32, windows: Vec<u64>) -> impl Strategy<Value = Vec<(u64, Act)>> {
    let index = any::<prop::sample::Index>();
    let act = prop_oneof![
        5 => (1..14u64).prop_map(Act::Take),
        4 => (index.clone(), 0..20u64).prop_map(|(which, real)| Act::Settle(which, real)),
        1 => (index, 1..6u64).prop_map(|(which, more)| Act::Extend(which, more)),
        swaps => (1..16u64, prop::sample::select(windows)).prop_map(|(limit, window)| Act::Swap(limit, window)),
    ];
    prop::collection::vec((gap(), act), 1..40)
}

/// What is known to have been charged, in order.
#[derive(Clone, Copy)]
enum Known {
    Charge(u64),
    Swap(u64, u64),
}

/// A bucket that knew all costs from the start.
fn replayed<B: Subject>(known: &[(u64, Known)], now: u64) -> Run<B> {
    let mut run = Run::<B>::new(10, WINDOW);
    for (at, what) in known {
        run.now = *at;
        match what {
            Known::Charge(cost) => drop(run.take(*cost)),
            Known::Swap(limit, window) => drop(run.swap(*limit, *window)),
        }
    }
    Run { now, ..run }
}

fn no_bucket_holds_less_than_one_that_knew<B: Subject>(acts: Vec<(u64, Act)>) -> Result<(), TestCaseError> {
    let is_swapped = acts.iter().any(|(_, act)| matches!(act, Act::Swap(..)));
    let rounded = if is_swapped { B::ROUNDED } else { 0 };
    let mut run = Run::<B>::new(10, WINDOW);
    let mut open: Vec<(usize, u64, B::Charge)> = Vec::new();
    let mut known = Vec::new();
    for (after, act) in acts {
        run.now += after;
        match act {
            Act::Take(cost) => {
                open.push((known.len(), cost, run.take(cost)));
                known.push((run.now, Known::Charge(cost)));
            }
            Act::Settle(which, real) if !open.is_empty() => {
                let (place, _, charge) = open.swap_remove(which.index(open.len()));
                known[place].1 = Known::Charge(real);
                run.settle(charge, real);
            }
            Act::Extend(which, more) if !open.is_empty() => {
                let which = which.index(open.len());
                let (place, cost, charge) = &mut open[which];
                *cost += more;
                known[*place].1 = Known::Charge(*cost);
                run.extend(charge, more);
            }
            Act::Swap(limit, window) => {
                known.push((run.now, Known::Swap(limit, window)));
                let swap = run.swap(limit, window);
                let carried = open
                    .into_iter()
                    .map(|(place, cost, charge)| (place, cost, B::carry_charge(charge, &swap)));
                open = carried.collect();
            }
            Act::Settle(..) | Act::Extend(..) => {}
        }
        let knew = replayed::<B>(&known, run.now);
        for later in [0, 1, WINDOW / 3, WINDOW - 1, WINDOW, WINDOW + 7, 2 * WINDOW, 5 * WINDOW] {
            let (used, really) = (run.later(later).used(), knew.later(later).used());
            prop_assert!(used + rounded >= really, "{} used {} ns later, {} really", used, later, really);
        }
        for cost in [1, run.limit] {
            prop_assert!(run.wait(cost) >= knew.wait(cost - rounded));
        }
    }
    Ok(())
}

for_each_algorithm!(
    after_every_settle_at_least_as_much_is_used_as_had_the_costs_been_known,
    acts(0, vec![WINDOW]),
    no_bucket_holds_less_than_one_that_knew
);
for_each_window_algorithm!(
    across_swaps_too_at_least_as_much_is_used_as_had_the_costs_been_known,
    acts(1, vec![WINDOW]),
    no_bucket_holds_less_than_one_that_knew
);
for_each_window_algorithm!(
    across_other_windows_too_at_least_as_much_is_used_as_had_the_costs_been_known,
    acts(1, vec![WINDOW, WINDOW / 2, WINDOW * 3, 7]),
    no_bucket_holds_less_than_one_that_knew
);

fn settling_the_latest_charge_at_once_leaves_no_trace<B: Subject>(
    (charges, cost, real): (Vec<(u64, u64)>, u64, u64),
) -> Result<(), TestCaseError> {
    let mut run = Run::<B>::new(10, WINDOW);
    for (after, cost) in charges {
        run.now += after;
        let _stands = run.take(cost);
    }
    let mut knew = run.clone();
    let charge = run.take(cost);
    run.settle(charge, real);
    let _stands = knew.take(real);
    for later in 0..3 * WINDOW {
        prop_assert_eq!(run.later(later).used(), knew.later(later).used());
        prop_assert_eq!(run.later(later).until_full(), knew.later(later).until_full());
    }
    Ok(())
}

for_each_algorithm!(
    a_charge_settled_at_once_is_as_if_it_had_cost_that_from_the_start,
    (prop::collection::vec((gap(), 1..14u64), 0..8), 1..20u64, 0..60u64),
    settling_the_latest_charge_at_once_leaves_no_trace
);

fn what_the_window_took_is_never_credited_to_a_later_one<B: Subject>(
    (first, second, real, windows): (u64, u64, u64, u64),
) -> Result<(), TestCaseError> {
    let mut run = Run::<B>::new(10, WINDOW);
    let charge = run.take(first);
    run.now += windows * WINDOW;
    let _stands = run.take(second);
    let before = run.used();
    run.settle(charge, real.min(first));
    prop_assert!(run.used() >= second);
    prop_assert!(run.used() <= before);
    if windows >= 2 {
        prop_assert_eq!(run.used(), before);
    }
    Ok(())
}

for_each_algorithm!(
    a_give_back_never_credits_what_came_later,
    (1..=10u64, 1..=10u64, 0..10u64, 1..4u64),
    what_the_window_took_is_never_credited_to_a_later_one
);

/// An answer five times as long as was reserved.
fn long_answer<B: Subject>() -> Run<B> {
    let mut run = Run::<B>::new(10, WINDOW).later(20);
    let charge = run.take(10);
    run.settle(charge, 50);
    run
}

#[test]
fn an_answer_five_times_as_long_as_reserved_uses_up_that_many_fixed_windows() {
    let run = long_answer::<corral_limiter::algo::fixed_window::FixedWindow>();
    assert_eq!(run.used(), 50);
    assert_eq!(run.wait(1), 5 * WINDOW - 20);
    assert_eq!(run.later(WINDOW).used(), 40);
    assert_eq!(run.later(4 * WINDOW).used(), 10);
    assert_eq!(run.later(5 * WINDOW - 20).available(), 10);
}

#[test]
fn an_answer_five_times_as_long_as_reserved_leaks_out_of_sliding_windows_one_limit_each() {
    let run = long_answer::<corral_limiter::algo::sliding_window::SlidingWindow>();
    assert_eq!(run.used(), 50);
    // In the sixth window nothing is left of it but the tenth part of the fifth that counts no more after six.
    assert_eq!(run.wait(1), 5 * WINDOW - 20 + 6);
    assert_eq!(run.later(5 * WINDOW - 20).used(), 10);
    assert_eq!(run.until_full(), 6 * WINDOW - 20);
}

#[test]
fn an_answer_five_times_as_long_as_reserved_leaves_a_log_a_window_later() {
    let run = long_answer::<corral_limiter::algo::sliding_log::SlidingLog>();
    assert_eq!((run.used(), run.wait(1)), (50, WINDOW));
}

#[test]
fn a_reservation_above_the_limit_that_came_to_little_blocks_no_later_window() {
    let mut run = Run::<corral_limiter::algo::fixed_window::FixedWindow>::new(10, WINDOW);
    let charge = run.take(50);
    run.now += WINDOW;
    assert_eq!(run.used(), 40);
    let _stands = run.take(1);
    run.settle(charge, 3);
    assert_eq!(run.used(), 1);
}

#[test]
fn of_an_overrun_only_what_is_known_counts_in_each_window() {
    let mut run = Run::<corral_limiter::algo::fixed_window::FixedWindow>::new(10, WINDOW);
    let mut charge = run.take(2);
    run.now += WINDOW;
    run.extend(&mut charge, 4);
    assert_eq!(run.used(), 4);
    run.now += WINDOW;
    run.settle(charge, 9);
    assert_eq!(run.used(), 3);
}
