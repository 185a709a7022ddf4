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
    /// Every unit, in order.
    pub const ALL: [Self; 8] = [
        Self::Requests,
        Self::Tokens,
        Self::InputTokens,
        Self::OutputTokens,
        Self::SlotSeconds,
        Self::Concurrency,
        Self::Queued,
        Self::QueuedTokens,
    ];

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

    /// Permits as the unit that they are permits of, rounded up.
    pub(crate) const fn of_permits(self, permits: u64) -> u64 {
        permits.div_ceil(self.permits())
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
    pub violations: SmallVec<[Violation; 1]>,
    /// When to come back.
    pub retry: Retry,
}

/// Why a request will never be admitted, whenever it comes again: one part of it is more than a limit lets through at
/// one time. It has consumed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Rate limit {:?} lets one request use at most {most} {unit}; this one may use {asked}.", .limit.name)]
pub struct Oversized {
    /// The limit that says so.
    pub limit: Arc<LimitInfo>,
    /// Of what.
    pub unit: Unit,
    /// What the request would use, as estimated.
    pub asked: u64,
    /// The most that the policy lets a request use: its burst, or what a window lets through; of the whole pool.
    pub most: u64,
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
    /// The most that this pod lets be used at one time: the burst, what a window lets through, or the concurrency.
    pub allowed: u64,
    /// What the request would use: 1 request, or its tokens as estimated. In seconds of slots rounded up.
    pub asked: u64,
    /// Until this limit alone would admit the same request; an estimate for what counts at one time.
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
