//! What a bucket is kept for, as 128 bits: a keyed hash of tagged values, made without allocating.
//!
//! The hash is SipHash-1-3 under a secret random key, so that nobody outside can find two keys that collide; by chance
//! two of 10⁹ keys do with a probability below 10⁻²⁰. Which limit it is for is no part of it: each limit has its own
//! table, and limits with the same `per` share the work of hashing.

use std::{hash::Hasher, net::IpAddr};

use corral_wire::{EndpointClass, KeyPart};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::{HeadFacts, ModelName};

/// One combination of values of the parts of a `per`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct BucketKey {
    high: u64,
    low: u64,
}

impl BucketKey {
    /// Any one.
    #[cfg(test)]
    pub(crate) fn of(high: u64, low: u64) -> Self {
        Self { high, low }
    }

    /// Of a bucket that keys without one of their own share.
    pub(crate) fn of_overflow(index: usize) -> Self {
        Self { high: u64::MAX, low: index as u64 }
    }

    /// For a hash table.
    pub(crate) fn hash(self) -> u64 {
        self.high
    }

    /// The whole of it, for whoever keeps tables of another kind.
    pub(crate) fn bits(self) -> u128 {
        (u128::from(self.high) << 64) | u128::from(self.low)
    }

    /// For anything else that spreads keys: independent of [`Self::hash`].
    pub(crate) fn spread(self) -> u64 {
        self.low
    }
}

/// Makes keys.
#[derive(Clone)]
pub(crate) struct KeyHasher {
    start: SipHasher13,
}

impl KeyHasher {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self { start: SipHasher13::new_with_key(key) }
    }

    /// The key of a request of this tier in a limit with this `per`, whose parts are sorted. A part that the request
    /// lacks has the value `-`, which no model is called.
    pub(crate) fn key(
        &self,
        per: &[KeyPart],
        (head, tier): (&HeadFacts, Option<&str>),
        model: Option<&ModelName>,
    ) -> BucketKey {
        let mut hasher = self.start;
        let name = head.client.as_ref().map(|client| client.name.as_str());
        for part in per {
            match part {
                // The second byte says by what the client is known.
                KeyPart::Client => match name {
                    Some(name) => write_tagged(&mut hasher, b"ck", name),
                    None => write_ip(&mut hasher, b"ci", head.client_ip),
                },
                KeyPart::ApiKey => write_tagged(&mut hasher, b"k", name.unwrap_or("-")),
                KeyPart::ClientIP => write_ip(&mut hasher, b"i", head.client_ip),
                KeyPart::Tier => write_tagged(&mut hasher, b"t", tier.unwrap_or("-")),
                KeyPart::Model => write_tagged(&mut hasher, b"m", model.map_or("-", ModelName::as_str)),
                KeyPart::Endpoint => hasher.write(endpoint_tag(head.endpoint)),
                KeyPart::Global => hasher.write(b"g"),
                KeyPart::Header(name) => {
                    write_tagged(&mut hasher, b"h", name);
                    write_tagged(&mut hasher, b"=", header(head, name).unwrap_or("-"));
                }
            }
        }
        let hash = hasher.finish128();
        BucketKey { high: hash.h1, low: hash.h2 }
    }
}

fn header<'a>(head: &'a HeadFacts, name: &str) -> Option<&'a str> {
    head.headers.iter().find(|(given, _)| **given == *name).map(|(_, value)| &**value)
}

/// An IPv4 address counts alone, an IPv6 address by its /64: one subscriber has at least that much.
fn write_ip(hasher: &mut SipHasher13, tag: &[u8], ip: IpAddr) {
    hasher.write(tag);
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            hasher.write(&[b'4', a, b, c, d]);
        }
        IpAddr::V6(v6) => {
            let [network @ .., _, _, _, _, _, _, _, _] = v6.octets();
            hasher.write(b"6");
            hasher.write(&network);
        }
    }
}

/// The text with its length in front, so that no two lists of values have the same bytes.
fn write_tagged(hasher: &mut SipHasher13, tag: &[u8], text: &str) {
    hasher.write(tag);
    hasher.write(&text.len().to_be_bytes());
    hasher.write(text.as_bytes());
}

fn endpoint_tag(class: EndpointClass) -> &'static [u8] {
    match class {
        EndpointClass::Chat => b"ec",
        EndpointClass::Generate => b"eg",
        EndpointClass::Embed => b"ee",
        EndpointClass::Metadata => b"em",
    }
}
