//! From the Secrets that a pool names to the API keys of its plan. Pure.
//!
//! One entry of a Secret is one client. What is wrong with an entry takes that entry's keys out and is told by the names of
//! Secret and entry: no message, and nothing else that leaves here, holds anything of a key but its digest.

use std::collections::BTreeMap;

use corral_wire::{ApiKeyDoc, KeyDigester};

use crate::{
    bounds::{API_KEY_LENGTH, MAX_API_KEYS, MAX_CLIENT_NAME, MAX_KEYS_OF_ENTRY},
    pool::ApiKeySecret,
    valid::Problem,
};

/// The most bytes of a plan that API keys take, names and all: whatever clients are called, there is room for limits.
pub const MAX_KEY_BYTES: usize = 640 * 1024;
/// How the message begins that tells of a Secret that is not there.
pub const NO_SECRET: &str = "there is no Secret";
/// About what JSON adds to the texts of one key.
const FRAME_BYTES: usize = 40;
/// The most problems that are told one by one.
const MOST_TOLD: usize = 20;

/// The content of a Secret: its entries by name.
pub type Entries = BTreeMap<String, Vec<u8>>;

/// The API keys of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRing {
    /// Those that count, in order of client and digest.
    pub keys: Vec<ApiKeyDoc>,
    /// [`KeyDigester::id`] of what made the digests; none where the pool names no Secret.
    pub digest_key: Option<String>,
    /// What is wrong, by the pool's fields.
    pub problems: Vec<Problem>,
}

/// One key of one client, before it is known whether somebody else has it too.
struct Found<'a> {
    place: usize,
    secret: &'a str,
    client: &'a str,
    tier: Option<&'a str>,
    digest: [u8; 32],
}

/// Reads the Secrets that a pool names; `content` has the entries of each, or none where there is no such Secret.
pub fn read<'a>(
    named: &'a [ApiKeySecret],
    content: impl Fn(&str) -> Option<&'a Entries>,
    digester: &KeyDigester,
) -> KeyRing {
    let mut ring = KeyRing::default();
    let mut found: Vec<Found<'a>> = Vec::new();
    for (place, secret) in named.iter().enumerate() {
        match content(&secret.secret_name) {
            Some(entries) => take_secret(&mut ring, &mut found, (place, secret, entries), digester),
            None => ring.refuse(place, format!("{NO_SECRET} {}", secret.secret_name)),
        }
    }
    let sole = without_twins(&mut ring, found);
    ring.keys = sole.iter().map(doc).collect();
    ring.keys.sort_by(|a, b| (&a.client, &a.digest).cmp(&(&b.client, &b.digest)));
    ring.keys.dedup();
    ring.bound();
    ring.digest_key = (!named.is_empty()).then(|| digester.id().to_owned());
    ring.shorten();
    ring
}

fn take_secret<'a>(
    ring: &mut KeyRing,
    found: &mut Vec<Found<'a>>,
    (place, secret, entries): (usize, &'a ApiKeySecret, &'a Entries),
    digester: &KeyDigester,
) {
    let (name, before) = (secret.secret_name.as_str(), found.len());
    for (client, value) in entries {
        let tier = secret.tier.as_deref();
        let other = found.iter().find(|known| known.client == client && known.tier != tier);
        let keys = match other {
            Some(known) => Err(format!("its client is of another tier in Secret {}", known.secret)),
            None => keys_of(client, value),
        };
        match keys {
            Ok(keys) => found.extend(keys.into_iter().map(|key| Found {
                place,
                secret: name,
                client,
                tier,
                digest: digester.digest(key),
            })),
            Err(why) => ring.refuse(place, format!("Secret {name}, entry {}: {why}", shown(client))),
        }
    }
    if found.len() == before {
        ring.refuse(place, format!("Secret {name} has no usable API key"));
    }
}

