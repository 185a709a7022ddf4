//! Rates as people write them: `60/m`.
//!
//! A rate is a count and a window. It is enforced as a bucket that refills steadily, never as a calendar window: `60/m`
//! holds a burst of 10 by default, so it lets ten requests through at one instant, refuses the eleventh, and then admits
//! one each second. Whatever window of length `t` one looks at, it holds at most burst + rate × `t`: at most 70 in any
//! minute for `60/m`. `1/s` and `60/m` are the same pace with different bursts (1 and 10), and so are `3600/h` (600):
//! whoever wants a pace without bursts writes `burst: { requests: 1 }`.

use std::{fmt, str::FromStr};

use corral_wire::RateDoc;

const MILLI: u64 = 1000;
/// Seconds of a minute.
pub const MINUTE: u64 = 60;
/// Seconds of an hour.
pub const HOUR: u64 = 60 * MINUTE;
/// Seconds of a day.
pub const DAY: u64 = 24 * HOUR;
/// The longest window, in seconds.
pub const MAX_WINDOW_SECONDS: u64 = 31 * DAY;
/// The fastest rate, per second.
pub const MAX_PER_SECOND: u64 = 1_000_000_000;
/// The share of a count that may come at once by default: a sixth.
const BURST_SHARE: u64 = 6;

/// How much may pass in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// The count, in thousandths; at least 1000.
    count_milli: u64,
    /// The window, in seconds; 1 to [`MAX_WINDOW_SECONDS`].
    window_seconds: u64,
}

/// Why a text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRate {
    /// It is not of the form.
    #[error("{}", crate::rules::RATE.message)]
    Grammar,
    /// Its window is too long.
    #[error("the window is longer than 31 days")]
    WindowTooLong,
    /// It is too fast to be told from no limit.
    #[error("the rate is above 1,000,000,000 per second")]
    TooFast,
}

impl Rate {
    /// The count, in thousandths.
    pub fn count_milli(self) -> u64 {
        self.count_milli
    }

    /// The window, in seconds.
    pub fn window_seconds(self) -> u64 {
        self.window_seconds
    }

    /// A sixth of the count as written, rounded up: how many requests may come at one instant when the policy does not say.
    pub fn sixth(self) -> u64 {
        self.count_milli.div_ceil(BURST_SHARE * MILLI)
    }

    /// The count as written, rounded up: how much of another unit may come at one instant when the policy does not say.
    pub fn whole(self) -> u64 {
        self.count_milli.div_ceil(MILLI)
    }

    /// With its burst, as a plan carries it.
    pub fn with_burst(self, burst: u64) -> RateDoc {
        RateDoc { count_milli: self.count_milli, window_seconds: self.window_seconds, burst }
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let (count, window) = text.split_once('/').ok_or(BadRate::Grammar)?;
        let count_milli = count_milli(count).ok_or(BadRate::Grammar)?;
        let window_seconds = window_seconds(window).ok_or(BadRate::Grammar)?;
        if window_seconds > MAX_WINDOW_SECONDS {
            return Err(BadRate::WindowTooLong);
        }
        if count_milli > u128::from(MAX_PER_SECOND) * u128::from(MILLI) * u128::from(window_seconds) {
            return Err(BadRate::TooFast);
        }
        let count_milli = u64::try_from(count_milli).map_err(|_| BadRate::TooFast)?;
        Ok(Self { count_milli, window_seconds })
    }
}

/// `[1-9][0-9]{0,8}(.[0-9]{1,3})?[kMG]?` in thousandths.
fn count_milli(text: &str) -> Option<u128> {
    let (number, factor) = match text.char_indices().next_back()? {
        (end, 'k') => (text.get(..end)?, 1_000),
        (end, 'M') => (text.get(..end)?, 1_000_000),
        (end, 'G') => (text.get(..end)?, 1_000_000_000),
        _ => (text, 1),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !(1..=3).contains(&fraction.len()) {
        return None;
    }
    let padded = format!("{fraction:0<3}");
    Some((u128::from(count(whole, 9)?) * u128::from(MILLI) + u128::from(digits(&padded)?)) * factor)
}

/// `([1-9][0-9]{0,4})?(s|m|h|d)` in seconds.
fn window_seconds(text: &str) -> Option<u64> {
    let (end, unit) = text.char_indices().next_back()?;
    let unit = match unit {
        's' => 1,
        'm' => MINUTE,
        'h' => HOUR,
        'd' => DAY,
        _ => return None,
    };
    match text.get(..end)? {
        "" => Some(unit),
        many => Some(count(many, 5)? * unit),
    }
}

/// A whole number without a leading zero, of at most `longest` digits.
fn count(text: &str, longest: usize) -> Option<u64> {
    (!text.starts_with('0') && text.len() <= longest).then(|| digits(text))?
}

/// Digits alone: `parse` would take a sign.
fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// As short as it can be written; reading it back gives the same rate.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffixes = [(1, ""), (1_000, "k"), (1_000_000, "M"), (1_000_000_000, "G")];
        let counts = suffixes.into_iter().filter_map(|(factor, suffix)| self.count_in(factor, suffix));
        let count = counts.min_by_key(String::len).unwrap_or_default();
        let (unit, name) = [(DAY, "d"), (HOUR, "h"), (MINUTE, "m")]
            .into_iter()
            .find(|(unit, _)| self.window_seconds.is_multiple_of(*unit))
            .unwrap_or((1, "s"));
        match self.window_seconds / unit {
            1 => write!(f, "{count}/{name}"),
            many => write!(f, "{count}/{many}{name}"),
        }
    }
}

