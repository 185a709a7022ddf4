//! What the leading operator tells an activator beside its [`crate::Directive`], and what the activator answers.
//!
//! Both are snapshots: a missed one loses nothing. An answer may be kept back until there is something to hear, so that
//! the first request that is held asks for a pod at once, though an activator may call nobody.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{PoolRef, Purpose};

/// The most pods that a [`Duty`] names. A pool with more is long out of the activator's hands.
pub const MAX_BACKENDS: usize = 64;
/// The most bytes of a signed [`Duty`], and of a signed [`Holding`].
pub const MAX_DUTY_BYTES: usize = 64 * 1024;
/// How long a pod of [`Duty::backends`] can be had, from when the activator hears of it or the pod itself last answered:
/// after it an address may be another pod's.
pub const DUTY_LEASE: Duration = Duration::from_mins(1);
/// The longest that an answer is kept back, whatever [`Duty::patience_ms`] says.
pub const MAX_PATIENCE: Duration = Duration::from_secs(25);

/// What a connection of a client takes at most, in the middle of a long head; in bytes.
pub const BYTES_PER_CONNECTION: u64 = 96 << 10;
/// What a request takes that is held, beside its connection and its body: its head, as it came and as it is handed on.
pub const BYTES_PER_HELD: u64 = 48 << 10;
/// The most bytes of the bodies that only pass.
pub const PASSING_BYTES: u64 = 64 << 20;
/// For the process itself.
const PROCESS_BYTES: u64 = 32 << 20;
/// Connections beside those of what is held: of what passes, and of those that ask for nothing yet.
const SPARE_CONNECTIONS: u64 = 1000;

/// The memory that an activator needs, in bytes: bodies twice, for as much is read at one time as may wait.
pub fn memory_bytes(max_held_requests: u32, max_held_bytes: u64) -> u64 {
    without_connections(max_held_requests, max_held_bytes)
        .saturating_add((u64::from(max_held_requests) + SPARE_CONNECTIONS) * BYTES_PER_CONNECTION)
}

/// The most connections of an activator with so much memory; none says how much: as many as it is meant to have. With
/// too little memory for what it is to hold it has fewer, but always 16.
pub fn most_connections(max_held_requests: u32, max_held_bytes: u64, memory: Option<u64>) -> u64 {
    let wanted = u64::from(max_held_requests) + SPARE_CONNECTIONS;
    let rest = without_connections(max_held_requests, max_held_bytes);
    let fit = memory.map_or(wanted, |memory| memory.saturating_sub(rest) / BYTES_PER_CONNECTION);
    wanted.min(fit).max(16)
}

fn without_connections(max_held_requests: u32, max_held_bytes: u64) -> u64 {
    let heads = u64::from(max_held_requests) * BYTES_PER_HELD;
    (PROCESS_BYTES + PASSING_BYTES + heads).saturating_add(max_held_bytes.saturating_mul(2))
}

/// What the leading operator tells one activator. The position that orders it is in its envelope; its sequence is one of
/// its own, not that of directives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Duty {
    /// The pool it is told for: an activator of another pool refuses it.
    pub pool: PoolRef,
    /// The pods that are ready, those with most free slots first; at most [`MAX_BACKENDS`], for [`DUTY_LEASE`] each since
    /// this or since the pod last answered in its own name.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// How long until a pod will probably be ready, in milliseconds, from when this is heard; an estimate. 0: not known.
    #[serde(default)]
    pub start_left_ms: u64,
    /// How long the answer may be kept back, in milliseconds; at most [`MAX_PATIENCE`] is. 0: not at all.
    #[serde(default)]
    pub patience_ms: u64,
    /// It is kept back only while no more than so many requests are held.
    #[serde(default)]
    pub wake_above: u32,
    /// No pod is asked for, and nobody asks for one because of what is held: while no pod is named, what is held is answered,
    /// and nothing more is held.
    #[serde(default)]
    pub stopped: bool,
}

/// One pod that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Its UID: who speaks for a client says to which pod.
    pub uid: String,
    /// Where its clients connect.
    pub address: SocketAddr,
    /// Its slots, at least 1: so many requests of an activator may be in it while others wait.
    pub slots: u32,
    /// How many of them were free when it last said so.
    pub free: u32,
}

/// What an activator answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// The pool it belongs to.
    pub pool: PoolRef,
    /// Marks one life of the process: what is counted starts at 0 when it changes.
    pub epoch: u64,
    /// Inference requests that have come, those included that were refused for want of room, but not what one client sent
    /// beyond its share. The pod that one goes to counts it too, when it arrives there.
    pub arrivals: u64,
    /// Requests refused because there was no room to hold them, or held for as long as any may be.
    pub refused: u64,
    /// Requests held now.
    pub requests: u32,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// How long the oldest of them has been held, in milliseconds; 0 when none is.
    pub oldest_wait_ms: u64,
    /// Requests handed on to pods whose answers are not over.
    pub forwarding: u32,
    /// Pods that requests may be handed on to now.
    pub ready_pods: u32,
}

impl Purpose for Duty {
    const DOMAIN: &'static str = "corral.dev/v1/duty";
}

impl Purpose for Holding {
    const DOMAIN: &'static str = "corral.dev/v1/holding";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_an_activator_may_hold_has_room_in_its_memory() {
        for (requests, bytes) in
            [(1, 1 << 20), (1000, 64 << 20), (1000, 1 << 20), (10_000, 64 << 20), (100_000, 1 << 32)]
        {
            let memory = memory_bytes(requests, bytes);
            let connections = most_connections(requests, bytes, Some(memory));
            assert_eq!(connections, u64::from(requests) + 1000, "each that is held has one");
            let taken = connections * BYTES_PER_CONNECTION
                + u64::from(requests) * BYTES_PER_HELD
                + 2 * bytes
                + PASSING_BYTES;
            assert!(taken + (16 << 20) <= memory, "{requests} {bytes}: {taken} of {memory}");
        }
        assert_eq!(most_connections(1000, 64 << 20, None), 2000);
        assert_eq!(most_connections(1000, 64 << 20, Some(1 << 20)), 16);
        assert!(most_connections(1000, 64 << 20, Some(324 << 20)) < 1000, "it would be killed with more");
    }
    use crate::{PoolKeys, Position};

    #[test]
    fn the_longest_duty_fits_its_bound() {
        let backend = Backend {
            uid: "f".repeat(36),
            address: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(),
            slots: u32::MAX,
            free: u32::MAX,
        };
        let duty = Duty {
            pool: PoolRef { namespace: "n".repeat(63), name: "p".repeat(40) },
            backends: vec![backend; MAX_BACKENDS],
            start_left_ms: u64::MAX,
            patience_ms: u64::MAX,
            wake_above: u32::MAX,
            stopped: true,
        };
        let keys = PoolKeys::new(vec![vec![1; 32]]).unwrap();
        let signed = keys.sign("f", Position { term: u64::MAX, sequence: u64::MAX }, &duty).unwrap();
        assert!(serde_json::to_vec(&signed).unwrap().len() < MAX_DUTY_BYTES);
        assert_eq!(keys.open::<Duty>("f", None, &signed), Ok(duty));
    }

    #[test]
    fn what_a_newer_operator_says_beside_is_left_alone() {
        let text = r#"{"pool":{"namespace":"llm","name":"chat"},"later":1}"#;
        let duty: Duty = serde_json::from_str(text).unwrap();
        assert_eq!((duty.backends, duty.start_left_ms, duty.patience_ms, duty.wake_above), (vec![], 0, 0, 0));
        assert!(!duty.stopped, "nor does one that is older stop a pool");
    }
}