/// An entry's name, cut where it is no name of a client.
fn shown(entry: &str) -> String {
    let mut shown: String = entry.chars().take(MAX_CLIENT_NAME).collect();
    if shown.len() < entry.len() {
        shown.push('…');
    }
    shown
}

/// The keys of an entry, one a line, or why it has none.
fn keys_of<'a>(client: &str, value: &'a [u8]) -> Result<Vec<&'a [u8]>, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if client.is_empty() || client.len() > MAX_CLIENT_NAME || !client.bytes().all(fits) {
        return Err(format!("a client's name has 1 to {MAX_CLIENT_NAME} letters, digits, -, _ and ."));
    }
    let lines = value.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let keys: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).take(MAX_KEYS_OF_ENTRY + 1).collect();
    if keys.is_empty() || keys.len() > MAX_KEYS_OF_ENTRY {
        return Err("it has one API key, or two, one a line".to_owned());
    }
    let is_key = |key: &&[u8]| API_KEY_LENGTH.contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    if !keys.iter().all(is_key) {
        let (least, most) = (API_KEY_LENGTH.start(), API_KEY_LENGTH.end());
        return Err(format!("an API key has {least} to {most} visible ASCII characters, and no spaces"));
    }
    Ok(keys)
}

/// A key that two clients have is nobody's: charging either for the other would be a guess.
fn without_twins<'a>(ring: &mut KeyRing, found: Vec<Found<'a>>) -> Vec<Found<'a>> {
    let mut owners: BTreeMap<[u8; 32], &str> = BTreeMap::new();
    let mut twins: BTreeMap<[u8; 32], &str> = BTreeMap::new();
    for key in &found {
        let owner = *owners.entry(key.digest).or_insert(key.client);
        if owner != key.client && !twins.contains_key(&key.digest) {
            twins.insert(key.digest, owner);
            let message = format!(
                "Secret {}, entry {}: entry {owner} has the same API key, so it counts for neither",
                key.secret, key.client
            );
            ring.refuse(key.place, message);
        }
    }
    found.into_iter().filter(|key| !twins.contains_key(&key.digest)).collect()
}

fn doc(found: &Found<'_>) -> ApiKeyDoc {
    ApiKeyDoc {
        digest: hex::encode(found.digest),
        client: found.client.to_owned(),
        tier: found.tier.map(str::to_owned),
    }
}

/// About the bytes that a key takes in a plan.
pub fn weight(key: &ApiKeyDoc) -> usize {
    key.digest.len() + key.client.len() + key.tier.as_ref().map_or(0, String::len) + FRAME_BYTES
}

impl KeyRing {
    fn refuse(&mut self, place: usize, message: String) {
        self.problems.push(Problem { path: format!("spec.identity.apiKeys[{place}]"), message });
    }

    /// The first, where there are too many.
    fn bound(&mut self) {
        let mut bytes = 0_usize;
        let fit = |key: &&ApiKeyDoc| {
            bytes = bytes.saturating_add(weight(key));
            bytes <= MAX_KEY_BYTES
        };
        let fitting = self.keys.iter().take(MAX_API_KEYS).take_while(fit).count();
        let more = self.keys.len().saturating_sub(fitting);
        if more > 0 {
            let message = format!(
                "a pool has room for {MAX_API_KEYS} API keys, in {} KiB with the names of their clients: {more} do not count",
                MAX_KEY_BYTES / 1024
            );
            self.problems.push(Problem { path: "spec.identity.apiKeys".to_owned(), message });
            self.keys.truncate(fitting);
        }
    }

    fn shorten(&mut self) {
        let more = self.problems.len().saturating_sub(MOST_TOLD);
        if more > 0 {
            self.problems.truncate(MOST_TOLD);
            let message = format!("{more} more problems");
            self.problems.push(Problem { path: "spec.identity.apiKeys".to_owned(), message });
        }
    }
}

#[cfg(test)]
#[path = "api_keys_tests.rs"]
mod tests;
