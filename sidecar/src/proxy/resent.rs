//! Whether a request says itself that it asks once more for what it was refused before: SDKs count their tries.

use http::HeaderMap;
use http::header::HeaderName;

/// How often the same was sent before.
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");

/// What is no number, or comes twice, says nothing. It changes nothing but a count, so it is believed of anybody.
pub(crate) fn is_retry(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(RETRY_COUNT).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let digits = line.as_bytes();
    digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|digit| *digit != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_above_zero_is_a_retry_and_nonsense_is_none() {
        let told = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(RETRY_COUNT, http::HeaderValue::from_static(line));
            }
            is_retry(&headers)
        };
        for retry in ["1", "2", "10", "007", "99999999999999999999"] {
            assert!(told(&[retry]), "{retry}");
        }
        for none in ["", "0", "000", "-1", "+1", "1.5", "1e3", "one", "1, 2"] {
            assert!(!told(&[none]), "{none}");
        }
        assert!(!told(&[]) && !told(&["1", "1"]), "which one?");
    }
}
