//! Calendars: days of 23 to 25 hours, resets that are skipped or come twice, and clocks that are set.

use corral_limiter::{
    Nanos,
    algo::fixed_window::Span,
    calendar::{BadCalendar, Calendar, Windows},
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use proptest::prelude::*;

const SECOND: i128 = 1_000_000_000;
const MINUTE: i128 = 60 * SECOND;
const HOUR: i128 = 60 * MINUTE;

fn unix(text: &str) -> i128 {
    text.parse::<Timestamp>().unwrap().as_nanosecond()
}

/// When the window at an instant ends.
fn ends(calendar: &Calendar, at: i128) -> i128 {
    at + i128::from(calendar.span(Nanos::ZERO, at).ends.0)
}

/// The first windows that begin after an instant: when, and how many minutes long.
fn windows(calendar: &Calendar, from: &str, count: usize) -> Vec<(String, i128)> {
    let mut starts = ends(calendar, unix(from));
    let mut windows = Vec::new();
    for _ in 0..count {
        let next = ends(calendar, starts);
        windows.push((Timestamp::from_nanosecond(starts).unwrap().to_string(), (next - starts) / MINUTE));
        starts = next;
    }
    windows
}

fn days(reset: u16, zone: &str, from: &str, expected: &[(&str, i128)]) {
    let calendar = Calendar::day(reset, zone).unwrap();
    let found = windows(&calendar, from, expected.len());
    let found: Vec<_> = found.iter().map(|(starts, minutes)| (starts.as_str(), *minutes)).collect();
    assert_eq!(found, expected, "{reset} in {zone}");
}

const DAY: i128 = 24 * 60;

#[test]
fn minutes_and_hours_are_those_of_utc() {
    let at = unix("2026-11-22T10:20:30.5Z");
    assert_eq!(ends(&Calendar::minute(), at), unix("2026-11-22T10:21:00Z"));
    assert_eq!(ends(&Calendar::hour(), at), unix("2026-11-22T11:00:00Z"));
    let span = Calendar::hour().span(Nanos(5), 3 * HOUR);
    assert_eq!(
        span,
        Span { index: 3, ends: Nanos(5 + 3_600_000_000_000), longest: Nanos(3_600_000_000_000) }
    );
}

#[test]
fn days_of_kyiv_last_23_hours_in_spring_and_25_in_autumn() {
    days(
        0,
        "Europe/Kyiv",
        "2026-03-27T00:00:00Z",
        &[("2026-03-27T22:00:00Z", DAY), ("2026-03-28T22:00:00Z", DAY - 60), ("2026-03-29T21:00:00Z", DAY)],
    );
    days(
        0,
        "Europe/Kyiv",
        "2026-10-23T00:00:00Z",
        &[("2026-10-23T21:00:00Z", DAY), ("2026-10-24T21:00:00Z", DAY + 60), ("2026-10-25T22:00:00Z", DAY)],
    );
}

#[test]
fn a_reset_that_clocks_skip_is_the_first_instant_after_it() {
    // 02:30 in New York: on March 8 clocks go from 02:00 to 03:00.
    days(
        150,
        "America/New_York",
        "2026-03-06T12:00:00Z",
        &[
            ("2026-03-07T07:30:00Z", DAY - 30),
            ("2026-03-08T07:00:00Z", DAY - 30),
            ("2026-03-09T06:30:00Z", DAY),
        ],
    );
}

#[test]
fn a_reset_that_comes_twice_is_its_first() {
    // 01:30 in New York: on November 1 clocks go from 02:00 back to 01:00.
    days(
        90,
        "America/New_York",
        "2026-10-30T12:00:00Z",
        &[("2026-10-31T05:30:00Z", DAY), ("2026-11-01T05:30:00Z", DAY + 60), ("2026-11-02T06:30:00Z", DAY)],
    );
    // 02:30 comes once that day, an hour later than the day before.
    days(
        150,
        "America/New_York",
        "2026-10-30T12:00:00Z",
        &[("2026-10-31T06:30:00Z", DAY + 60), ("2026-11-01T07:30:00Z", DAY)],
    );
}

#[test]
fn lord_howe_moves_its_clocks_by_half_an_hour() {
    // April 5, 02:00 back to 01:30; October 4, 02:00 on to 02:30.
    days(
        105,
        "Australia/Lord_Howe",
        "2026-04-03T00:00:00Z",
        &[("2026-04-03T14:45:00Z", DAY), ("2026-04-04T14:45:00Z", DAY + 30), ("2026-04-05T15:15:00Z", DAY)],
    );
    days(
        135,
        "Australia/Lord_Howe",
        "2026-10-02T00:00:00Z",
        &[
            ("2026-10-02T15:45:00Z", DAY - 15),
            ("2026-10-03T15:30:00Z", DAY - 15),
            ("2026-10-04T15:15:00Z", DAY),
        ],
    );
}

#[test]
fn a_date_that_apia_skipped_has_no_reset() {
    // After December 29, 2011 came December 31.
    days(
        0,
        "Pacific/Apia",
        "2011-12-28T12:00:00Z",
        &[("2011-12-29T10:00:00Z", DAY), ("2011-12-30T10:00:00Z", DAY), ("2011-12-31T10:00:00Z", DAY)],
    );
    days(
        150,
        "Pacific/Apia",
        "2011-12-28T14:00:00Z",
        &[("2011-12-29T12:30:00Z", DAY), ("2011-12-30T12:30:00Z", DAY)],
    );
    let mut windows = Windows::new(Calendar::day(150, "Pacific/Apia").unwrap());
    let before = windows.span(Nanos::ZERO, unix("2011-12-30T01:00:00Z")).index;
    assert_eq!(windows.span(Nanos::ZERO, unix("2011-12-31T01:00:00Z")).index, before + 1);
}

#[test]
fn a_reset_can_fall_on_the_next_date() {
    // Nuuk, March 28: at 23:00, 01:00Z, clocks go on to 00:00 of the 29th.
    days(
        23 * 60 + 30,
        "America/Nuuk",
        "2026-03-27T12:00:00Z",
        &[
            ("2026-03-28T01:30:00Z", DAY - 30),
            ("2026-03-29T01:00:00Z", DAY - 30),
            ("2026-03-30T00:30:00Z", DAY),
        ],
    );
}

#[test]
fn a_day_that_has_begun_goes_on_when_clocks_show_the_date_before_again() {
    // St. John's, November 7, 2010: at 00:01 clocks go back to 23:01 of the 6th.
    let calendar = Calendar::day(0, "America/St_Johns").unwrap();
    let (reset, next) = (unix("2010-11-07T02:30:00Z"), unix("2010-11-08T03:30:00Z"));
    assert_eq!(ends(&calendar, reset - 1), reset);
    for at in [reset, reset + MINUTE, reset + 30 * MINUTE, reset + 2 * HOUR] {
        assert_eq!(ends(&calendar, at), next);
    }
}

#[test]
fn what_is_no_zone_or_no_minute_is_said() {
    let unknown = Calendar::day(0, "Europe/Atlantis").unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "\"Europe/Atlantis\" is no time zone of the IANA database, such as Europe/Kyiv"
    );
    assert_eq!(Calendar::day(1440, "UTC"), Err(BadCalendar::Minute(1440)));
    assert!(Calendar::day(1439, "UTC").is_ok());
}

