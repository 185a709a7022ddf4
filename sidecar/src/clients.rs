//! The heaviest clients of this pod over the last minutes: who takes how much, in bounded memory.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi, 2005) over a sliding time: at most 256 clients are followed, by their
//! weight in the last [`SPAN`]. A newcomer, when all places are taken, takes that of the lightest and inherits its weight,
//! so whoever has more than a 256th of all weight is always among them, and what is shown of such a client is never too
//! little by more than what came before it had its place.
//!
//! The weight is what Ollama is short of: slot time, with a millisecond for every request, so that whoever is refused all
//! the time shows too. Time is cut into slices that are forgotten whole.
//!
//! A client is known here by the name of its API key, or else by a keyed digest of its address (an IPv6 one by its /64):
//! no address is kept, and the key is gone with the process.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use corral_limiter::{HeadFacts, Nanos, Usage, network};
use hashbrown::HashMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// How far back is looked.
pub const SPAN: Nanos = Nanos::from_secs(300);
/// The most clients followed.
const PLACES: usize = 256;
/// Slices of the span: what is shown is of the last 4.5 to 5 minutes.
const SLICES: usize = 10;
const SLICE_NANOS: u64 = SPAN.0 / SLICES as u64;
/// What a request weighs by itself.
const REQUEST_WEIGHT: u64 = 1_000_000;

/// Who is followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Named(Arc<str>),
    /// By the digest of its address.
    Address(u64),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Address(digest) => write!(f, "{:08x}", digest >> 32),
        }
    }
}

/// What somebody has had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Had {
    /// Requests that came to a limit or further.
    pub requests: u64,
    /// Those of them that were answered 429 or 401.
    pub refused: u64,
    /// Tokens of prompts.
    pub input_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// For how long slots were held, in milliseconds.
    pub slot_ms: u64,
}

impl From<Usage> for Had {
    fn from(usage: Usage) -> Self {
        let Usage { input, output, slot } = usage;
        Self { input_tokens: input, output_tokens: output, slot_ms: slot.0 / 1_000_000, ..Self::default() }
    }
}

impl Had {
    fn add(&mut self, other: &Self) {
        let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
        sum(&mut self.requests, other.requests);
        sum(&mut self.refused, other.refused);
        sum(&mut self.input_tokens, other.input_tokens);
        sum(&mut self.output_tokens, other.output_tokens);
        sum(&mut self.slot_ms, other.slot_ms);
    }

    fn weight(&self) -> u64 {
        let own = self.requests.saturating_mul(REQUEST_WEIGHT);
        own.saturating_add(self.slot_ms.saturating_mul(1_000_000))
    }
}

/// One client among the heaviest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heavy {
    /// The name of its API key, or eight hex digits that stand for its address until this process ends.
    pub client: String,
    /// Whether that is the name of an API key.
    pub named: bool,
    /// What it has had.
    pub had: Had,
}

/// The clients that are followed.
#[derive(Debug, Default)]
pub struct Clients {
    key: RandomState,
    places: Mutex<HashMap<Who, Place>>,
}

impl Clients {
    /// Counts what this client had.
    pub fn count(&self, head: &HeadFacts, more: &Had, now: Nanos) {
        let who = self.who(head);
        let slice = now.0 / SLICE_NANOS;
        let mut places = self.places.lock();
        if let Some(place) = places.get_mut(&who) {
            return place.add(slice, more);
        }
        let mut place = Place::default();
        if places.len() >= PLACES {
            let lightest = places.iter_mut().map(|(who, place)| (place.weight(slice), who));
            if let Some((weight, who)) = lightest.min_by_key(|(weight, _)| *weight) {
                let who = who.clone();
                places.remove(&who);
                (place.inherited, place.weighed) = ((slice, weight), (slice, weight));
            }
        }
        place.add(slice, more);
        places.insert(who, place);
    }

    /// The heaviest, at most `most`, heaviest first.
    pub fn heaviest(&self, most: usize, now: Nanos) -> Vec<Heavy> {
        let slice = now.0 / SLICE_NANOS;
        let mut all: Vec<Heavy> = {
            let places = self.places.lock();
            let had = places.iter().map(|(who, place)| Heavy {
                client: who.to_string(),
                named: matches!(who, Who::Named(_)),
                had: place.had(slice),
            });
            had.filter(|heavy| heavy.had != Had::default()).collect()
        };
        all.sort_by(|a, b| b.had.weight().cmp(&a.had.weight()).then_with(|| a.client.cmp(&b.client)));
        all.truncate(most);
        all
    }

    /// Stands for a client and its class of endpoint, until this process ends.
    pub(crate) fn digest(&self, head: &HeadFacts) -> u64 {
        let name = head.client.as_ref().map(|client| client.name.as_str());
        match name {
            Some(name) => self.key.hash_one((head.endpoint, name)),
            None => self.key.hash_one((head.endpoint, network(head.client_ip))),
        }
    }

    fn who(&self, head: &HeadFacts) -> Who {
        match &head.client {
            Some(client) => Who::Named(client.name.as_str().into()),
            None => Who::Address(self.key.hash_one(network(head.client_ip))),
        }
    }
}

