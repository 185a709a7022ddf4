//! What a refusal says: every limit that was exceeded, and when to come back.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use crate::{LimitInfo, Nanos};

/// What a bucket counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Requests over time.
    Requests,
    /// Requests at one time.
    Concurrency,
}

impl Unit {
    /// As headers, metrics and messages name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Concurrency => "concurrency",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request may not go on. It has consumed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Every limit exceeded, in the order of their identities; at least one.
    pub violations: SmallVec<[Violation; 2]>,
    /// When to come back.
    pub retry: Retry,
}

/// One exceeded limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub limit: Arc<LimitInfo>,
    /// Of what it has too much.
    pub unit: Unit,
    /// How much of `allowed` is used now, on this pod; rounded up.
    pub used: u64,
    /// The most that this pod lets be used at one time: the burst, or the concurrency.
    pub allowed: u64,
    /// Until this limit alone would admit the same request; for concurrency an estimate.
    pub wait: Nanos,
}

/// When the same request is worth sending again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How long from now. Never too short unless `estimate`.
    pub wait: Nanos,
    /// The wait is a guess: it hangs on other requests coming to their end.
    pub estimate: bool,
    /// An exceeded bucket is shared between clients: whoever answers should add jitter.
    pub shared: bool,
    /// An exceeded limit is this pod's share of the pool's: `Connection: close` lets the next try meet another pod.
    pub split: bool,
}