/// The resets of a year or so, in steps of five minutes: the first at which clocks show the reset or later, of each date that
/// clocks show at all.
fn naive_resets(reset: i128, zone: &TimeZone, from: i128, until: i128) -> Vec<i128> {
    let local = |at: i128| zone.to_datetime(Timestamp::from_nanosecond(at).unwrap());
    let since_1970 = |time: DateTime| {
        i128::from(time.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0)).as_secs()) * SECOND
    };
    let (mut latest, mut resets) = (i128::MIN, Vec::new());
    let mut at = from;
    while at < until {
        let shown = local(at);
        let passed = since_1970(shown) - reset * MINUTE;
        let day = passed.div_euclid(24 * HOUR);
        if day > latest {
            // A date that was never shown has no reset: if this is far beyond the reset, the one due was skipped whole.
            if passed.rem_euclid(24 * HOUR) < 2 * HOUR {
                resets.push(at);
                latest = day;
            }
        }
        at += 5 * MINUTE;
    }
    resets
}

#[test]
fn every_day_of_a_year_lies_in_the_window_that_a_scan_finds() {
    for (zone, reset, from) in [
        ("Europe/Kyiv", 0, "2026-01-01T00:00:00Z"),
        ("Europe/Kyiv", 200, "2026-01-01T00:00:00Z"),
        ("America/New_York", 150, "2025-06-01T00:00:00Z"),
        ("America/New_York", 90, "2025-06-01T00:00:00Z"),
        ("Australia/Lord_Howe", 105, "2026-01-01T00:00:00Z"),
        ("Pacific/Apia", 0, "2011-01-01T00:00:00Z"),
        ("Pacific/Apia", 150, "2011-01-01T00:00:00Z"),
        ("America/Nuuk", 1410, "2025-01-01T00:00:00Z"),
        ("Asia/Kathmandu", 720, "2026-01-01T00:00:00Z"),
    ] {
        let known = TimeZone::get(zone).unwrap();
        let calendar = Calendar::day(reset, zone).unwrap();
        let (from, until) = (unix(from), unix(from) + 400 * 24 * HOUR);
        let resets = naive_resets(i128::from(reset), &known, from, until);
        for (place, pair) in resets.windows(2).enumerate().skip(1) {
            for at in [pair[0], pair[0] + 1, i128::midpoint(pair[0], pair[1]), pair[1] - 1] {
                assert_eq!(ends(&calendar, at), pair[1], "{zone} {reset}, window {place}");
            }
            let length = (pair[1] - pair[0]) / MINUTE;
            assert!((23 * 60..=25 * 60).contains(&length), "{zone} {reset}: {length}");
        }
    }
}

