//! What counts as one client of all addresses.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address counts alone, also where it is written as one of IPv6. Of IPv6 it is the /64 around an address, by its
/// first: whoever has one of these has them all.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() >> 64 << 64).into(),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_64_are_one_client_and_those_of_ipv4_are_each_their_own() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("fd00:0:0:1:2:3:4:5"), "fd00:0:0:1::");
        assert_eq!((of("10.0.0.1"), of("::ffff:10.0.0.1")), ("10.0.0.1".to_owned(), "10.0.0.1".to_owned()));
    }
}
