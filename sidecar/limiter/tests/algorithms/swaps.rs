//! Semantics E: what is used and owed goes on under another pace.

use proptest::prelude::*;

use crate::subject::{Run, Subject, WINDOW, for_each_window_algorithm, gap};

/// Charges as after which time what cost; then a time, a cost to ask for, and a number.
type History = (u64, Vec<(u64, u64)>, u64, u64, u64);

fn histories() -> impl Strategy<Value = History> {
    (1..12u64, prop::collection::vec((gap(), 1..20u64), 0..12), gap(), 0..20u64, 1..40u64)
}

fn after<B: Subject>(limit: u64, charges: &[(u64, u64)], later: u64) -> (Run<B>, Vec<B::Charge>) {
    let mut run = Run::<B>::new(limit, WINDOW);
    let mut open = Vec::new();
    for (after, cost) in charges {
        run.now += after;
        open.push(run.take(*cost));
    }
    run.now += later;
    (run, open)
}

fn the_same_pace_again<B: Subject>(
    (limit, charges, later, cost, real): History,
) -> Result<(), TestCaseError> {
    let (mut run, open) = after::<B>(limit, &charges, later);
    let (mut same, others) = after::<B>(limit, &charges, later);
    let swap = same.swap(limit, WINDOW);
    for (charge, other) in open.into_iter().zip(others) {
        let before = format!("{other:?}");
        let carried = B::carry_charge(other, &swap);
        prop_assert_eq!(format!("{carried:?}"), before);
        run.settle(charge, real);
        same.settle(carried, real);
    }
    prop_assert_eq!(format!("{:?}", run.bucket), format!("{:?}", same.bucket));
    prop_assert_eq!(run.wait(cost), same.wait(cost));
    Ok(())
}

fn a_higher_limit<B: Subject>((limit, charges, later, cost, more): History) -> Result<(), TestCaseError> {
    let (run, _) = after::<B>(limit, &charges, later);
    let mut raised = run.clone();
    raised.swap(limit + more, WINDOW);
    prop_assert!(raised.wait(cost) <= run.wait(cost), "{} became {}", run.wait(cost), raised.wait(cost));
    for ahead in [0, 1, WINDOW / 2, WINDOW, 2 * WINDOW, 3 * WINDOW] {
        let (was, is) = (run.later(ahead), raised.later(ahead));
        let room = |run: &Run<B>| i128::from(run.limit) - i128::from(run.used());
        prop_assert!(
            room(&is) >= room(&was),
            "{} after: room for {} became {}",
            ahead,
            room(&was),
            room(&is)
        );
    }
    Ok(())
}

fn a_lower_limit<B: Subject>((limit, charges, later, _, less): History) -> Result<(), TestCaseError> {
    let (run, _) = after::<B>(limit + less, &charges, later);
    let (used, mut lowered) = (run.used(), run.clone());
    lowered.swap(limit, WINDOW);
    let owed = used.saturating_sub(limit + less);
    prop_assert!(
        lowered.used() <= used.min(limit + owed),
        "{} of {} used became {}",
        used,
        limit,
        lowered.used()
    );
    Ok(())
}

fn what_is_not_above_a_lower_limit_stays<B: Subject>(
    (limit, charges, later, cost, less): History,
) -> Result<(), TestCaseError> {
    let (run, _) = after::<B>(limit + less, &charges, later);
    if run.used() > limit {
        return Ok(());
    }
    let mut lowered = run.clone();
    lowered.swap(limit, WINDOW);
    prop_assert_eq!(lowered.used(), run.used());
    lowered.swap(limit + less, WINDOW);
    prop_assert_eq!(lowered.wait(cost), run.wait(cost));
    Ok(())
}

fn another_window<B: Subject>((limit, charges, later, _, window): History) -> Result<(), TestCaseError> {
    let (run, _) = after::<B>(limit, &charges, later);
    let mut other = run.clone();
    other.swap(limit, window * 7);
    prop_assert!(other.used() <= run.used());
    prop_assert!(other.until_full() <= (run.used() / limit + 2) * window * 7);
    Ok(())
}

for_each_window_algorithm!(the_same_pace_again_changes_nothing, histories(), the_same_pace_again);
for_each_window_algorithm!(raising_a_limit_never_lengthens_a_wait, histories(), a_higher_limit);
for_each_window_algorithm!(
    lowering_a_limit_makes_no_debt_and_carries_what_is_owed,
    histories(),
    a_lower_limit
);
for_each_window_algorithm!(
    what_is_used_within_the_lower_limit_stays_as_it_is,
    histories(),
    what_is_not_above_a_lower_limit_stays
);
for_each_window_algorithm!(another_window_carries_no_more_than_was_used, histories(), another_window);

#[test]
fn what_is_owed_is_still_owed_under_another_limit() {
    let mut run = Run::<corral_limiter::algo::fixed_window::FixedWindow>::new(10, WINDOW);
    let _stands = run.take(35);
    run.swap(5, WINDOW);
    assert_eq!(run.used(), 5 + 25);
    assert_eq!(run.wait(1), 6 * WINDOW);
}

#[test]
fn a_charge_from_before_gives_back_what_was_cut_off_first() {
    let mut run = Run::<corral_limiter::algo::sliding_window::SlidingWindow>::new(10, WINDOW);
    let (first, second) = (run.take(5), run.take(5));
    let swap = run.swap(5, WINDOW);
    let carry =
        <corral_limiter::algo::sliding_window::SlidingWindow as corral_limiter::algo::Bucket>::carry_charge;
    assert_eq!(run.used(), 5);
    run.settle(carry(second, &swap), 0);
    assert_eq!(run.used(), 5);
    run.settle(carry(first, &swap), 2);
    assert_eq!(run.used(), 2);
}
