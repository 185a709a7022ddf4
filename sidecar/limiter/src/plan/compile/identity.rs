//! Who clients are: proxies, API keys, trusted headers, tiers and exemptions.

use std::{collections::HashSet, sync::Arc};

use corral_wire::{ApiKeyDoc, ExemptDoc, IdentityDoc, PlanDoc, TierDoc};
use hashbrown::HashMap;
use ipnet::IpNet;

use super::{errors::Errors, sorted};
use crate::{
    KnownClient,
    plan::{Tier, matching::Exemption},
};

/// The most trusted proxies, exemptions, addresses and clients of one exemption.
const MOST: usize = 256;
/// The most API keys.
const MOST_KEYS: usize = 4096;
/// The most headers that are trusted.
const MOST_HEADERS: usize = 16;
/// The largest scale of a tier, in thousandths.
const LARGEST_SCALE: u32 = 1_000_000;
/// The largest weight of a tier.
const LARGEST_WEIGHT: u32 = 1000;

/// What a plan knows of clients.
pub(super) struct Identity {
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) clients: HashMap<[u8; 32], Arc<KnownClient>>,
    pub(super) tiers: Vec<Tier>,
    pub(super) exemptions: Vec<Exemption>,
}

pub(super) fn read(doc: &PlanDoc, errors: &mut Errors) -> Identity {
    let trusted_proxies = read_cidrs("identity.trustedProxies", &doc.identity.trusted_proxies, errors);
    let clients = read_keys(&doc.identity, errors);
    check_headers(&doc.identity, errors);
    let tiers = read_tiers(&doc.tiers, errors);
    if let Some(name) = &doc.default_tier {
        let known = tiers.iter().any(|tier| tier.name == *name);
        errors.check(known, "defaultTier", || format!("there is no tier {name:?}"));
    }
    let exemptions = read_exemptions(&doc.exempt, errors);
    Identity { trusted_proxies, clients, tiers, exemptions }
}

/// Reads a list of networks.
pub(super) fn read_cidrs(path: &str, cidrs: &[String], errors: &mut Errors) -> Vec<IpNet> {
    errors.check(cidrs.len() <= MOST, path, || format!("has at most {MOST} entries"));
    let mut read = |(place, cidr): (usize, &String)| {
        let net = cidr.parse().ok();
        errors.check(net.is_some(), format!("{path}[{place}]"), || {
            "is no CIDR such as 10.0.0.0/8 or fd00::/64".to_owned()
        });
        net
    };
    cidrs.iter().enumerate().take(MOST).filter_map(&mut read).collect()
}

/// A name that stands in headers, metrics and messages.
pub(super) fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

pub(super) const NAME_RULE: &str = "has 1 to 63 letters, digits, -, _ and .";

fn read_keys(doc: &IdentityDoc, errors: &mut Errors) -> HashMap<[u8; 32], Arc<KnownClient>> {
    errors.check(doc.api_keys.len() <= MOST_KEYS, "identity.apiKeys", || {
        format!("has at most {MOST_KEYS} entries")
    });
    errors.check(doc.api_keys.is_empty() || doc.digest_key.is_some(), "identity.digestKey", || {
        "names the key that the digests were made with".to_owned()
    });
    let mut clients: HashMap<_, Arc<KnownClient>> = HashMap::new();
    for (place, key) in doc.api_keys.iter().enumerate().take(MOST_KEYS) {
        let path = format!("identity.apiKeys[{place}]");
        errors.check(is_name(&key.client), format!("{path}.client"), || NAME_RULE.to_owned());
        let Some(digest) = read_digest(key) else {
            errors.add(format!("{path}.digest"), "is not 64 lower-case hex digits".to_owned());
            continue;
        };
        let client = KnownClient { name: key.client.clone(), tier: key.tier.clone() };
        let first = clients.entry(digest).or_insert_with(|| Arc::new(client.clone()));
        errors.check(**first == client, format!("{path}.digest"), || {
            format!("{:?} and {:?} have the same API key", first.name, client.name)
        });
    }
    clients
}

fn read_digest(key: &ApiKeyDoc) -> Option<[u8; 32]> {
    let nibble = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    };
    let (pairs, rest) = key.digest.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some((nibble(high)? << 4) | nibble(low)?)).collect();
    bytes?.try_into().ok().filter(|_| rest.is_empty())
}

fn check_headers(doc: &IdentityDoc, errors: &mut Errors) {
    let path = "identity.trustedHeaders";
    let names = &doc.trusted_headers;
    errors.check(names.len() <= MOST_HEADERS, path, || format!("has at most {MOST_HEADERS} entries"));
    for (place, name) in names.iter().enumerate().take(MOST_HEADERS) {
        check_header(&format!("{path}[{place}]"), name, errors);
    }
    if let Some(name) = &doc.priority_header {
        check_header("identity.priorityHeader", name, errors);
    }
}

fn check_header(path: &str, name: &str, errors: &mut Errors) {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    errors.check((1..=64).contains(&name.len()) && name.bytes().all(plain), path, || {
        "is no header name in lower case, 1 to 64 of letters, digits, - and _".to_owned()
    });
}

fn read_tiers(docs: &[TierDoc], errors: &mut Errors) -> Vec<Tier> {
    errors.check(docs.len() <= MOST, "tiers", || format!("has at most {MOST} entries"));
    let mut seen = HashSet::new();
    let mut tiers = Vec::new();
    for (place, tier) in docs.iter().enumerate().take(MOST) {
        let path = format!("tiers[{place}]");
        errors.check(is_name(&tier.name), format!("{path}.name"), || NAME_RULE.to_owned());
        errors.check(seen.insert(&tier.name), format!("{path}.name"), || {
            format!("there is another tier {:?}", tier.name)
        });
        errors.check((1..=LARGEST_SCALE).contains(&tier.scale_milli), format!("{path}.scaleMilli"), || {
            format!("is 1 to {LARGEST_SCALE}")
        });
        errors.check((1..=LARGEST_WEIGHT).contains(&tier.weight), format!("{path}.weight"), || {
            format!("is 1 to {LARGEST_WEIGHT}; 0 does not mean that its clients wait for all others")
        });
        tiers.push(Tier {
            name: tier.name.clone(),
            scale: tier.scale_milli,
            weight: tier.weight,
            priority: tier.priority.map(Into::into),
        });
    }
    tiers
}

fn read_exemptions(docs: &[ExemptDoc], errors: &mut Errors) -> Vec<Exemption> {
    errors.check(docs.len() <= MOST, "exempt", || format!("has at most {MOST} entries"));
    let mut exemptions = Vec::new();
    for (place, doc) in docs.iter().enumerate().take(MOST) {
        let path = format!("exempt[{place}]");
        let cidrs = read_cidrs(&format!("{path}.cidrs"), &doc.cidrs, errors);
        errors.check(doc.clients.len() <= MOST, format!("{path}.clients"), || {
            format!("has at most {MOST} entries")
        });
        exemptions
            .push(Exemption { cidrs, clients: sorted(doc.clients.iter().take(MOST).cloned().collect()) });
    }
    exemptions
}
