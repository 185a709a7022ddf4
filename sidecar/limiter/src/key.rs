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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BucketKey {
    high: u64,
    low: u64,
}

impl BucketKey {
    /// For a hash table.
    pub(crate) fn hash(self) -> u64 {
        self.high
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

    /// The key of a request in a limit with this `per`, whose parts are sorted. A part that the request lacks has the
    /// value `-`, which no model is called.
    pub(crate) fn key(&self, per: &[KeyPart], head: &HeadFacts, model: Option<&ModelName>) -> BucketKey {
        let mut hasher = self.start;
        for part in per {
            match part {
                // The second byte says by what the client is known; API keys will have another.
                KeyPart::Client => {
                    hasher.write(b"ci");
                    write_ip(&mut hasher, head.client_ip);
                }
                KeyPart::ClientIP => {
                    hasher.write(b"i");
                    write_ip(&mut hasher, head.client_ip);
                }
                KeyPart::Model => {
                    hasher.write(b"m");
                    write_text(&mut hasher, model.map_or("-", ModelName::as_str));
                }
                KeyPart::Endpoint => hasher.write(endpoint_tag(head.endpoint)),
                KeyPart::Global => hasher.write(b"g"),
                KeyPart::ApiKey | KeyPart::Tier | KeyPart::Header(_) => hasher.write(b"-"),
            }
        }
        let hash = hasher.finish128();
        BucketKey { high: hash.h1, low: hash.h2 }
    }
}

/// An IPv4 address counts alone, an IPv6 address by its /64: one subscriber has at least that much.
fn write_ip(hasher: &mut SipHasher13, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            hasher.write(b"4");
            hasher.write(&v4.octets());
        }
        IpAddr::V6(v6) => {
            let [network @ .., _, _, _, _, _, _, _, _] = v6.octets();
            hasher.write(b"6");
            hasher.write(&network);
        }
    }
}

/// The text with its length in front, so that no two lists of values have the same bytes.
fn write_text(hasher: &mut SipHasher13, text: &str) {
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
