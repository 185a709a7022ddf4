//! Grammars of short texts, written out so that the plain build needs no regular expressions.

/// `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
pub(super) fn is_label(text: &str) -> bool {
    let ends = |edge: Option<char>| edge.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// `^[-A-Za-z0-9_.]{1,63}$`
pub(super) fn is_client_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// `^[a-z0-9][-a-z0-9_]{0,63}$`
pub(super) fn is_header_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.bytes().next().is_some_and(plain)
        && text.len() <= 64
        && text.bytes().all(|byte| plain(byte) || matches!(byte, b'-' | b'_'))
}

/// The names of [`crate::rules::HEADER_NO_CREDENTIAL`].
pub(super) fn is_credential(name: &str) -> bool {
    ["authorization", "cookie", "proxy-authorization", "x-api-key"].contains(&name)
}

/// A path as [`crate::rules::REQUEST_PATH`] has it.
pub(super) fn is_request_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'%'))
}

/// The grammar of [`crate::rules::KEY_PART`].
pub(super) fn is_key_part(text: &str) -> bool {
    match text.strip_prefix("Header:") {
        Some(name) => is_header_name(name),
        None => ["Client", "ApiKey", "ClientIP", "Tier", "Model", "Endpoint", "Global"].contains(&text),
    }
}

/// The minute of a day that begins at `HH:MM`.
pub(crate) fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |part: &str| (part.len() == 2 && is_digits(part)).then(|| part.parse::<u16>().ok())?;
    let (hour, minute) = (number(hour)?, number(minute)?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

/// The minute of a day that ends at `HH:MM`; `24:00` is the midnight at its end.
pub(crate) fn day_end(text: &str) -> Option<u16> {
    if text == "24:00" { Some(24 * 60) } else { minute_of_day(text) }
}

/// The grammar of [`crate::rules::TIME_ZONE`].
pub(super) fn is_time_zone(text: &str) -> bool {
    let mark = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'_');
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.split('/').all(|part| !part.is_empty() && part.bytes().all(mark))
}

/// A label that begins with a letter: what a Service can be called.
pub(super) fn is_service_name(text: &str) -> bool {
    is_label(text) && text.starts_with(|first: char| first.is_ascii_lowercase())
}

/// `^[A-Za-z_][A-Za-z0-9_]*$`
pub(super) fn is_variable(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// [`crate::patterns::QUALIFIED_NAME`]
pub(super) fn is_qualified_name(text: &str) -> bool {
    let Some((prefix, name)) = text.split_once('/') else {
        return false;
    };
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let any = |c: char| c.is_ascii_alphanumeric();
    framed(prefix, lower, "-.") && framed(name, any, "-_.")
}

/// Begins and ends with an `edge`, and holds edges and marks.
fn framed(text: &str, edge: impl Fn(char) -> bool, marks: &str) -> bool {
    text.starts_with(&edge)
        && text.chars().next_back().is_some_and(&edge)
        && text.chars().all(|c| edge(c) || marks.contains(c))
}

/// [`crate::patterns::QUANTITY`]
pub(super) fn is_quantity(text: &str) -> bool {
    let number = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let Some((number, suffix)) = text.split_at_checked(number) else {
        return false;
    };
    is_decimal(number) && is_suffix(suffix)
}

fn is_decimal(number: &str) -> bool {
    match number.split_once('.') {
        None => (1..=12).contains(&number.len()),
        Some(("", fraction)) => (1..=9).contains(&fraction.len()) && !fraction.contains('.'),
        Some((whole, fraction)) => whole.len() <= 12 && fraction.len() <= 9 && !fraction.contains('.'),
    }
}

fn is_suffix(suffix: &str) -> bool {
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        let written = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        return written || suffix == "E" || suffix == "Ei";
    }
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi"].contains(&suffix)
}

/// A duration as Go reads it, `-1` or `0`: the grammar of [`crate::rules::KEEP_ALIVE`].
pub(super) fn is_keep_alive(text: &str) -> bool {
    if text == "-1" || text == "0" {
        return true;
    }
    let mut rest = text;
    for _ in 0..4 {
        match after_part(rest) {
            Some("") => return true,
            Some(more) => rest = more,
            None => return false,
        }
    }
    false
}

/// What follows one number with its unit.
fn after_part(text: &str) -> Option<&str> {
    let (whole, rest) = take_digits(text);
    if !(1..=9).contains(&whole) {
        return None;
    }
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let (digits, rest) = take_digits(fraction);
            (1..=3).contains(&digits).then_some(rest)?
        }
        None => rest,
    };
    ["ms", "s", "m", "h"].into_iter().find_map(|unit| rest.strip_prefix(unit))
}

fn take_digits(text: &str) -> (usize, &str) {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    (text.len() - rest.len(), rest)
}

/// [`crate::patterns::PERCENT`]
pub(super) fn is_percent(text: &str) -> bool {
    let Some(number) = text.strip_suffix('%') else {
        return false;
    };
    number == "100" || (number.len() <= 2 && is_digits(number))
}

