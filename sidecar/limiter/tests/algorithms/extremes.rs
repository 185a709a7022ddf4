//! Numbers at the ends of their ranges: nothing overflows, and what saturates admits less.

use corral_limiter::{
    Nanos,
    algo::{
        Bucket, Swap,
        fixed_window::{self, FixedWindow, Span},
        gcra::{self, TokenBucket},
        sliding_log::{self, SlidingLog},
        sliding_window::{self, SlidingWindow},
    },
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const LONGEST: u64 = 31 * 86_400 * SECOND;

/// Any number, and those at which something could go wrong.
fn number() -> impl Strategy<Value = u64> {
    let edges = vec![
        0,
        1,
        2,
        999,
        1000,
        1_000_000_000,
        u64::from(u32::MAX),
        1 << 53,
        u64::MAX / 2,
        u64::MAX - 1,
        u64::MAX,
    ];
    prop_oneof![3 => prop::sample::select(edges), 1 => any::<u64>(), 2 => 0..20_000u64]
}

fn instant() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..LONGEST, 1 => number(), 1 => (0..1000u64).prop_map(|n| u64::MAX - n)]
}

fn window() -> impl Strategy<Value = u64> {
    prop_oneof![prop::sample::select(vec![0, 1, SECOND, 60 * SECOND, LONGEST, u64::MAX]), any::<u64>()]
}

fn token_pace() -> impl Strategy<Value = gcra::Pace> {
    (window(), number(), prop::sample::select(vec![1, 7, 1000, u32::MAX])).prop_map(
        |(interval, burst, pods)| gcra::Pace::shared(Nanos(interval), burst, pods.try_into().unwrap()),
    )
}

fn fixed_pace() -> impl Strategy<Value = fixed_window::Pace> {
    (number(), number(), number(), window()).prop_map(|(limit, index, ends, longest)| fixed_window::Pace {
        limit,
        span: Span { index, ends: Nanos(ends), longest: Nanos(longest) },
    })
}

fn sliding_pace() -> impl Strategy<Value = sliding_window::Pace> {
    (number(), window()).prop_map(|(limit, window)| sliding_window::Pace { limit, window: Nanos(window) })
}

fn log_pace() -> impl Strategy<Value = sliding_log::Pace> {
    (number(), window()).prop_map(|(limit, window)| sliding_log::Pace { limit, window: Nanos(window) })
}

/// Costs to reserve, and what they come to; with the paces in between.
type Abuse<P> = (Vec<P>, Vec<u64>, Vec<(u64, u64, u64)>, u64);

fn abuse<P: std::fmt::Debug + Clone>(pace: impl Strategy<Value = P>) -> impl Strategy<Value = Abuse<P>> {
    let costs = prop::collection::vec((number(), number(), number()), 1..6);
    (prop::collection::vec(pace, 3), prop::collection::vec(instant(), 3), costs, number())
}

/// Charges, swaps, extends, swaps, settles; looks at everything in between.
fn survives<B: Bucket>((paces, mut instants, costs, asked): Abuse<B::Pace>) -> Result<(), TestCaseError> {
    instants.sort_unstable();
    let [first, second, third] = [0, 1, 2].map(|place| Nanos(instants[place]));
    let mut bucket = B::full();
    look(&bucket, &paces[0], asked, first)?;
    let mut open: Vec<_> = costs.iter().map(|(cost, ..)| bucket.take(&paces[0], *cost, first)).collect();
    for (at, from) in [(second, 0), (third, 1)] {
        look(&bucket, &paces[from], asked, at)?;
        let swap = Swap { at, from: paces[from].clone(), to: paces[from + 1].clone() };
        bucket.carry(&swap);
        open = open.into_iter().map(|charge| B::carry_charge(charge, &swap)).collect();
        for (charge, (_, _, more)) in open.iter_mut().zip(&costs) {
            bucket.extend(&paces[from + 1], charge, *more, at);
        }
    }
    for (charge, (_, real, _)) in open.into_iter().zip(costs) {
        bucket.settle(&paces[2], charge, real, third);
        look(&bucket, &paces[2], asked, third)?;
    }
    Ok(())
}

fn look<B: Bucket>(bucket: &B, pace: &B::Pace, cost: u64, now: Nanos) -> Result<(), TestCaseError> {
    let (used, available) = (bucket.used(pace, now), bucket.available(pace, now));
    prop_assert!(available <= B::capacity(pace));
    prop_assert_eq!(bucket.is_full(pace, now), bucket.until_full(pace, now) == Nanos::ZERO);
    prop_assert!(bucket.wait(pace, cost, now) >= bucket.wait(pace, cost.min(available), now));
    // More is used than can be said.
    if used < u64::MAX {
        prop_assert_eq!(bucket.is_full(pace, now), used == 0);
        prop_assert_eq!(bucket.wait(pace, available, now) == Nanos::ZERO, used <= B::capacity(pace));
    }
    let _ = B::longest_wait(pace, cost, now);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_numbers_bring_a_token_bucket_down(abuse in abuse(token_pace())) {
        survives::<TokenBucket>(abuse)?;
    }

    #[test]
    fn no_numbers_bring_a_fixed_window_down(abuse in abuse(fixed_pace())) {
        survives::<FixedWindow>(abuse)?;
    }

    #[test]
    fn no_numbers_bring_a_sliding_window_down(abuse in abuse(sliding_pace())) {
        survives::<SlidingWindow>(abuse)?;
    }

    #[test]
    fn no_numbers_bring_a_sliding_log_down(abuse in abuse(log_pace())) {
        survives::<SlidingLog>(abuse)?;
    }
}

