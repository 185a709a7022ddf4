//! How long a client waits for its answer, by its own word: the timeouts that clients and SDKs send with a request.
//!
//! | header | unit | sent by |
//! | --- | --- | --- |
//! | `x-request-timeout-ms` | milliseconds | whoever wants to |
//! | `x-stainless-read-timeout` | seconds, with or without a fraction | SDKs for Python |
//! | `x-stainless-timeout` | seconds | other SDKs |
//!
//! The first that makes sense counts. It can only shorten what its own request waits, so it is believed of anybody; what
//! is no number, is 0, or comes twice says nothing.

use http::HeaderMap;
use http::header::HeaderName;

use corral_limiter::Nanos;

/// Each with its unit in milliseconds.
const HEADERS: [(HeaderName, u64); 3] = [
    (HeaderName::from_static("x-request-timeout-ms"), 1),
    (HeaderName::from_static("x-stainless-read-timeout"), 1000),
    (HeaderName::from_static("x-stainless-timeout"), 1000),
];

/// The shortest and the longest patience that is believed.
const BOUNDS: (u64, u64) = (1, 24 * 60 * 60 * 1000);
/// A longer number is none.
const MAX_DIGITS: usize = 16;

/// For how long the client waits from when it has sent its request; none where it does not say.
pub(crate) fn of(headers: &HeaderMap) -> Option<Nanos> {
    HEADERS.iter().find_map(|(name, unit)| {
        let mut lines = headers.get_all(name).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        millis(line.to_str().ok()?, *unit)
    })
}

/// A decimal number of a unit; what of it is less than a millisecond counts as one.
fn millis(text: &str, unit: u64) -> Option<Nanos> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let part = |digits: &str| {
        let is_number =
            (1..=MAX_DIGITS).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse::<u64>().ok()).flatten()
    };
    let (whole, numerator) = (part(whole)?, part(fraction)?);
    if (whole, numerator) == (0, 0) {
        return None;
    }
    let denominator = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let beyond = u128::from(numerator) * u128::from(unit) / u128::from(denominator);
    let millis = whole.saturating_mul(unit).saturating_add(u64::try_from(beyond).ok()?);
    Some(Nanos::from_millis(millis.clamp(BOUNDS.0, BOUNDS.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[(&'static str, &str)]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        of(&headers).map(|patience| patience.0 / 1_000_000)
    }

    #[test]
    fn each_header_has_its_unit_and_the_most_exact_one_counts() {
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[("x-request-timeout-ms", "1500")]), Some(1500));
        assert_eq!(told(&[("x-stainless-read-timeout", "600")]), Some(600_000));
        assert_eq!(told(&[("x-stainless-read-timeout", "12.5")]), Some(12_500));
        assert_eq!(told(&[("x-stainless-timeout", "30.0")]), Some(30_000));
        assert_eq!(told(&[("x-stainless-timeout", "3"), ("x-stainless-read-timeout", "2")]), Some(2000));
        assert_eq!(told(&[("x-stainless-read-timeout", "2"), ("x-request-timeout-ms", "7")]), Some(7));
    }

    #[test]
    fn it_is_bounded() {
        assert_eq!(told(&[("x-request-timeout-ms", "99999999999999")]), Some(86_400_000));
        assert_eq!(told(&[("x-stainless-timeout", "9999999999999999")]), Some(86_400_000));
        assert_eq!(told(&[("x-stainless-timeout", "0.0001")]), Some(1));
        assert_eq!(told(&[("x-request-timeout-ms", "1")]), Some(1));
    }

    #[test]
    fn nonsense_says_nothing() {
        for nonsense in [
            "",
            "0",
            "0.0",
            "00",
            "-1",
            "+1",
            "1e3",
            "1.",
            ".5",
            "1.5.5",
            "0x10",
            "NaN",
            "inf",
            "10s",
            "1 0",
            "1,5",
            "12345678901234567",
            "0.12345678901234567",
        ] {
            assert_eq!(told(&[("x-stainless-read-timeout", nonsense)]), None, "{nonsense}");
        }
        assert_eq!(told(&[("x-request-timeout-ms", "5"), ("x-request-timeout-ms", "9")]), None, "which one?");
        assert_eq!(told(&[("x-request-timeout-ms", "soon"), ("x-stainless-timeout", "9")]), Some(9000));
        let mut headers = HeaderMap::new();
        headers.insert("x-stainless-timeout", http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(of(&headers), None);
    }
}