/// What one client has had, slice by slice.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    slices: [(u64, Had); SLICES],
    /// In which slice it took another's place, and what that one weighed.
    inherited: (u64, u64),
    /// In which slice it was weighed last, and what it weighs since: only its own requests and time change that.
    weighed: (u64, u64),
}

impl Place {
    fn add(&mut self, slice: u64, had: &Had) {
        let at = usize::try_from(slice).unwrap_or_default() % SLICES;
        let Some((whose, sum)) = self.slices.get_mut(at) else { return };
        if *whose != slice {
            (*whose, *sum) = (slice, Had::default());
        }
        sum.add(had);
        if self.weighed.0 == slice {
            self.weighed.1 = self.weighed.1.saturating_add(had.weight());
        }
    }

    fn had(&self, slice: u64) -> Had {
        let mut sum = Had::default();
        self.slices.iter().filter(|(whose, _)| counts(*whose, slice)).for_each(|(_, had)| sum.add(had));
        sum
    }

    fn weight(&mut self, slice: u64) -> u64 {
        if self.weighed.0 != slice {
            let (whose, inherited) = self.inherited;
            let inherited = if counts(whose, slice) { inherited } else { 0 };
            self.weighed = (slice, self.had(slice).weight().saturating_add(inherited));
        }
        self.weighed.1
    }
}

/// Whether a slice is still looked at in another one.
fn counts(whose: u64, now: u64) -> bool {
    whose <= now && now - whose < SLICES as u64
}

#[cfg(test)]
mod tests {
    use corral_limiter::KnownClient;
    use corral_wire::EndpointClass;

    use super::*;

    fn from(ip: &str) -> HeadFacts {
        HeadFacts::new(ip.parse().unwrap(), EndpointClass::Chat, "/api/chat")
    }

    fn named(name: &str) -> HeadFacts {
        let client = KnownClient { name: name.to_owned(), tier: None };
        HeadFacts { client: Some(Arc::new(client)), ..from("10.0.0.1") }
    }

    fn had(slot_ms: u64) -> Had {
        Had { requests: 1, slot_ms, input_tokens: 3, output_tokens: 5, refused: 0 }
    }

    #[test]
    fn the_heaviest_come_first_by_name_or_by_a_digest_that_is_no_address() {
        let clients = Clients::default();
        for (head, slot_ms) in
            [(from("192.0.2.77"), 900), (named("ann"), 2000), (named("ann"), 1), (named("bob"), 30)]
        {
            clients.count(&head, &had(slot_ms), Nanos::from_secs(1));
        }
        let told = clients.heaviest(9, Nanos::from_secs(2));
        let names: Vec<&str> = told.iter().map(|heavy| heavy.client.as_str()).collect();
        let [ann, address, bob] = names[..] else { panic!("{told:?}") };
        assert_eq!((ann, bob), ("ann", "bob"));
        assert!(address.len() == 8 && address.bytes().all(|b| b.is_ascii_hexdigit()), "{address}");
        assert_eq!(
            told[0].had,
            Had { requests: 2, refused: 0, input_tokens: 6, output_tokens: 10, slot_ms: 2001 }
        );
        assert_eq!(clients.heaviest(1, Nanos::from_secs(2)).len(), 1);
    }

    #[test]
    fn addresses_of_one_subscriber_are_one_client_and_an_api_key_is_another() {
        let clients = Clients::default();
        for head in [from("2001:db8::1"), from("2001:db8::ffff:1"), from("2001:db8:0:1::1"), named("ann")] {
            clients.count(&head, &had(1), Nanos::ZERO);
        }
        clients.count(&from("::ffff:10.0.0.1"), &had(1), Nanos::ZERO);
        clients.count(&from("10.0.0.1"), &had(1), Nanos::ZERO);
        let mut requests: Vec<u64> =
            clients.heaviest(9, Nanos::ZERO).iter().map(|heavy| heavy.had.requests).collect();
        requests.sort_unstable();
        assert_eq!(requests, [1, 1, 2, 2]);
    }

    #[test]
    fn what_is_older_than_the_span_is_forgotten() {
        let clients = Clients::default();
        clients.count(&named("ann"), &had(10), Nanos::from_secs(1));
        clients.count(&named("ann"), &had(20), Nanos::from_secs(200));
        let slot_ms = |at| clients.heaviest(1, Nanos::from_secs(at)).first().map(|heavy| heavy.had.slot_ms);
        assert_eq!(slot_ms(299), Some(30));
        assert_eq!(slot_ms(301), Some(20));
        assert_eq!(slot_ms(500), None);
    }

    #[test]
    fn a_crowd_of_others_never_pushes_a_heavy_client_out() {
        let clients = Clients::default();
        let crowd = |number: u32| from(&std::net::Ipv4Addr::from(number).to_string());
        for number in 0..20_000u32 {
            if number % 50 == 0 {
                clients.count(&named("ann"), &had(100), Nanos::from_secs(1));
            }
            clients.count(&crowd(number), &had(0), Nanos::from_secs(1));
        }
        assert_eq!(clients.places.lock().len(), PLACES);
        let first = &clients.heaviest(1, Nanos::from_secs(1))[0];
        assert_eq!((first.client.as_str(), first.had.requests), ("ann", 400));
    }
}
