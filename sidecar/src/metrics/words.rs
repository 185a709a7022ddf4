//! The fixed words that labels are made of: what becomes of requests, plans, directives and exchanges.

/// A label of one fixed word.
pub(super) type Word = &'static str;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// `served`: answered in full, by Ollama or by the sidecar itself.
    Served,
    /// `limited`: a limit refused it.
    Limited,
    /// `queue_full`: as many waited as may, or there was no room for its body.
    QueueFull,
    /// `wait_too_long`: it would probably have waited longer than it may.
    WaitTooLong,
    /// `queue_timeout`: it waited as long as it may.
    QueueTimeout,
    /// `invalid`: the request itself was wrong, in the eyes of the sidecar or of Ollama.
    Invalid,
    /// `unauthenticated`: it had no known API key, and needed one.
    Unauthenticated,
    /// `unavailable`: 503.
    Unavailable,
    /// `failed`: Ollama answered with an error of its own, or its answer ended before its end.
    Failed,
    /// `client_gone`: the client left before the end of its answer.
    ClientGone,
    /// `drained`: cut by the shutdown of this sidecar.
    Drained,
}

impl Outcome {
    /// By the status of an answer that came in full.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            0..=399 => Self::Served,
            429 => Self::Limited,
            400..=499 => Self::Invalid,
            503 => Self::Unavailable,
            _ => Self::Failed,
        }
    }

    pub(super) fn word(self) -> Word {
        match self {
            Self::Served => "served",
            Self::Limited => "limited",
            Self::QueueFull => "queue_full",
            Self::WaitTooLong => "wait_too_long",
            Self::QueueTimeout => "queue_timeout",
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::ClientGone => "client_gone",
            Self::Drained => "drained",
        }
    }
}

/// Why a request was refused by something other than a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusedBy {
    /// As many waited as may, or there was no room for its body.
    QueueFull,
    /// It would probably have waited longer than it may.
    WaitTooLong,
    /// It waited as long as it may.
    QueueTimeout,
    /// Ollama is down or starting, no plan is in force, or the sidecar drains.
    Unavailable,
    /// It had no known API key, and needed one.
    Unauthenticated,
    /// The request itself: its path, head, body or model.
    BadRequest,
}

/// How an exchange with Ollama failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamFailure {
    /// No connection.
    Connect,
    /// The connection ended before a head came.
    NoAnswer,
    /// The answer ended before its terminator.
    Cut,
    /// Ollama said that too many wait in it already: load, not death.
    Busy,
    /// This sidecar ended it, because the runner or Ollama itself had stopped.
    Stalled,
}

/// Why a request is sent to Ollama once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retried {
    /// There was no connection.
    Connect,
    /// A kept connection had ended before the request was written.
    Stale,
    /// Ollama had no room for it.
    Busy,
}

/// How it was found that a runner has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stall {
    /// Ollama could not answer for it.
    Unanswering,
    /// All its streams were silent for longer than any may be.
    Silent,
}

/// Where a plan that was not taken came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlanSource {
    /// The mounted Secret.
    Secret,
    /// A directive.
    Exchange,
    /// A policy file of a standalone sidecar.
    File,
    /// What this sidecar itself had kept on disk.
    Disk,
}

/// What became of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DirectiveResult {
    /// It was obeyed.
    Obeyed,
    /// Genuine, but its position was not above what had been obeyed.
    Behind,
    /// Not genuine, for another pod, or unreadable.
    Refused,
}