/// What a plan can say at most, on one of a thousand pods: a permit in 31 days, 10⁹ in a second, 10⁹ in a window, of
/// which each is 1000 permits, for a tier with a thousandfold scale.
fn token_extremes() -> impl Strategy<Value = gcra::Pace> {
    let interval = prop::sample::select(vec![1, 2, 3, 60, SECOND, LONGEST]);
    let burst = prop::sample::select(vec![1, 2, 1_000_000_000, 1_000_000_000_000_000]);
    let pods = prop::sample::select(vec![1, 3, 1000]);
    (interval, burst, pods).prop_map(|(interval, burst, pods)| {
        gcra::Pace::shared(Nanos(interval), burst, pods.try_into().unwrap())
    })
}

fn limit_and_window() -> impl Strategy<Value = (u64, u64)> {
    let limit = prop::sample::select(vec![1, 2, 3, 9999, 1_000_000_000, 1_000_000_000_000_000]);
    (limit, prop::sample::select(vec![SECOND, 60 * SECOND, LONGEST - 1, LONGEST]))
}

/// Costs about what can be: a part of the capacity, or about it, or all there is.
fn cost_of(capacity: u64, kind: u8, part: u64) -> u64 {
    match kind {
        0 => part % capacity + 1,
        1 => capacity.saturating_sub(part % 2),
        2 => capacity.saturating_add(part % 3),
        3 => capacity.saturating_mul(5),
        4 => u64::MAX,
        _ => 1,
    }
}

/// Charges (of which kind, how much, how many nanoseconds later), and what is then asked for.
type History = (Vec<(u8, u64, u64)>, u8, u64);

fn history() -> impl Strategy<Value = History> {
    let later = prop_oneof![Just(0), Just(1), 0..SECOND, 0..LONGEST];
    (prop::collection::vec((0..4u8, any::<u64>(), later), 0..5), 0..6u8, any::<u64>())
}

fn a_wait_is_exact<B: Bucket>(pace: &B::Pace, (charges, kind, part): History) -> Result<(), TestCaseError> {
    let (mut bucket, mut now, capacity) = (B::full(), Nanos(LONGEST / 3), B::capacity(pace));
    for (kind, part, later) in charges {
        now = now.plus(Nanos(later));
        let _stands = bucket.take(pace, cost_of(capacity, kind, part), now);
    }
    let cost = cost_of(capacity, kind, part);
    let wait = bucket.wait(pace, cost, now);
    if wait.0 > u64::MAX / 2 {
        return Ok(());
    }
    prop_assert_eq!(bucket.wait(pace, cost, now.plus(wait)), Nanos::ZERO);
    if wait > Nanos::ZERO {
        prop_assert_eq!(bucket.wait(pace, cost, now.plus(Nanos(wait.0 - 1))), Nanos(1));
    }
    let full = bucket.until_full(pace, now);
    prop_assert!(full.0 > u64::MAX / 2 || bucket.is_full(pace, now.plus(full)));
    Ok(())
}

/// Reserves all there is, and comes to little: what others took in between is still used.
fn a_give_back_is_exact<B: Bucket>(
    pace: &B::Pace,
    reserved: u64,
    other: u64,
    real: u64,
) -> Result<(), TestCaseError> {
    let (mut bucket, now) = (B::full(), Nanos(LONGEST));
    let charge = bucket.take(pace, reserved, now);
    let _stands = bucket.take(pace, other, now);
    bucket.settle(pace, charge, real.min(reserved), now);
    prop_assert_eq!(bucket.used(pace, now), other + real.min(reserved));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn waits_of_token_buckets_are_exact_at_the_ends_of_what_a_plan_can_say(pace in token_extremes(), history in history()) {
        a_wait_is_exact::<TokenBucket>(&pace, history)?;
    }

    #[test]
    fn waits_of_sliding_windows_are_exact_at_the_ends_of_what_a_plan_can_say(
        (limit, window) in limit_and_window(), history in history(),
    ) {
        a_wait_is_exact::<SlidingWindow>(&sliding_window::Pace { limit, window: Nanos(window) }, history)?;
    }

    #[test]
    fn waits_of_logs_are_exact_at_the_ends_of_what_a_plan_can_say((limit, window) in limit_and_window(), history in history()) {
        a_wait_is_exact::<SlidingLog>(&sliding_log::Pace { limit, window: Nanos(window) }, history)?;
    }

    #[test]
    fn give_backs_are_exact_whatever_was_reserved(
        pace in token_extremes(), (limit, window) in limit_and_window(), reserved in number(), other in 0..1_000_000u64, real in 0..1_000_000u64,
    ) {
        a_give_back_is_exact::<TokenBucket>(&pace, reserved, other, real)?;
        a_give_back_is_exact::<SlidingWindow>(&sliding_window::Pace { limit, window: Nanos(window) }, reserved, other, real)?;
        a_give_back_is_exact::<SlidingLog>(&sliding_log::Pace { limit, window: Nanos(window) }, reserved, other, real)?;
        let span = Span { index: 20_000_000_000, ends: Nanos(u64::MAX), longest: Nanos(window) };
        a_give_back_is_exact::<FixedWindow>(&fixed_window::Pace { limit, span }, reserved, other, real)?;
    }
}
