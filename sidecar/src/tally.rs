//! What is counted of requests for the operator: see [`Counters`] for what is in which count.

use std::sync::atomic::{AtomicU64, Ordering};

use corral_limiter::queue::Shed;
use corral_limiter::{CommitError, Nanos, Usage};
use corral_wire::{Counters, EndpointClass};

/// The counts; each only grows.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    arrivals: AtomicU64,
    retries: AtomicU64,
    completions: AtomicU64,
    capacity_rejects: AtomicU64,
    policy_rejects: AtomicU64,
    slot_nanos: AtomicU64,
    releases: AtomicU64,
    tokens_in: AtomicU64,
    tokens_out: AtomicU64,
    looks: AtomicU64,
    upstream_busy: AtomicU64,
}

impl Tally {
    /// A limit has refused a request by its head alone.
    pub(crate) fn turned_away(&self, class: EndpointClass) {
        if class != EndpointClass::Metadata {
            add(&self.arrivals, 1);
            self.policy_rejected();
        }
    }

    /// Limits and queue have decided about a request for inference.
    pub(crate) fn decided<T>(&self, decided: &Result<T, CommitError<Shed>>, is_retry: bool) {
        add(&self.arrivals, 1);
        if matches!(decided, Err(CommitError::Refused(_) | CommitError::Oversized(_))) {
            return self.policy_rejected();
        }
        add(&self.retries, u64::from(is_retry));
        if matches!(decided, Err(CommitError::Arrival(_))) {
            self.capacity_rejected();
        }
    }

    /// A request that is no work and that an activator would hold.
    pub(crate) fn looked(&self) {
        add(&self.looks, 1);
    }

    /// A request for inference comes to an activator, which lets it in or has no room for it.
    pub(crate) fn arrived(&self) {
        add(&self.arrivals, 1);
    }

    /// Ollama has answered a request for inference in full, with success.
    pub(crate) fn completed(&self) {
        add(&self.completions, 1);
    }

    /// The queue refuses a request, that has arrived.
    pub(crate) fn capacity_rejected(&self) {
        add(&self.capacity_rejects, 1);
    }

    /// A limit refuses a request, that has arrived.
    pub(crate) fn policy_rejected(&self) {
        add(&self.policy_rejects, 1);
    }

    /// Ollama had no room for a request.
    pub(crate) fn upstream_busy(&self) {
        add(&self.upstream_busy, 1);
    }

    /// A slot came back after being held this long.
    pub(crate) fn slot_held(&self, held: Nanos) {
        add(&self.slot_nanos, held.0);
    }

    /// A request has ended that had a slot.
    pub(crate) fn released(&self) {
        add(&self.releases, 1);
    }

    /// A request was charged these tokens.
    pub(crate) fn spent(&self, cost: Usage) {
        add(&self.tokens_in, cost.input);
        add(&self.tokens_out, cost.output);
    }

    /// How often Ollama had no room.
    pub(crate) fn times_busy(&self) -> u64 {
        read(&self.upstream_busy)
    }

    /// How many requests the queue has refused.
    pub(crate) fn capacity_rejects(&self) -> u64 {
        read(&self.capacity_rejects)
    }

    /// All that is reported. Arrivals are read last: there is none less of them than of what became of them.
    pub(crate) fn read(&self) -> Counters {
        let rest = Counters {
            arrivals: 0,
            retries: read(&self.retries),
            completions: read(&self.completions),
            capacity_rejects: read(&self.capacity_rejects),
            policy_rejects: read(&self.policy_rejects),
            releases: read(&self.releases),
            slot_millis: read(&self.slot_nanos) / 1_000_000,
            tokens_in: read(&self.tokens_in),
            tokens_out: read(&self.tokens_out),
            looks: read(&self.looks),
        };
        Counters { arrivals: read(&self.arrivals), ..rest }
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
