//! Whom a request comes from by the word of an activator: see [`corral_wire::forwarded`].
//!
//! What is believed takes the place of the TCP peer, and nothing else: trusted proxies, keys and limits are judged here as
//! ever. What is not believed leaves in doubt who has sent the request, so it is refused like any head in doubt. It is not
//! passed over: all clients of an activator whose clock is wrong would be one.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use corral_wire::forwarded::{FORWARDED_HEADER, FORWARDED_LIFETIME};
use corral_wire::{Forwarded, PoolKeys, RequestLine};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;

use super::head::HeadFault;

/// The header; of clients it is refused.
pub(crate) const VOUCHED: HeaderName = HeaderName::from_static(FORWARDED_HEADER);

/// The most numbers remembered of each half: 512 KiB. Where more come within a minute the oldest are forgotten early.
const MAX_NONCES: usize = 32 * 1024;

/// Who this pod is, the keys by which it believes, and what it has believed already. Without keys it believes nobody.
#[derive(Debug, Default)]
pub struct Vouchers {
    pod_uid: OnceLock<String>,
    keys: ArcSwapOption<PoolKeys>,
    seen: Mutex<Seen>,
}

impl Vouchers {
    /// Says which pod this is, once.
    pub fn for_pod(&self, uid: &str) {
        let _ = self.pod_uid.set(uid.to_owned());
    }

    /// From now on these keys.
    pub fn take_keys(&self, keys: &PoolKeys) {
        self.keys.store(Some(Arc::new(keys.clone())));
    }

    /// The client that an activator has sent this request for; none where nobody says so.
    pub(crate) fn client(&self, request: &Parts, now_unix_ms: u64) -> Result<Option<IpAddr>, HeadFault> {
        let mut lines = request.headers.get_all(&VOUCHED).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Ok(None),
            (Some(line), None) => {
                self.believe(line, request, now_unix_ms).map(Some).ok_or(HeadFault::Vouched)
            }
            (Some(_), Some(_)) => Err(HeadFault::Vouched),
        }
    }

    fn believe(&self, line: &HeaderValue, request: &Parts, now_unix_ms: u64) -> Option<IpAddr> {
        let (keys, uid) = (self.keys.load_full()?, self.pod_uid.get()?);
        let target = request.uri.path_and_query()?.as_str();
        let said = RequestLine { method: request.method.as_str(), target };
        let opened = Forwarded::open(line.to_str().ok()?, &keys, uid, said, now_unix_ms);
        let told =
            opened.inspect_err(|why| tracing::debug!(%why, "nobody is believed to speak for a client"));
        let Forwarded { client, nonce, .. } = told.ok()?;
        self.seen.lock().is_new(nonce, now_unix_ms).then_some(client)
    }

    /// Signs for a client, as an activator does; none without keys.
    pub(crate) fn vouch(
        &self,
        said: &Forwarded,
        pod_uid: &str,
        request: RequestLine<'_>,
    ) -> Option<HeaderValue> {
        let value = said.sign(self.keys.load().as_deref()?, pod_uid, request)?;
        HeaderValue::try_from(value).ok()
    }
}

/// The numbers that were used, in two halves: the older one is forgotten as a whole.
#[derive(Debug, Default)]
struct Seen {
    newer: HashSet<u128>,
    older: HashSet<u128>,
    /// When the newer half was begun.
    begun_unix_ms: u64,
}

impl Seen {
    fn is_new(&mut self, nonce: u128, now_unix_ms: u64) -> bool {
        // One signed by a clock that is ahead is believed for twice as long.
        let lifetime = 2 * u64::try_from(FORWARDED_LIFETIME.as_millis()).unwrap_or(u64::MAX / 2);
        let is_old = now_unix_ms.abs_diff(self.begun_unix_ms) > lifetime;
        if is_old || self.newer.len() >= MAX_NONCES {
            self.older = std::mem::take(&mut self.newer);
            self.begun_unix_ms = now_unix_ms;
        }
        !self.older.contains(&nonce) && self.newer.insert(nonce)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn pod() -> Vouchers {
        let pod = Vouchers::default();
        pod.for_pod("pod-a");
        pod.take_keys(&PoolKeys::new(vec![vec![1; 32]]).unwrap());
        pod
    }

    fn request(pod: &Vouchers, nonce: u128) -> Parts {
        let said = Forwarded { client: "10.1.2.3".parse().unwrap(), at_unix_ms: NOW, nonce };
        let line = RequestLine { method: "POST", target: "/v1/messages?beta=true" };
        let value = pod.vouch(&said, "pod-a", line).unwrap();
        let request = Request::post("/v1/messages?beta=true").header(VOUCHED, value);
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn an_activator_is_believed_once_for_each_request() {
        let pod = pod();
        let sent = request(&pod, 7);
        assert_eq!(pod.client(&sent, NOW), Ok("10.1.2.3".parse().ok()));
        assert_eq!(pod.client(&sent, NOW), Err(HeadFault::Vouched), "a copy of it");
        assert!(pod.client(&request(&pod, 8), NOW).is_ok());
    }

    #[test]
    fn nobody_is_believed_without_keys_with_a_wrong_clock_or_with_two_lines() {
        let (pod, stranger) = (pod(), Vouchers::default());
        let mut sent = request(&pod, 7);
        assert_eq!(stranger.client(&sent, NOW), Err(HeadFault::Vouched));
        assert_eq!(pod.client(&sent, NOW + 31_000), Err(HeadFault::Vouched));
        let again = sent.headers[VOUCHED].clone();
        sent.headers.append(VOUCHED, again);
        assert_eq!(pod.client(&sent, NOW), Err(HeadFault::Vouched));
        let plain = Request::get("/").body(()).unwrap().into_parts().0;
        assert_eq!(pod.client(&plain, NOW), Ok(None), "nobody speaks for anybody");
        let forged = Request::get("/").header(VOUCHED, "10.0.0.1").body(()).unwrap().into_parts().0;
        assert_eq!(pod.client(&forged, NOW), Err(HeadFault::Vouched));
    }

    #[test]
    fn a_number_is_remembered_for_as_long_as_it_could_be_believed_and_memory_is_bounded() {
        let mut seen = Seen::default();
        assert!(seen.is_new(1, NOW) && !seen.is_new(1, NOW + 59_000));
        assert!(seen.is_new(2, NOW + 61_000) && !seen.is_new(1, NOW + 61_000));
        for nonce in 10..200_000 {
            seen.is_new(nonce, NOW + 61_000);
        }
        assert!(seen.newer.len() + seen.older.len() <= 2 * MAX_NONCES);
    }
}
