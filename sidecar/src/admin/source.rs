//! Who calls, as far as a place or a connection is shared out by it.

use std::net::{IpAddr, Ipv6Addr};

/// The network part of an IPv6 address that one host is commonly given: whoever has it has all addresses below it.
const NETWORK: u128 = !(u64::MAX as u128);

/// A caller: an IPv4 address, also where it comes mapped into IPv6, or the /64 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(peer: IpAddr) -> Self {
        Self(match peer.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & NETWORK)),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(peer: &str) -> Source {
        peer.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_caller_is_one_however_it_writes_its_address() {
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("::ffff:10.0.0.1"), source("::ffff:10.0.0.2"));
        assert_eq!(source("fd00:0:0:1::1"), source("fd00:0:0:1:ffff::2"));
        assert_ne!(source("fd00:0:0:1::1"), source("fd00:0:0:2::1"));
    }
}
