//! Who may be out of the Service for its load, so that at no time too many are.
//!
//! ⌊pods / 3⌋ of a pool's pods that are not terminating, less those that are away for another reason: a pool of one or
//! two never. Who is out stays as long as that allows; then come those who want it, longest first. Nobody gets it while
//! at least half of the others are loaded as much: then there is nowhere for the load to go, and refusals and more pods
//! are what helps. When fewer than half of the pods are ready, nobody may be out.
//!
//! What a pod was permitted it is held to have, from the moment the message is made until it has answered one that
//! said otherwise, or the lease and the longest call are over. A pod that does not answer is away, so that a late
//! message which it obeys all the same finds it counted. Pure: time and facts are handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corral_wire::Relief;
use corral_wire::exchange::RELIEF_LEASE;

use super::divisor::LISTEN_FIRST;
use super::transport::DEADLINE;

/// Of how many pods one may be out for its load.
const ONE_OF: usize = 3;

/// What is known about one pod that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLoad {
    /// Its UID.
    pub uid: String,
    /// It is being deleted: it is not counted, and gets nothing.
    pub terminating: bool,
    /// It is silent, was never heard, drains, or is not ready for another reason than its load.
    pub away: bool,
    /// How it stands to being out, by its last word.
    pub relief: Relief,
    /// Its load index is at least 1.
    pub loaded: bool,
}

/// What a pod was permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grant {
    since: Duration,
    /// When the last message that permits it was made.
    said: Duration,
}

/// The permissions of one pool.
#[derive(Debug, Default)]
pub struct Permits {
    /// Who may be out now.
    permitted: BTreeSet<String>,
    /// Who may be out, or may still believe so.
    grants: BTreeMap<String, Grant>,
    /// Since when each wants it.
    wanting: BTreeMap<String, Duration>,
}

impl Permits {
    /// Takes one step, and names who may be out. `led_for` is how long this leader leads.
    pub fn step(&mut self, now: Duration, led_for: Duration, pods: &[PodLoad]) -> &BTreeSet<String> {
        self.forget(now, pods);
        let room = if led_for < LISTEN_FIRST { 0 } else { room(pods) };
        self.permitted = self.keepers(pods, room);
        if let Some(uid) = self.next(pods, room) {
            self.grants.insert(uid.clone(), Grant { since: now, said: now });
            self.permitted.insert(uid);
        }
        &self.permitted
    }

    /// Whether a pod may be out.
    pub fn permits(&self, uid: &str) -> bool {
        self.permitted.contains(uid)
    }

    /// Whether a pod may be out, or may still believe so.
    pub fn holds(&self, uid: &str) -> bool {
        self.grants.contains_key(uid)
    }

    /// A message that permits it is made for a pod, or has been answered by it.
    pub fn said(&mut self, uid: &str, now: Duration) {
        let grant = self.grants.entry(uid.to_owned()).or_insert(Grant { since: now, said: now });
        grant.said = now;
    }

    /// A pod has obeyed a message that does not permit it.
    pub fn taken_back(&mut self, uid: &str) {
        if !self.permits(uid) {
            self.grants.remove(uid);
        }
    }

    fn forget(&mut self, now: Duration, pods: &[PodLoad]) {
        let exists = |uid: &String| pods.iter().any(|pod| pod.uid == *uid);
        let over = RELIEF_LEASE.saturating_add(DEADLINE);
        self.grants.retain(|uid, grant| exists(uid) && now.saturating_sub(grant.said) <= over);
        let wants = |uid: &String| pods.iter().any(|pod| pod.uid == *uid && pod.relief == Relief::Wanted);
        self.wanting.retain(|uid, _| wants(uid));
        for pod in pods.iter().filter(|pod| pod.relief == Relief::Wanted) {
            self.wanting.entry(pod.uid.clone()).or_insert(now);
        }
    }

    /// Those who may be out already, and need it still, as far as there is room; the longest first.
    fn keepers(&self, pods: &[PodLoad], room: usize) -> BTreeSet<String> {
        let needs = |pod: &&PodLoad| {
            !pod.terminating && !pod.away && pod.relief != Relief::Unneeded && self.permits(&pod.uid)
        };
        let mut holders: Vec<(Duration, &str)> = pods
            .iter()
            .filter(needs)
            .filter_map(|pod| Some((self.grants.get(&pod.uid)?.since, pod.uid.as_str())))
            .collect();
        holders.sort_unstable();
        holders.iter().take(room).map(|(_, uid)| (*uid).to_owned()).collect()
    }

    /// Who gets it next, if there is room beside all who may still believe that they have it. One at
    /// a time: each step follows the one before within half a second.
    fn next(&self, pods: &[PodLoad], room: usize) -> Option<String> {
        if self.held(pods) >= room {
            return None;
        }
        let asks = |pod: &&PodLoad| !pod.terminating && !pod.away && !self.grants.contains_key(&pod.uid);
        let asking = pods.iter().filter(asks);
        // Nearly nobody wants it, and whoever does looks at all others.
        let wanting = asking.filter_map(|pod| Some((*self.wanting.get(&pod.uid)?, pod)));
        let since = wanting.filter(|(_, pod)| others_can_take_over(pods, pod));
        since.map(|(since, pod)| (since, pod.uid.as_str())).min().map(|(_, uid)| uid.to_owned())
    }

    /// Grants that count: a pod that is away is counted as that, and one that terminates is not counted.
    fn held(&self, pods: &[PodLoad]) -> usize {
        let counts = |pod: &&PodLoad| !pod.terminating && !pod.away && self.grants.contains_key(&pod.uid);
        pods.iter().filter(counts).count()
    }
}

/// How many may be out for their load.
fn room(pods: &[PodLoad]) -> usize {
    let staying = || pods.iter().filter(|pod| !pod.terminating);
    let total = staying().count();
    let away = staying().filter(|pod| pod.away).count();
    let ready = staying().filter(|pod| !pod.away && pod.relief != Relief::Taken).count();
    if ready.saturating_mul(2) < total {
        return 0;
    }
    (total / ONE_OF).saturating_sub(away)
}

fn others_can_take_over(pods: &[PodLoad], asking: &PodLoad) -> bool {
    let others = || pods.iter().filter(|pod| !pod.terminating && pod.uid != asking.uid);
    let loaded = others().filter(|pod| pod.loaded || pod.relief != Relief::Unneeded).count();
    loaded.saturating_mul(2) < others().count()
}

#[cfg(test)]
#[path = "relief_tests.rs"]
mod tests;
