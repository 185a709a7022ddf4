//! What a request head must not hold, beyond what the framing of its connection already refused.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName,
    TRANSFER_ENCODING,
};

use super::api_key::API_KEY;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken from a client.
const MAX_REQUEST_ID: usize = 64;

/// Connection options that mean what they say. Any other would have a proxy drop the header of that name, which is
/// how credentials and addresses get lost on the way.
const CONNECTION_OPTIONS: &[&str] = &["close", "keep-alive", "te", "upgrade", "http2-settings"];

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadFault {
    #[error("only HTTP/1.1 is served")]
    Version,
    #[error("the request line or a header line is malformed")]
    Malformed,
    #[error("exactly one valid Host header is needed")]
    Host,
    #[error("the length of the body is said in two ways, or in one that is not understood")]
    Framing,
    #[error("the Connection header names another header")]
    Connection,
    #[error("a credential is given twice")]
    TwoCredentials,
    #[error("the only expectation understood is 100-continue")]
    Expectation,
    #[error(
        "the {} header is not one by which an activator of this pool speaks for its client",
        super::VOUCHED
    )]
    Vouched,
    #[error("the request head is larger than {} bytes", super::framing::MAX_HEAD)]
    TooLarge,
}

/// Checks what the framing did not.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), HeadFault> {
    for line in headers.get_all(CONNECTION) {
        let known = |option: &str| CONNECTION_OPTIONS.iter().any(|known| known.eq_ignore_ascii_case(option));
        if !line
            .to_str()
            .unwrap_or("?")
            .split(',')
            .map(str::trim)
            .all(|option| option.is_empty() || known(option))
        {
            return Err(HeadFault::Connection);
        }
    }
    let twice = |name: &HeaderName| headers.get_all(name).iter().nth(1).is_some();
    if twice(&AUTHORIZATION) || twice(&API_KEY) {
        return Err(HeadFault::TwoCredentials);
    }
    let understood = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).iter().all(understood) { Ok(()) } else { Err(HeadFault::Expectation) }
}

/// Whether the body is encoded, so that what it says cannot be read as it is.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    let identity = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    !headers.get_all(CONTENT_ENCODING).iter().all(identity)
}

/// Whether a body comes with the head.
pub(crate) fn announces_body(headers: &HeaderMap) -> bool {
    let zero = |value: &http::HeaderValue| value.as_bytes() == b"0";
    headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|value| !zero(value))
}

/// The client's own request id, if it is one that can be logged as it is.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (!id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(plain)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn a_connection_header_may_not_name_other_headers() {
        for value in ["authorization", "close, x-forwarded-for", "keep-alive,x-api-key"] {
            assert_eq!(check(&headers(&[("connection", value)])), Err(HeadFault::Connection), "{value}");
        }
        for value in ["close", "Keep-Alive", "Upgrade, HTTP2-Settings", "", "close,"] {
            assert_eq!(check(&headers(&[("connection", value)])), Ok(()), "{value}");
        }
    }

    #[test]
    fn credentials_are_given_once_and_expectations_are_known() {
        let two = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
        assert_eq!(check(&two), Err(HeadFault::TwoCredentials));
        assert_eq!(check(&headers(&[("expect", "x")])), Err(HeadFault::Expectation));
        assert_eq!(check(&headers(&[("expect", "100-Continue")])), Ok(()));
    }

    #[test]
    fn every_encoding_but_identity_is_one() {
        for value in ["zstd", "ZSTD", "gzip", "br", "gzip,zstd", ""] {
            assert!(is_encoded(&headers(&[("content-encoding", value)])), "{value}");
        }
        assert!(!is_encoded(&headers(&[])) && !is_encoded(&headers(&[("content-encoding", "identity")])));
    }

    #[test]
    fn a_request_id_is_taken_only_if_it_is_plain_and_short() {
        assert_eq!(request_id(&headers(&[("x-request-id", "a.B_9-")])), Some("a.B_9-"));
        for value in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert_eq!(request_id(&headers(&[("x-request-id", value)])), None, "{value}");
        }
    }
}