#[test]
fn a_clock_that_goes_to_and_fro_across_an_edge_begins_one_window() {
    let mut windows = Windows::new(Calendar::hour());
    let edge = 100 * HOUR;
    let first = windows.span(Nanos(0), edge - 1).index;
    for step in 0..50 {
        let at = if step % 2 == 0 { edge } else { edge - 5 * MINUTE };
        let span = windows.span(Nanos(step), at);
        assert_eq!(span.index, first + 1);
        assert_eq!(i128::from(span.ends.0 - step), edge + HOUR - at);
    }
}

#[test]
fn a_clock_that_was_set_back_by_a_year_does_not_stop_for_a_year() {
    let mut windows = Windows::new(Calendar::day(0, "Europe/Kyiv").unwrap());
    let ahead = windows.span(Nanos(0), unix("2027-11-22T10:00:00Z")).index;
    let back = unix("2026-11-22T10:00:00Z");
    let span = windows.span(Nanos(1), back);
    // To the end of the next whole day, in Kyiv at 22:00Z.
    assert_eq!((span.index, i128::from(span.ends.0) - 1), (ahead, 36 * HOUR));
    assert_eq!(windows.span(Nanos(2), back + 36 * HOUR - 1).index, ahead);
    assert_eq!(windows.span(Nanos(3), back + 36 * HOUR).index, ahead + 1);
    assert_eq!(windows.span(Nanos(4), back + 60 * HOUR).index, ahead + 2);
}

#[test]
fn windows_that_nobody_looked_at_are_counted() {
    let mut windows = Windows::new(Calendar::minute());
    let first = windows.span(Nanos(0), 0).index;
    assert_eq!(windows.span(Nanos(0), 10 * MINUTE).index, first + 10);
}

fn calendars() -> impl Strategy<Value = Calendar> {
    let zone = prop::sample::select(vec![
        "Europe/Kyiv",
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "UTC",
    ]);
    let day = (0..1440u16, zone).prop_map(|(reset, zone)| Calendar::day(reset, zone).unwrap());
    prop_oneof![Just(Calendar::minute()), Just(Calendar::hour()), day]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn however_the_clock_is_set_numbers_never_decrease_and_waits_are_bounded(
        calendar in calendars(), begin in 0..4_000_000_000i128,
        steps in prop::collection::vec((0..100_000u64, prop_oneof![3 => Just(0), 2 => -4000..4000i128, 1 => -100_000_000..100_000_000i128]), 1..60),
    ) {
        let longest = calendar.longest().0;
        let mut windows = Windows::new(calendar);
        let (mut now, mut wall) = (Nanos::ZERO, begin * SECOND);
        let mut last = windows.span(now, wall).index;
        for (after, set_by) in steps {
            now = now.plus(Nanos::from_secs(after));
            wall += (i128::from(after) + set_by) * SECOND;
            let span = windows.span(now, wall);
            prop_assert!(span.index >= last);
            prop_assert!(span.ends > now);
            prop_assert!(span.ends.since(now).0 <= 2 * longest);
            prop_assert_eq!(span.longest.0, longest);
            last = span.index;
        }
    }

    #[test]
    fn a_clock_that_runs_sees_windows_meet_and_last_no_longer_than_is_said(
        calendar in calendars(), begin in 0..4_000_000_000i128, steps in prop::collection::vec(1..100_000_000_000_000u64, 1..40),
    ) {
        let mut windows = Windows::new(calendar.clone());
        let (mut now, mut wall) = (Nanos::ZERO, begin * SECOND);
        for after in steps {
            let span = windows.span(now, wall);
            let left = i128::from(span.ends.since(now).0);
            prop_assert_eq!(span.ends, calendar.span(now, wall).ends);
            prop_assert_eq!(windows.span(Nanos(span.ends.0 - 1), wall + left - 1), span);
            let next = windows.span(span.ends, wall + left);
            prop_assert_eq!(next.index, span.index + 1);
            prop_assert!(next.ends.since(span.ends) <= next.longest);
            (now, wall) = (span.ends.plus(Nanos(after)), wall + left + i128::from(after));
        }
    }

    #[test]
    fn no_wall_clock_brings_it_down(calendar in calendars(), now in any::<u64>(), wall in any::<i128>()) {
        let span = calendar.span(Nanos(now), wall);
        prop_assert!(span.ends >= Nanos(now));
        let mut windows = Windows::new(calendar);
        windows.span(Nanos(now), wall);
        prop_assert!(windows.span(Nanos(now), wall.wrapping_neg()).ends >= Nanos(now));
    }
}
