//! What a refusal says: every limit that was exceeded, and when to come back.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use crate::{LimitInfo, Nanos};

/// What a bucket counts, or a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Requests over time.
    Requests,
    /// Tokens of prompts and answers over time.
    Tokens,
    /// Tokens of prompts over time.
    InputTokens,
    /// Tokens of answers over time.
    OutputTokens,
    /// Seconds for which slots are held, over time; counted in milliseconds.
    SlotSeconds,
    /// Requests at one time.
    Concurrency,
    /// Requests that wait for a slot at one time.
    Queued,
    /// Prompt tokens of requests that wait for a slot at one time.
    QueuedTokens,
}

impl Unit {
    /// As headers, metrics and messages name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "inputTokens",
            Self::OutputTokens => "outputTokens",
            Self::SlotSeconds => "slotSeconds",
            Self::Concurrency => "concurrency",
            Self::Queued => "queued",
            Self::QueuedTokens => "queuedTokens",
        }
    }

    /// Whether it counts over time, not at one time.
    pub const fn is_over_time(self) -> bool {
        !matches!(self, Self::Concurrency | Self::Queued | Self::QueuedTokens)
    }

    /// How many permits of a bucket one of the unit is: 1000 for slot seconds, else 1.
    pub const fn permits(self) -> u64 {
        if matches!(self, Self::SlotSeconds) { 1000 } else { 1 }
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