/// A whole number with at most 18 digits.
pub(super) fn is_whole_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.len() <= 18 && is_digits(digits)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;
    use crate::{
        patterns,
        rules::{self, Rule},
    };

    static QUANTITY: LazyLock<Regex> = LazyLock::new(|| Regex::new(patterns::QUANTITY).unwrap());
    static QUALIFIED_NAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(patterns::QUALIFIED_NAME).unwrap());
    static PERCENT: LazyLock<Regex> = LazyLock::new(|| Regex::new(patterns::PERCENT).unwrap());
    static LIMIT_NAME: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::LIMIT_NAME));
    static POOL_NAME: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::POOL_NAME));
    static ENV_NAME: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::ENV_NAME));
    static VALUES: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::REQUIREMENT_VALUES));
    static CLIENT_NAME: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::CLIENT_NAME));
    static HEADER_NAME: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::HEADER_NAME));
    static KEY_PART: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::KEY_PART));
    static TIME_OF_DAY: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::TIME_OF_DAY));
    static TIME_ZONE: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::TIME_ZONE));
    static FROM: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::FROM));
    static TO: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::TO));
    static SCHEDULE_NAME: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::SCHEDULE_NAME));
    static REQUEST_PATH: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::REQUEST_PATH));
    static LOG: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::LOG_BOUND));
    static WINDOW: LazyLock<Regex> = LazyLock::new(|| {
        let quoted = rules::WINDOW_BY_THE_CLOCK[0].cel.split('\'').find(|part| part.starts_with('/'));
        Regex::new(quoted.unwrap()).unwrap()
    });
    static KEEP_ALIVE: LazyLock<Regex> = LazyLock::new(|| quoted(&rules::KEEP_ALIVE));

    /// The pattern that a rule quotes.
    fn quoted(rule: &Rule) -> Regex {
        Regex::new(rule.cel.split('\'').find(|part| part.starts_with('^')).unwrap()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn quantities_are_those_of_the_schema(text in "[0-9.]{0,4}[numkKMGTPEei+.0-9-]{0,3}") {
            prop_assert_eq!(is_quantity(&text), QUANTITY.is_match(&text), "{}", text);
        }

        #[test]
        fn qualified_names_are_those_of_the_schema(text in "[aA0./_-]{0,5}/?[aA0._-]{0,4}") {
            prop_assert_eq!(is_qualified_name(&text), QUALIFIED_NAME.is_match(&text), "{}", text);
        }

        #[test]
        fn names_and_numbers_are_those_of_the_rules(text in "[a-zA-Z_]?[0-9a-z.%-]{0,6}") {
            prop_assert_eq!(is_label(&text), LIMIT_NAME.is_match(&text), "{}", text);
            prop_assert_eq!(is_label(&text), SCHEDULE_NAME.is_match(&text), "{}", text);
            prop_assert_eq!(is_service_name(&text), POOL_NAME.is_match(&text), "{}", text);
            prop_assert_eq!(is_variable(&text), ENV_NAME.is_match(&text), "{}", text);
            prop_assert_eq!(is_percent(&text), PERCENT.is_match(&text), "{}", text);
            prop_assert_eq!(is_whole_number(&text), VALUES.is_match(&text), "{}", text);
        }

        #[test]
        fn names_of_clients_headers_and_parts_are_those_of_the_rules(text in "(Header:|Client|Tier)?[a-zA-Z0-9]?[a-zA-Z0-9._-]{0,66}") {
            prop_assert_eq!(is_client_name(&text), CLIENT_NAME.is_match(&text), "{}", text);
            prop_assert_eq!(is_header_name(&text), HEADER_NAME.is_match(&text), "{}", text);
            prop_assert_eq!(is_key_part(&text), KEY_PART.is_match(&text), "{}", text);
        }

        #[test]
        fn times_and_zones_are_those_of_the_rules(time in "[0-3]?[0-9]?:[0-6]?[0-9]", zone in "[A-Za-z+]?[a-zA-Z_+-]{0,4}/?[a-z0-9/-]{0,4}") {
            prop_assert_eq!(minute_of_day(&time).is_some(), TIME_OF_DAY.is_match(&time), "{}", time);
            prop_assert_eq!(minute_of_day(&time).is_some(), FROM.is_match(&time), "{}", time);
            prop_assert_eq!(day_end(&time).is_some(), TO.is_match(&time), "{}", time);
            prop_assert_eq!(is_time_zone(&zone), TIME_ZONE.is_match(&zone), "{}", zone);
        }

        #[test]
        fn ends_of_days_are_those_of_the_rule(time in "2[34]:[05][0-9]") {
            prop_assert_eq!(day_end(&time).is_some(), TO.is_match(&time), "{}", time);
        }

        #[test]
        fn paths_are_those_of_the_rule(text in "/?[a-z%? é~!/]{0,8}") {
            let plain = !text.contains('?') && !text.contains('%');
            prop_assert_eq!(is_request_path(&text), plain && REQUEST_PATH.is_match(&text), "{}", text);
        }

        #[test]
        fn windows_and_logs_are_those_of_the_rules(count in "[1-9][0-9]{0,4}([.][0-9]{1,3})?[kM]?", window in "[1-9]?[0-9]{0,4}[smhd]") {
            use crate::units::{DAY, HOUR, MINUTE, Rate};
            let text = format!("{count}/{window}");
            let Ok(rate) = text.parse::<Rate>() else { return Ok(()) };
            let by_the_clock = matches!(rate.window_seconds(), MINUTE | HOUR | DAY);
            prop_assert_eq!(by_the_clock, WINDOW.is_match(&text), "{}", text);
            prop_assert_eq!(rate.count_milli() <= 10_000_000, LOG.is_match(&text), "{}", text);
        }

        #[test]
        fn durations_are_those_of_the_rule(text in "-?[0-9]{0,2}([0-9]{1,2}[.]?[0-9]{0,4}(ms|s|m|h|us)){0,5}") {
            prop_assert_eq!(is_keep_alive(&text), KEEP_ALIVE.is_match(&text), "{}", text);
        }
    }
}