impl Rate {
    /// The count in thousands, millions and so on, where the grammar can say it so.
    fn count_in(self, factor: u64, suffix: &str) -> Option<String> {
        let (whole, fraction) = (self.count_milli / factor / MILLI, self.count_milli / factor % MILLI);
        let sayable = self.count_milli.is_multiple_of(factor) && (1..1_000_000_000).contains(&whole);
        sayable.then(|| match fraction {
            0 => format!("{whole}{suffix}"),
            _ => format!("{whole}.{}{suffix}", format!("{fraction:03}").trim_end_matches('0')),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;
    use crate::rules;

    static GRAMMAR: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(rules::RATE.cel.split('\'').nth(1).unwrap()).unwrap());

    fn rate(text: &str) -> Result<Rate, BadRate> {
        text.parse()
    }

    #[test]
    fn rates_are_read_as_they_are_written() {
        let read = |text| rate(text).map(|r| (r.count_milli, r.window_seconds, r.sixth()));
        assert_eq!(read("60/m"), Ok((60_000, 60, 10)));
        assert_eq!(read("1/s"), Ok((1_000, 1, 1)));
        assert_eq!(read("3600/h"), Ok((3_600_000, 3600, 600)));
        assert_eq!(read("1.5/s"), Ok((1_500, 1, 1)));
        assert_eq!(read("2.25k/6h"), Ok((2_250_000, 21_600, 375)));
        assert_eq!(read("100/15m"), Ok((100_000, 900, 17)));
        assert_eq!(read("1M/d"), Ok((1_000_000_000, 86_400, 166_667)));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        let bad = [
            "",
            "/",
            "60",
            "60/",
            "/m",
            "0/m",
            "06/m",
            "-1/m",
            "+1/m",
            "6e1/m",
            "60/x",
            "60/ms",
            "60/0m",
            "60/01m",
            "60 /m",
            " 60/m",
            "60/m ",
            "60/M",
            "60K/m",
            "1./m",
            "1.0000/m",
            ".5/m",
            "1.5.5/m",
            "60/m/m",
            "1234567890/m",
            "1/123456s",
            "1k5/m",
            "６0/m",
            "60/é",
        ];
        for text in bad {
            assert_eq!(rate(text), Err(BadRate::Grammar), "{text:?}");
        }
    }

    #[test]
    fn windows_end_at_31_days_and_rates_at_a_billion_a_second() {
        assert!(rate("1/31d").is_ok() && rate("1G/s").is_ok());
        assert_eq!(rate("1/32d"), Err(BadRate::WindowTooLong));
        assert_eq!(rate("1.001G/s"), Err(BadRate::TooFast));
        assert_eq!(rate("999999999.999G/s"), Err(BadRate::TooFast));
    }

    #[test]
    fn a_rate_prints_as_short_as_it_can_be_written() {
        for text in ["60/m", "1.5/s", "2k/6h", "100/15m", "1M/d", "7/90s", "1.005/s", "1500/m"] {
            assert_eq!(rate(text).unwrap().to_string(), text);
        }
        assert_eq!(rate("60000/60s").unwrap().to_string(), "60k/m");
    }

    proptest! {
        #[test]
        fn printing_and_reading_give_the_same_rate(count in 1u32..1_000_000_000, fraction in 0u32..1000, suffix in "[kM]?", window in 1u32..44_640, unit in "[sm]") {
            let text = format!("{count}.{fraction:03}{suffix}/{window}{unit}");
            if let Ok(read) = rate(&text) {
                prop_assert_eq!(rate(&read.to_string()), Ok(read));
            }
        }

        #[test]
        fn the_grammar_is_that_of_the_schema(text in "[0-9.kMG/smhd+-]{0,12}") {
            prop_assert_eq!(rate(&text) != Err(BadRate::Grammar), GRAMMAR.is_match(&text));
        }
    }
}
