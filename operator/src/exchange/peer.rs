//! Whom a pool's plan is told to: its pods, and the activators that stand in for them. Pure.
//!
//! To the plan all peers are alike: each is told it, says whether it is in force there, and counts for `Programmed`.
//! Everything else is between a pool and its pods alone, and goes by `Peers::pods`: D and the permission to serve, leave to
//! be out for their load, the order to retire, and the load that the pool is sized by. An activator has no part in any of
//! that, whatever it reports; what it holds it tells elsewhere ([`crate::activation`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use corral_wire::{PlanState, Position, Report};

use super::draining;

/// After this long without a word a peer is called silent.
pub const SILENCE: Duration = Duration::from_secs(10);

/// What a peer is to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It serves, and has a share of every limit and of the work.
    Pod,
    /// It stands in while no pod serves: it goes by the plan, and has a share of nothing.
    Activator,
}

/// What Kubernetes knows about a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSight {
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// What it is to its pool.
    pub role: Role,
    /// Where it is reached; none before it has an address or while its sidecar does not run.
    pub ip: Option<IpAddr>,
    /// Kubernetes calls it ready.
    pub ready: bool,
    /// It is being deleted.
    pub terminating: bool,
}

impl PodSight {
    /// Whether new traffic may be brought to it.
    pub fn takes_traffic(&self) -> bool {
        self.ready && !self.terminating && self.ip.is_some()
    }
}

/// One that the plan is told to.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) sight: PodSight,
    first_seen: Duration,
    sent: u64,
    /// The last message, and whether it permits the pod to be out for its load.
    pub(super) last_said: Option<(Position, bool)>,
    heard: Option<Heard>,
    /// The least D that may be in force: a call without an answer may have been obeyed.
    pub(super) least_divisor: Option<u32>,
    /// When its drain ends at the latest.
    pub(super) drained_by: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Heard {
    pub(super) at: Duration,
    pub(super) report: Report,
}

impl Peer {
    fn new(sight: PodSight, now: Duration) -> Self {
        Self {
            sight,
            first_seen: now,
            sent: 0,
            last_said: None,
            heard: None,
            least_divisor: None,
            drained_by: None,
        }
    }

    /// The place of its next message.
    pub(super) fn next(&mut self, term: u64) -> Position {
        self.sent = self.sent.saturating_add(1);
        Position { term, sequence: self.sent }
    }

    /// Takes what it says.
    pub(super) fn hear(&mut self, now: Duration, report: Report) {
        self.least_divisor = Some(report.divisor);
        self.drained_by = draining::until(self.drained_by, now, &report);
        self.heard = Some(Heard { at: now, report });
    }

    /// What it last said, and when.
    pub(super) fn heard(&self) -> Option<&Heard> {
        self.heard.as_ref()
    }

    /// What it last said.
    pub(super) fn report(&self) -> Option<&Report> {
        self.heard.as_ref().map(|heard| &heard.report)
    }

    /// The same, unless that is long ago.
    pub(super) fn fresh(&self, now: Duration) -> Option<&Report> {
        self.heard.as_ref().filter(|heard| !is_silent(now, heard.at)).map(|heard| &heard.report)
    }

    /// Whether nothing was heard of it for long, since its sidecar began to run.
    pub(super) fn is_silent(&self, now: Duration) -> bool {
        is_silent(now, self.heard.as_ref().map_or(self.first_seen, |heard| heard.at))
    }
}

/// The peers of one pool, by their UIDs.
#[derive(Debug, Default)]
pub(super) struct Peers {
    all: BTreeMap<String, Peer>,
}

impl Peers {
    /// Takes those that exist now; whether they changed.
    pub(super) fn take(&mut self, now: Duration, sights: Vec<PodSight>) -> bool {
        let before: Vec<PodSight> = self.all.values().map(|peer| peer.sight.clone()).collect();
        self.all.retain(|uid, _| sights.iter().any(|sight| sight.uid == *uid));
        for sight in sights {
            let peer = self.all.entry(sight.uid.clone()).or_insert_with(|| Peer::new(sight.clone(), now));
            // Silence counts from when its sidecar began to run.
            if peer.sight.ip.is_none() && sight.ip.is_some() {
                peer.first_seen = now;
            }
            peer.sight = sight;
        }
        !before.iter().eq(self.all.values().map(|peer| &peer.sight))
    }

    /// Messages are numbered anew, in another term.
    pub(super) fn begin_term(&mut self) {
        self.all.values_mut().for_each(|peer| peer.sent = 0);
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Peer> {
        self.all.get(uid)
    }

    pub(super) fn get_mut(&mut self, uid: &str) -> Option<&mut Peer> {
        self.all.get_mut(uid)
    }

    /// Those that serve, or will.
    pub(super) fn pods(&self) -> impl Iterator<Item = &Peer> {
        self.all.values().filter(|peer| peer.sight.role == Role::Pod)
    }

    /// Those that can be called, whatever they are.
    pub(super) fn reachable(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.all.values().filter_map(|peer| Some((peer.sight.uid.as_str(), peer.sight.ip?)))
    }

    /// The plans that they said are in force.
    pub(super) fn plans(&self) -> impl Iterator<Item = &PlanState> {
        self.all.values().filter_map(|peer| peer.report()?.plan.as_ref())
    }

    /// Those that run, whatever they are.
    pub(super) fn running(&self) -> impl Iterator<Item = &Peer> {
        self.all.values().filter(|peer| peer.sight.ip.is_some())
    }
}

fn is_silent(now: Duration, last_word: Duration) -> bool {
    now.saturating_sub(last_word) >= SILENCE
}
