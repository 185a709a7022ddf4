//! Waits are exact: admitted after them, and refused a nanosecond earlier, if nothing else happens.

use corral_limiter::{
    Nanos,
    algo::{
        Bucket,
        fixed_window::{FixedWindow, Pace, Span},
    },
};
use proptest::prelude::*;

use crate::subject::{Run, Subject, WINDOW, for_each_algorithm, gap};

/// The limit; charges as after which time what cost is reserved and what it comes to; then a time and a cost to ask for.
type History = (u64, Vec<(u64, u64, u64)>, u64, u64);

fn histories() -> impl Strategy<Value = History> {
    let charges = prop::collection::vec((gap(), 1..20u64, 0..60u64), 0..12);
    (1..12u64, charges, gap(), 0..20u64)
}

fn after<B: Subject>(limit: u64, charges: &[(u64, u64, u64)]) -> Run<B> {
    let mut run = Run::<B>::new(limit, WINDOW);
    for (after, reserved, real) in charges {
        run.now += after;
        let charge = run.take(*reserved);
        run.settle(charge, *real);
    }
    run
}

fn a_wait_is_exact<B: Subject>((limit, charges, later, cost): History) -> Result<(), TestCaseError> {
    let run = after::<B>(limit, &charges).later(later);
    let wait = run.wait(cost);
    prop_assert!(run.later(wait).admits(cost));
    if let Some(just_before) = wait.checked_sub(1) {
        prop_assert_eq!(run.later(just_before).wait(cost), 1);
    }
    let until_full = run.until_full();
    prop_assert!(run.later(until_full).is_full());
    prop_assert!(until_full == 0 || !run.later(until_full - 1).is_full());
    Ok(())
}

fn an_exhausted_bucket_waits_no_longer_than_is_said<B: Subject>(
    (limit, charges, later, cost): History,
) -> Result<(), TestCaseError> {
    let mut run = Run::<B>::new(limit, WINDOW);
    for (after, cost, _) in charges {
        run.now += after;
        if run.admits(cost.min(limit)) {
            let _stands = run.take(cost.min(limit));
        }
    }
    let run = run.later(later);
    let longest = B::longest_wait(&run.pace(), cost, Nanos(run.now)).0;
    prop_assert!(run.wait(cost) <= longest);
    // And some bucket does wait that long: one that has just been used up, seen from a window that nobody used.
    let mut fresh = Run::<B>::new(limit, WINDOW).later(run.now);
    let _stands = fresh.take(limit);
    prop_assert_eq!(fresh.wait(cost), longest);
    Ok(())
}

fn asking_changes_nothing_and_refusing_neither<B: Subject>(
    (limit, charges, later, cost): History,
) -> Result<(), TestCaseError> {
    let run = after::<B>(limit, &charges).later(later);
    let seen = (run.wait(cost), run.used(), run.available(), run.until_full());
    prop_assert_eq!(run.admits(seen.2.min(limit)), seen.2 > 0 || run.used() <= limit);
    prop_assert!(seen.2 >= limit || !run.admits(seen.2 + 1));
    prop_assert_eq!(seen, (run.wait(cost), run.used(), run.available(), run.until_full()));
    Ok(())
}

for_each_algorithm!(
    after_a_wait_it_is_admitted_and_a_nanosecond_earlier_it_is_not,
    histories(),
    a_wait_is_exact
);
for_each_algorithm!(
    the_longest_wait_is_that_of_a_bucket_just_exhausted,
    histories(),
    an_exhausted_bucket_waits_no_longer_than_is_said
);
for_each_algorithm!(
    what_is_available_is_just_what_is_admitted,
    histories(),
    asking_changes_nothing_and_refusing_neither
);

proptest! {
    #[test]
    fn a_debt_beyond_the_next_edge_is_never_waited_for_too_short_whatever_the_windows_lengths(
        limit in 1..12u64, used in 0..100u64, cost in 1..12u64, now in 0..23u64, lengths in prop::collection::vec(23..26u64, 120),
    ) {
        let mut bucket = FixedWindow::full();
        let mut pace = Pace { limit, span: Span { index: 0, ends: Nanos(lengths[0]), longest: Nanos(25) } };
        let _stands = bucket.take(&pace, used, Nanos(now));
        let wait = bucket.wait(&pace, cost, Nanos(now)).0;
        let mut edges = 0;
        while pace.span.ends.0 <= now + wait {
            edges += 1;
            let ends = Nanos(pace.span.ends.0 + lengths[edges]);
            pace.span = Span { index: pace.span.index + 1, ends, ..pace.span };
        }
        prop_assert_eq!(bucket.wait(&pace, cost, Nanos(now + wait)), Nanos::ZERO);
        prop_assert!(wait <= lengths[0] - now + 25 * (used + cost) / limit, "{} is too long", wait);
    }
}

#[test]
fn what_ends_with_the_window_waits_for_its_end_to_the_nanosecond() {
    let mut run = Run::<FixedWindow>::new(10, WINDOW).later(7);
    let _stands = run.take(10);
    assert_eq!(run.wait(1), WINDOW - 7);
}
