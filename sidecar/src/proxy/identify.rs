//! Who asks: the TCP peer, or whom trusted proxies say they speak for; and what trusted headers say of the request.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::HeaderName;
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The most hops looked at, from the right. A longer chain is nobody's honest one.
const MAX_HOPS: usize = 32;

/// The longest value of a header that limits go by, in bytes. A longer one is taken for none.
const MAX_VALUE_BYTES: usize = 256;

/// The address of the client behind `peer`.
///
/// `X-Forwarded-For` is believed only where the peer is a trusted proxy, and then from the right: each trusted
/// address hands on to the one before it, and the first that is not trusted is the client. What cannot be read as an
/// address ends the walk at the last address that could be, for a client must not choose whom it is charged to.
pub(crate) fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let mut client = peer;
    for hop in hops_from_the_right(headers).take(MAX_HOPS) {
        let Some(address) = parse(hop) else {
            return client;
        };
        client = address;
        if !is_trusted(client, trusted) {
            return client;
        }
    }
    client
}

/// The values of the headers that limits go by. Of a header that is there twice the last counts: a proxy that adds its own
/// line leaves what the client wrote in front of it. One that is no text, or too long, is not there.
pub(crate) fn trusted_headers(headers: &HeaderMap, names: &[String]) -> Vec<(Box<str>, Box<str>)> {
    let value = |name: &String| {
        let value = headers.get_all(name.as_str()).iter().next_back()?.as_bytes();
        let value = std::str::from_utf8(value).ok().filter(|value| value.len() <= MAX_VALUE_BYTES)?;
        Some((name.as_str().into(), value.into()))
    };
    names.iter().filter_map(value).collect()
}

/// Whether it is one of the proxies that the pool trusts.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// All lines are one list: the rightmost entry of the last line was added last. An unreadable line is one
/// unreadable hop.
fn hops_from_the_right(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines: smallvec::SmallVec<[&str; 2]> =
        headers.get_all(FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or_default()).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim)
}

/// An address as proxies write it: bare, or with a port (an IPv6 one then in brackets).
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.parse::<IpAddr>().ok();
    let bracketed = || hop.strip_prefix('[')?.split_once(']')?.0.parse().ok().map(IpAddr::V6);
    let with_port = || hop.parse::<std::net::SocketAddrV4>().ok().map(|socket| IpAddr::V4(*socket.ip()));
    bare.or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(peer: &str, lines: &[&str], trusted: &[&str]) -> IpAddr {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        client_ip(ip(peer), &headers, &trusted)
    }

    #[test]
    fn only_the_headers_asked_for_are_read_and_the_last_of_each() {
        let mut headers = HeaderMap::new();
        let long = "x".repeat(MAX_VALUE_BYTES + 1);
        for (name, value) in
            [("x-team", "red"), ("x-team", "blue"), ("x-long", &long), ("x-other", "y"), ("x-empty", "")]
        {
            headers.append(name, value.parse().unwrap());
        }
        headers.append("x-bytes", http::HeaderValue::from_bytes(b"\xff").unwrap());
        let names = ["x-bytes", "x-empty", "x-long", "x-none", "x-team"].map(str::to_owned);
        let pair = |name: &str, value: &str| (name.into(), value.into());
        assert_eq!(trusted_headers(&headers, &names), [pair("x-empty", ""), pair("x-team", "blue")]);
        assert_eq!(trusted_headers(&headers, &[]), []);
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        for line in ["1.2.3.4", "", "unknown", "[::1]:80", "::ffff:1.2.3.4"] {
            assert_eq!(client("9.9.9.9", &[line], &[]), ip("9.9.9.9"));
            assert_eq!(client("9.9.9.9", &[line], &["10.0.0.0/8"]), ip("9.9.9.9"));
        }
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        assert_eq!(client("::ffff:9.9.9.9", &[], &[]), ip("9.9.9.9"));
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:1.2.3.4"], &["10.0.0.0/8"]), ip("1.2.3.4"));
    }

    #[test]
    fn behind_trusted_proxies_the_first_untrusted_hop_from_the_right_is_the_client() {
        let trusted = &["10.0.0.0/8"];
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], trusted), ip("1.2.3.4"));
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.2.3.4", "10.0.0.2"], trusted), ip("1.2.3.4"));
        assert_eq!(client("10.0.0.1", &["1.2.3.4:5678"], trusted), ip("1.2.3.4"));
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:80"], trusted), ip("2001:db8::1"));
    }

    #[test]
    fn without_a_readable_client_the_last_trusted_hop_is_charged() {
        let trusted = &["10.0.0.0/8"];
        assert_eq!(client("10.0.0.1", &[], trusted), ip("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &["1.2.3.4, junk"], trusted), ip("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &["1.2.3.4, , 10.0.0.3"], trusted), ip("10.0.0.3"));
        assert_eq!(client("10.0.0.1", &["10.0.0.9, 10.0.0.3"], trusted), ip("10.0.0.9"));
        assert_eq!(client("10.0.0.1", &[&"10.0.0.3,".repeat(1000)], trusted), ip("10.0.0.1"));
    }
}
