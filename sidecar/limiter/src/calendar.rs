//! The windows of the calendar: minutes and hours of UTC, and days that begin at a time of day somewhere.
//!
//! Wall time is handed in beside monotonic time. A day begins at its reset time; where clocks skip that time, at the
//! first instant after it; where they show it twice, at the first. So days have 23 to 25 h. A date that a place skips as a
//! whole has no reset, and the day before it goes on. Time zones are those built in, not those of the machine.
//!
//! [`Calendar`] says what a wall clock means. [`Windows`] follows one that is set: a window that has begun is never
//! begun again, and numbers never decrease.

use jiff::{Timestamp, civil, tz};

use crate::{Nanos, algo::fixed_window::Span};

const SECOND: i128 = 1_000_000_000;
const MINUTE: i128 = 60 * SECOND;
const HOUR: i128 = 60 * MINUTE;
const DAY: i128 = 24 * HOUR;
const LONGEST_DAY: i128 = 25 * HOUR;
const LAST_MINUTE: u16 = 24 * 60 - 1;
/// How many dates before or after one are looked at for a reset: a date without one has neighbours that have.
const DATES_AROUND: i8 = 3;

/// How the windows of a limit lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// So many nanoseconds each, from the beginning of 1970 on.
    Even(i128),
    Day {
        reset: civil::Time,
        zone: tz::TimeZone,
    },
}

/// Why there is no such calendar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCalendar {
    /// The IANA database has no such time zone.
    #[error("{0:?} is no time zone of the IANA database, such as Europe/Kyiv")]
    TimeZone(String),
    /// Not within a day.
    #[error("a day is reset at a minute from 0 to 1439, not at {0}")]
    Minute(u16),
}

/// A window, by the wall clock: nanoseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    /// The so-manieth since 1970; of days, that of the date on which it begins.
    number: u64,
    starts: i128,
    /// When the next one starts.
    ends: i128,
}

impl Calendar {
    /// Minutes of UTC.
    pub fn minute() -> Self {
        Self(Kind::Even(MINUTE))
    }

    /// Hours of UTC.
    pub fn hour() -> Self {
        Self(Kind::Even(HOUR))
    }

    /// Days that begin `reset` minutes after midnight (0 to 1439) in a time zone of the IANA database.
    pub fn day(reset: u16, zone: &str) -> Result<Self, BadCalendar> {
        let time = civil::Time::midnight().checked_add(jiff::SignedDuration::from_mins(reset.into()));
        let reset = time.ok().filter(|_| reset <= LAST_MINUTE).ok_or(BadCalendar::Minute(reset))?;
        let known = tz::TimeZoneDatabase::bundled().get(zone);
        let zone = known.map_err(|_| BadCalendar::TimeZone(zone.to_owned()))?;
        Ok(Self(Kind::Day { reset, zone }))
    }

    /// The window at an instant, given both clocks. A wall clock that is set back leads back to an earlier window: see
    /// [`Windows`].
    pub fn span(&self, now: Nanos, unix_nanos: i128) -> Span {
        let frame = self.frame(unix_nanos);
        Span { index: frame.number, ends: frame.ends_at(now, unix_nanos), longest: self.longest() }
    }

    /// As long as any of its windows.
    pub fn longest(&self) -> Nanos {
        nanos(match self.0 {
            Kind::Even(length) => length,
            Kind::Day { .. } => LONGEST_DAY,
        })
    }

    fn frame(&self, unix: i128) -> Frame {
        match &self.0 {
            Kind::Even(length) => Frame::even(unix, *length),
            // Within a few days of the end of time there are no dates around.
            Kind::Day { reset, zone } => day(*reset, zone, unix).unwrap_or_else(|| Frame::even(unix, DAY)),
        }
    }
}

impl Frame {
    fn even(unix: i128, length: i128) -> Self {
        let number = unix.checked_div_euclid(length).unwrap_or(0);
        let starts = number.saturating_mul(length);
        Self { number: count(number), starts, ends: starts.saturating_add(length) }
    }

    fn ends_at(&self, now: Nanos, unix: i128) -> Nanos {
        now.plus(nanos(self.ends.saturating_sub(unix)))
    }
}

