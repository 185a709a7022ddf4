//! For whom an activator speaks: the address of a client, signed with the pool's key.
//!
//! A pod that believes it takes the address in place of its own TCP peer. So it is bound to one pod, one moment and one
//! request line, and has a number that is used once: a copy of it is worth nothing.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::PoolKeys;

/// The header that carries it.
pub const FORWARDED_HEADER: &str = "x-corral-client";
/// With it an answer to an activator says that the pod serves nobody just now, and that nobody was charged: another pod
/// may be asked, or this one later.
pub const ELSEWHERE_HEADER: &str = "x-corral-elsewhere";
/// How far the clocks of an activator and a pod may be apart, the way of the request included.
pub const FORWARDED_LIFETIME: Duration = Duration::from_secs(30);

const DOMAIN: &str = "corral.dev/v1/forwarded";
const VERSION: &str = "v1";

/// The request that is forwarded, as far as it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLine<'a> {
    /// Its method, as it is written.
    pub method: &'a str,
    /// Its target: the path, and the query if there is one.
    pub target: &'a str,
}

/// Who has sent a request, by the word of an activator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// The address that the client connected from.
    pub client: IpAddr,
    /// When it was signed, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// A number that no other has.
    pub nonce: u128,
}

/// Why it is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotForwarded {
    /// It has not got the form.
    #[error("it is malformed")]
    Malformed,
    /// No key of the pool has signed it for this pod and this request.
    #[error("no key of this pool has signed it for this pod and this request")]
    BadSignature,
    /// It is older, or from further ahead, than [`FORWARDED_LIFETIME`].
    #[error("it was signed too long ago, or by another clock")]
    Stale,
}

impl Forwarded {
    /// The value of the header, for one pod and one request; none where no key can sign.
    pub fn sign(&self, keys: &PoolKeys, pod_uid: &str, line: RequestLine<'_>) -> Option<String> {
        let mac = keys.mac(DOMAIN, &bytes(&self.parts(pod_uid, line)))?;
        Some(format!("{self} {}", hex::encode(mac)))
    }

    /// Reads the value of the header, at a pod. Whether its nonce is new is for the caller to say.
    pub fn open(
        value: &str,
        keys: &PoolKeys,
        pod_uid: &str,
        line: RequestLine<'_>,
        now_unix_ms: u64,
    ) -> Result<Self, NotForwarded> {
        let (this, mac) = Self::parse(value).ok_or(NotForwarded::Malformed)?;
        if !keys.genuine(DOMAIN, &bytes(&this.parts(pod_uid, line)), &mac) {
            return Err(NotForwarded::BadSignature);
        }
        let apart = Duration::from_millis(now_unix_ms.abs_diff(this.at_unix_ms));
        if apart > FORWARDED_LIFETIME { Err(NotForwarded::Stale) } else { Ok(this) }
    }

    fn parse(value: &str) -> Option<(Self, Vec<u8>)> {
        let mut words = value.split(' ');
        let [version, client, at, nonce, mac] = std::array::from_fn(|_| words.next());
        let this = Self {
            client: client?.parse().ok()?,
            at_unix_ms: at?.parse().ok()?,
            nonce: u128::from_str_radix(nonce?, 16).ok()?,
        };
        let mac = hex::decode(mac?).ok()?;
        // One spelling each, so that what was signed is what was sent.
        let as_written = value.starts_with(&format!("{this} "));
        (version? == VERSION && words.next().is_none() && as_written).then_some((this, mac))
    }

    fn parts<'a>(&self, pod_uid: &'a str, line: RequestLine<'a>) -> [Cow<'a, str>; 4] {
        [pod_uid.into(), self.to_string().into(), line.method.into(), line.target.into()]
    }
}

fn bytes<'a>(parts: &'a [Cow<'a, str>; 4]) -> [&'a [u8]; 4] {
    parts.each_ref().map(|part| part.as_bytes())
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION} {} {} {:032x}", self.client, self.at_unix_ms, self.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const LINE: RequestLine<'_> = RequestLine { method: "POST", target: "/api/chat" };

    fn keys(seed: u8) -> PoolKeys {
        PoolKeys::new(vec![vec![seed; 32]]).unwrap()
    }

    fn forwarded() -> Forwarded {
        Forwarded { client: "10.1.2.3".parse().unwrap(), at_unix_ms: NOW, nonce: 0xabc }
    }

    fn open(value: &str, line: RequestLine<'_>, now: u64) -> Result<Forwarded, NotForwarded> {
        Forwarded::open(value, &keys(1), "pod-a", line, now)
    }

    #[test]
    fn it_is_believed_by_its_pod_for_its_request_and_for_a_while() {
        let value = forwarded().sign(&keys(1), "pod-a", LINE).unwrap();
        assert_eq!(open(&value, LINE, NOW), Ok(forwarded()));
        assert_eq!(open(&value, LINE, NOW + 30_000), Ok(forwarded()));
        assert_eq!(open(&value, LINE, NOW + 30_001), Err(NotForwarded::Stale));
        assert_eq!(open(&value, LINE, NOW - 30_001), Err(NotForwarded::Stale));
        let other = RequestLine { target: "/api/generate", ..LINE };
        assert_eq!(open(&value, other, NOW), Err(NotForwarded::BadSignature));
        let other = RequestLine { method: "GET", ..LINE };
        assert_eq!(open(&value, other, NOW), Err(NotForwarded::BadSignature));
        let elsewhere = Forwarded::open(&value, &keys(1), "pod-b", LINE, NOW);
        assert_eq!(elsewhere, Err(NotForwarded::BadSignature));
        assert_eq!(Forwarded::open(&value, &keys(2), "pod-a", LINE, NOW), Err(NotForwarded::BadSignature));
    }

    #[test]
    fn a_client_of_ipv6_is_one_too_and_nothing_of_it_can_be_changed() {
        let six = Forwarded { client: "2001:db8::7".parse().unwrap(), ..forwarded() };
        let value = six.sign(&keys(1), "pod-a", LINE).unwrap();
        assert_eq!(open(&value, LINE, NOW), Ok(six));
        for (from, to) in
            [("2001:db8::7", "2001:db8::8"), ("1800000000000", "1800000000001"), ("abc ", "abd ")]
        {
            assert_eq!(open(&value.replace(from, to), LINE, NOW), Err(NotForwarded::BadSignature), "{to}");
        }
    }

    #[test]
    fn what_is_not_written_as_it_is_signed_is_malformed() {
        let value = forwarded().sign(&keys(1), "pod-a", LINE).unwrap();
        let words: Vec<&str> = value.split(' ').collect();
        for bad in [
            String::new(),
            "10.1.2.3".to_owned(),
            words[..4].join(" "),
            format!("{value} x"),
            value.replacen("v1", "v2", 1),
            value.replacen("10.1.2.3", "chat.example", 1),
            value.replacen("1800000000000", "+1800000000000", 1),
            value.replacen("1800000000000", "01800000000000", 1),
            value.replacen("00000abc", "00000ABC", 1),
            value.replacen(' ', "  ", 1),
            format!("{} {}", words[..4].join(" "), "zz"),
        ] {
            assert_eq!(open(&bad, LINE, NOW), Err(NotForwarded::Malformed), "{bad}");
        }
    }
}
