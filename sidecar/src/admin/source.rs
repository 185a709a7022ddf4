//! Who calls, as far as a place or a connection is shared out by it.

use std::net::IpAddr;

/// A caller: its address, an IPv4 address also where it comes mapped into IPv6. Not the network it lies in: the pods of a
/// node, and the kubelet that probes them, may share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(peer: IpAddr) -> Self {
        Self(peer.to_canonical())
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
        assert_ne!(source("fd00:0:0:1::1"), source("fd00:0:0:1::2"));
    }
}
