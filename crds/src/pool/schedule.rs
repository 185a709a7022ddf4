//! Times of the week with bounds of their own.

use serde::{Deserialize, Serialize};

use crate::valid::text::{day_end, minute_of_day};
#[cfg(feature = "kube")]
use crate::{bounds, rules};

/// A time of the week with bounds of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::SCHEDULE_SAYS, rules::SCHEDULE_LASTS]))))]
pub struct Schedule {
    /// Its name, unique in the pool: a DNS label of at most 63 characters.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_LIMIT_NAME), extend("x-kubernetes-validations" = rules::cel(&[rules::SCHEDULE_NAME]))))]
    pub name: String,
    /// The time zone of `from`, `to` and `days` by its name in the IANA database, such as `Europe/Berlin`, at most 64 characters;
    /// default `UTC`. A zone that the database does not know is found by the operator: `Ready` is then False with reason
    /// `InvalidSpec`, and the schedule never holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_TIME_ZONE), extend("x-kubernetes-validations" = rules::cel(&[rules::TIME_ZONE]))))]
    pub time_zone: Option<String>,
    /// The days on which it begins: `Mon` to `Sun`, at most 7 of them. Empty: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_DAYS), extend("x-kubernetes-list-type" = "set")))]
    pub days: Vec<Day>,
    /// When it begins, `HH:MM`, 5 characters, from `00:00` to `23:59`.
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_TIME_OF_DAY), extend("x-kubernetes-validations" = rules::cel(&[rules::FROM]))))]
    pub from: String,
    /// When it is over, `HH:MM`, 5 characters, from `00:00` to `24:00`. Before `from`: on the next day. Equal is refused; a whole day is
    /// from `00:00` to `24:00`. Clocks that are set forward or back count as they show.
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_TIME_OF_DAY), extend("x-kubernetes-validations" = rules::cel(&[rules::TO]))))]
    pub to: String,
    /// The fewest pods meanwhile; 1 to 1000. Default: as without it. 0 is refused: a schedule says when pods are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = bounds::MAX_REPLICAS), extend("x-kubernetes-validations" = rules::cel(&[rules::POD_MEANWHILE]))))]
    pub min_replicas: Option<u32>,
    /// The most pods meanwhile; 1 to 1000. Default: as without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_REPLICAS)))]
    pub max_replicas: Option<u32>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    /// The day before.
    const fn eve(self) -> Self {
        match self {
            Self::Mon => Self::Sun,
            Self::Tue => Self::Mon,
            Self::Wed => Self::Tue,
            Self::Thu => Self::Wed,
            Self::Fri => Self::Thu,
            Self::Sat => Self::Fri,
            Self::Sun => Self::Sat,
        }
    }
}

impl Schedule {
    /// The zone in which its times are read.
    pub fn zone(&self) -> &str {
        self.time_zone.as_deref().unwrap_or("UTC")
    }

    /// Whether it holds on a day at a minute of that day (0 to 1439), as clocks in its zone show them. One that is written
    /// wrongly never does.
    pub fn holds(&self, day: Day, minute: u16) -> bool {
        let (Some(from), Some(to)) = (minute_of_day(&self.from), day_end(&self.to)) else {
            return false;
        };
        if from <= to {
            return self.begins_on(day) && (from..to).contains(&minute);
        }
        (self.begins_on(day) && minute >= from) || (self.begins_on(day.eve()) && minute < to)
    }

    fn begins_on(&self, day: Day) -> bool {
        self.days.is_empty() || self.days.contains(&day)
    }

    /// The fewest and the most pods while it alone holds, of a pool that has these without it.
    pub fn bounds(&self, (fewest, most): (u32, u32)) -> (u32, u32) {
        (self.min_replicas.unwrap_or(fewest), self.max_replicas.unwrap_or(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(days: &[Day], from: &str, to: &str) -> Schedule {
        Schedule { days: days.to_vec(), from: from.to_owned(), to: to.to_owned(), ..Schedule::default() }
    }

    fn minute(text: &str) -> u16 {
        minute_of_day(text).unwrap()
    }

    #[test]
    fn it_holds_from_its_first_minute_to_before_its_last() {
        let office = schedule(&[Day::Mon, Day::Fri], "08:00", "18:00");
        assert!(!office.holds(Day::Mon, minute("07:59")));
        assert!(office.holds(Day::Mon, minute("08:00")) && office.holds(Day::Fri, minute("17:59")));
        assert!(!office.holds(Day::Mon, minute("18:00")) && !office.holds(Day::Sun, minute("12:00")));
    }

    #[test]
    fn over_midnight_it_belongs_to_the_day_on_which_it_begins() {
        let night = schedule(&[Day::Fri], "22:00", "06:00");
        assert!(night.holds(Day::Fri, minute("22:00")) && night.holds(Day::Sat, minute("05:59")));
        assert!(!night.holds(Day::Fri, minute("05:59")) && !night.holds(Day::Sat, minute("22:00")));
        assert!(!night.holds(Day::Sat, minute("06:00")));
        assert!(schedule(&[Day::Sun], "22:00", "06:00").holds(Day::Mon, 0));
    }

    #[test]
    fn a_whole_day_is_written_to_its_midnight() {
        let weekend = schedule(&[Day::Sat, Day::Sun], "00:00", "24:00");
        assert!(weekend.holds(Day::Sat, 0) && weekend.holds(Day::Sun, 1439));
        assert!(!weekend.holds(Day::Mon, 0) && !weekend.holds(Day::Fri, 1439));
        let evening = schedule(&[Day::Sat], "18:00", "00:00");
        assert!(evening.holds(Day::Sat, 1439) && !evening.holds(Day::Sun, 0));
    }

    #[test]
    fn without_days_it_holds_on_every_day() {
        let lunch = schedule(&[], "12:00", "13:00");
        assert!([Day::Mon, Day::Wed, Day::Sun].into_iter().all(|day| lunch.holds(day, minute("12:30"))));
    }

    #[test]
    fn what_is_no_time_never_holds() {
        for (from, to) in [("8:00", "18:00"), ("08:00", "24:01"), ("24:00", "08:00"), ("08:00", "08:00")] {
            let wrong = schedule(&[], from, to);
            assert!((0..1440).all(|minute| !wrong.holds(Day::Mon, minute)), "{from} to {to}");
        }
    }
}