/// The windows as a clock that may be set goes through them.
///
/// Set forward, it is in a later window. Set back by less than two windows, it stays in the window it was in until the
/// wall clock has caught up: so a clock that goes to and fro across an edge begins one window, not many. Set back
/// further, waiting for that would be no limit but an outage: then the window that was in force ends with the first
/// whole window by the new time, after one to two windows.
#[derive(Debug, Clone)]
pub struct Windows {
    calendar: Calendar,
    frame: Option<Frame>,
    index: u64,
}

impl Windows {
    /// Before the first look at a clock.
    pub fn new(calendar: Calendar) -> Self {
        Self { calendar, frame: None, index: 0 }
    }

    /// How the windows lie.
    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// The window at an instant, given both clocks. Cheap while the wall clock stays within a window.
    pub fn span(&mut self, now: Nanos, unix_nanos: i128) -> Span {
        let frame = match self.frame {
            Some(frame) => self.follow(frame, unix_nanos),
            None => self.begin(unix_nanos),
        };
        self.frame = Some(frame);
        Span { index: self.index, ends: frame.ends_at(now, unix_nanos), longest: self.calendar.longest() }
    }

    fn begin(&mut self, unix: i128) -> Frame {
        let frame = self.calendar.frame(unix);
        self.index = frame.number;
        frame
    }

    fn follow(&mut self, frame: Frame, unix: i128) -> Frame {
        let most_left = i128::from(self.calendar.longest().0).saturating_mul(2);
        if unix < frame.ends {
            let catches_up = frame.ends.saturating_sub(unix) <= most_left;
            return if catches_up { frame } else { self.calendar.frame(self.calendar.frame(unix).ends) };
        }
        let next = self.calendar.frame(unix);
        // Neighbours are one apart, also where a date between them was skipped.
        let passed =
            if next.starts == frame.ends { 1 } else { next.number.saturating_sub(frame.number).max(1) };
        self.index = self.index.saturating_add(passed);
        next
    }
}

/// The day that an instant lies in; none at the ends of time.
fn day(reset: civil::Time, zone: &tz::TimeZone, unix: i128) -> Option<Frame> {
    let date = zone.to_datetime(timestamp(unix)).date();
    let on = |days: i8| {
        let date = date.checked_add(jiff::Span::new().days(days)).ok()?;
        Some((date, reset_on(date, reset, zone)?))
    };
    // Clocks that go back across midnight show the date before again, after the reset of the next.
    let (first, starts) = (-DATES_AROUND..=1).rev().filter_map(on).find(|(_, starts)| *starts <= unix)?;
    let (_, ends) = (-DATES_AROUND..=DATES_AROUND).filter_map(on).find(|(_, ends)| *ends > unix)?;
    let number = first.since(civil::date(1970, 1, 1)).ok()?.get_days();
    Some(Frame { number: count(number.into()), starts, ends })
}

/// When the clocks of a place first show `reset` or later on a date; none on a date that they skip.
fn reset_on(date: civil::Date, reset: civil::Time, zone: &tz::TimeZone) -> Option<i128> {
    let begins = first_at(date.to_datetime(civil::Time::midnight()), zone)?;
    let exists = zone.to_datetime(begins).date() == date;
    exists.then(|| first_at(date.to_datetime(reset), zone)).flatten().map(Timestamp::as_nanosecond)
}

/// The first instant at which the clocks of a place show `time`, or skip it.
fn first_at(time: civil::DateTime, zone: &tz::TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(time).offset() {
        tz::AmbiguousOffset::Unambiguous { offset } | tz::AmbiguousOffset::Fold { before: offset, .. } => {
            offset.to_timestamp(time).ok()
        }
        tz::AmbiguousOffset::Gap { after, .. } => {
            let before_the_gap = after.to_timestamp(time).ok()?;
            zone.following(before_the_gap).next().map(|transition| transition.timestamp())
        }
    }
}

fn timestamp(unix: i128) -> Timestamp {
    let nearest = if unix < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_nanosecond(unix).unwrap_or(nearest)
}

/// Before 1970 nothing is told apart.
fn count(number: i128) -> u64 {
    u64::try_from(number.max(0)).unwrap_or(u64::MAX)
}

fn nanos(length: i128) -> Nanos {
    Nanos(u64::try_from(length.max(0)).unwrap_or(u64::MAX))
}
