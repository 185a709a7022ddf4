//! Fixed windows by real calendars, with clocks that are set and plans that change: what a bucket holds is what a plain
//! count of windows says.

use corral_limiter::{
    Nanos,
    algo::{
        Bucket, Swap,
        fixed_window::{FixedWindow, Pace},
    },
    calendar::{Calendar, Windows},
};
use proptest::prelude::*;

const SECOND: i128 = 1_000_000_000;

#[derive(Debug, Clone)]
enum Act {
    /// Asks, and takes if it is admitted.
    Ask(u64),
    Take(u64),
    Swap(u64),
    /// Other windows: those of the other calendar.
    Turn,
    /// Sets the wall clock by so many seconds.
    SetClock(i128),
}

fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
    let act = prop_oneof![
        8 => (1..12u64).prop_map(Act::Ask),
        2 => (1..40u64).prop_map(Act::Take),
        2 => (1..15u64).prop_map(Act::Swap),
        1 => Just(Act::Turn),
        1 => prop_oneof![-7200..7200i128, -40_000_000..40_000_000i128].prop_map(Act::SetClock),
    ];
    let gap = prop_oneof![4 => Just(0), 2 => 1..7200u64, 2 => 20_000..100_000u64, 1 => 0..1_000_000u64];
    prop::collection::vec((gap, act), 1..80)
}

fn calendars() -> impl Strategy<Value = Calendar> {
    let zone =
        prop::sample::select(vec!["Europe/Kyiv", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]);
    let day = (0..1440u16, zone).prop_map(|(reset, zone)| Calendar::day(reset, zone).unwrap());
    prop_oneof![1 => Just(Calendar::hour()), 3 => day]
}

/// A bucket whose windows the clock brings, and a plain count beside it.
struct Day {
    bucket: FixedWindow,
    pace: Pace,
    windows: [Windows; 2],
    now: Nanos,
    wall: i128,
    /// What the window holds by a plain count, and what of it came in it and since the last swap.
    counted: u64,
    came: u64,
}

impl Day {
    fn new(limit: u64, calendars: [Calendar; 2], wall: i128) -> Self {
        let mut windows = calendars.map(Windows::new);
        let span = windows[0].span(Nanos::ZERO, wall);
        let pace = Pace { limit, span };
        Self { bucket: FixedWindow::full(), pace, windows, now: Nanos::ZERO, wall, counted: 0, came: 0 }
    }

    fn roll(&mut self) {
        let span = self.windows[0].span(self.now, self.wall);
        for _ in 0..span.index - self.pace.span.index {
            if self.counted == 0 {
                break;
            }
            self.counted = self.counted.saturating_sub(self.pace.limit);
        }
        self.came = if span.index == self.pace.span.index { self.came } else { 0 };
        self.pace.span = span;
    }

    fn swap(&mut self, to: Pace) {
        let limit = self.pace.limit;
        self.counted = self.counted.min(to.limit + self.counted.saturating_sub(limit));
        self.bucket.carry(&Swap { at: self.now, from: self.pace, to });
        (self.pace, self.came) = (to, 0);
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Ask(cost) if self.bucket.wait(&self.pace, *cost, self.now) > Nanos::ZERO => {}
            Act::Ask(cost) | Act::Take(cost) => {
                let _stands = self.bucket.take(&self.pace, *cost, self.now);
                self.counted += cost;
                let forced = matches!(act, Act::Take(_));
                self.came += if forced { 0 } else { *cost.min(&self.pace.limit) };
            }
            Act::Swap(limit) => self.swap(Pace { limit: *limit, ..self.pace }),
            Act::Turn => {
                self.windows.swap(0, 1);
                let span = self.windows[0].span(self.now, self.wall);
                self.swap(Pace { span, ..self.pace });
            }
            Act::SetClock(by) => {
                self.wall += by * SECOND;
                self.roll();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_bucket_holds_what_a_count_of_windows_holds_whatever_plans_and_clocks_do(
        limit in 1..15u64, calendars in (calendars(), calendars()), begin in 1_000_000_000..2_000_000_000i128, acts in acts(),
    ) {
        let mut day = Day::new(limit, [calendars.0, calendars.1], begin * SECOND);
        for (after, act) in acts {
            day.now = day.now.plus(Nanos::from_secs(after));
            day.wall += i128::from(after) * SECOND;
            day.roll();
            day.act(&act);
            prop_assert_eq!(day.bucket.used(&day.pace, day.now), day.counted);
            prop_assert!(day.came <= day.pace.limit, "{} of {} in a window", day.came, day.pace.limit);
        }
    }

    #[test]
    fn a_wait_that_ends_with_the_window_is_exact_and_none_is_too_short_while_the_clock_runs(
        limit in 1..15u64, calendar in calendars(), begin in 1_000_000_000..2_000_000_000i128,
        used in 0..60u64, cost in 1..20u64, into in 0..100_000u64,
    ) {
        let mut day = Day::new(limit, [calendar.clone(), calendar], begin * SECOND);
        let at = |day: &mut Day, now: Nanos| {
            day.wall += i128::from(now.0) - i128::from(day.now.0);
            day.now = now;
            day.roll();
        };
        at(&mut day, Nanos::from_secs(into));
        let _stands = day.bucket.take(&day.pace, used, day.now);
        let wait = day.bucket.wait(&day.pace, cost, day.now);
        let (ends, edges) = (day.pace.span.ends, used.saturating_sub(limit.saturating_sub(cost)).div_ceil(limit));
        if edges == 1 {
            prop_assert_eq!(day.now.plus(wait), ends);
            at(&mut day, Nanos(ends.0 - 1));
            prop_assert_eq!(day.bucket.wait(&day.pace, cost, day.now), Nanos(1));
            at(&mut day, ends);
        } else {
            let until = day.now.plus(wait);
            at(&mut day, until);
        }
        prop_assert_eq!(day.bucket.wait(&day.pace, cost, day.now), Nanos::ZERO);
    }

    #[test]
    fn across_plan_swaps_a_give_back_never_credits_a_later_day(
        limits in prop::collection::vec(1..15u64, 1..6), calendar in calendars(), begin in 1_000_000_000..2_000_000_000i128,
        cost in 1..15u64, later in 0..15u64, days in 1..4u64,
    ) {
        let mut day = Day::new(15, [calendar.clone(), calendar], begin * SECOND);
        let mut charge = day.bucket.take(&day.pace, cost, day.now);
        for limit in limits {
            let (from, to) = (day.pace, Pace { limit, ..day.pace });
            day.swap(to);
            charge = FixedWindow::carry_charge(charge, &Swap { at: day.now, from, to });
        }
        for _ in 0..days {
            day.wall += i128::from(day.pace.span.ends.since(day.now).0);
            day.now = day.pace.span.ends;
            day.roll();
        }
        let _stands = day.bucket.take(&day.pace, later, day.now);
        let before = day.bucket.used(&day.pace, day.now);
        day.bucket.settle(&day.pace, charge, 0, day.now);
        prop_assert_eq!(day.bucket.used(&day.pace, day.now), before);
    }
}
