//! The fixed words that labels are made of: what becomes of requests, plans, directives and exchanges.

use corral_limiter::queue::{Band, ShedReason};

/// A label of one fixed word.
pub(super) type Word = &'static str;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// `served`: answered in full, by Ollama or by the sidecar itself.
    Served,
    /// `limited`: a limit refused it.
    Limited,
    /// The queue did not keep it, for one of the reasons of `ShedReason`.
    Shed(ShedReason),
    /// `no_room`: the bodies of others left no room for its own.
    NoRoom,
    /// `cancelled`: its client left while it waited for a slot, or for a limit.
    Cancelled,
    /// `invalid`: the request itself was wrong, in the eyes of the sidecar or of Ollama.
    Invalid,
    /// `unauthenticated`: it had no known API key, and needed one.
    Unauthenticated,
    /// `unavailable`: 503.
    Unavailable,
    /// `failed`: Ollama answered with an error of its own, or its answer ended before its end.
    Failed,
    /// `client_gone`: the client left before the end of its answer, and not while it waited for a slot.
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
            Self::Shed(reason) => shed_word(reason),
            Self::NoRoom => NO_ROOM,
            Self::Cancelled => "cancelled",
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
    /// The queue did not keep it.
    Shed(ShedReason),
    /// The bodies of others left no room for its own.
    NoRoom,
    /// Ollama is down or starting, no plan is in force, or the sidecar drains.
    Unavailable,
    /// It had no known API key, and needed one.
    Unauthenticated,
    /// The request itself: its path, head, body or model.
    BadRequest,
}

/// How it is called, in metrics and in headers, that the bodies of others leave no room for one more.
pub(crate) const NO_ROOM: Word = "no_room";

/// How a bound of the queue is called, in metrics and in headers.
pub(crate) const fn shed_word(reason: ShedReason) -> Word {
    match reason {
        // As many of its client waited as may.
        ShedReason::ClientFull => "client_queue_full",
        // As many waited as may.
        ShedReason::QueueFull => "queue_full",
        // It would probably have waited longer than it may.
        ShedReason::WaitTooLong => "wait_too_long",
        // It waited, and had to go for another when the queue was full.
        ShedReason::PushedOut => "pushed_out",
        // It waited as long as it may.
        ShedReason::TimedOut => "queue_timeout",
        // Its client would have given up before an answer could be of use.
        ShedReason::DeadlineMissed => "deadline",
    }
}

pub(super) const fn band_word(band: Band) -> Word {
    match band {
        Band::Interactive => "interactive",
        Band::Standard => "standard",
        Band::Batch => "batch",
        Band::Spare => "spare",
    }
}

/// How a wait for a slot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitEnd {
    /// `started`: with a slot.
    Started,
    /// The queue did not keep it, for one of the reasons of `ShedReason`.
    Shed(ShedReason),
    /// `limited`: a limit that was asked again did not admit it for as long as it may wait.
    Limited,
    /// `cancelled`: its client left, or there is nothing any more to serve it.
    Cancelled,
}

impl WaitEnd {
    pub(super) fn word(self) -> Word {
        match self {
            Self::Started => "started",
            Self::Shed(reason) => shed_word(reason),
            Self::Limited => "limited",
            Self::Cancelled => "cancelled",
        }
    }
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
