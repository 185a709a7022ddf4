//! What a request asks of the queue, and what becomes of it.

use smallvec::SmallVec;

use super::{FlowKey, Priority};
use crate::{ModelName, Nanos};

/// The most that a weight counts for.
const MOST_WEIGHT: u32 = 1000;

/// Names a request for as long as it waits or runs. The caller never gives one number to two that live together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// What Ollama must have loaded to serve a request: requests for the same share one group of slots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Runner {
    /// The model.
    pub model: ModelName,
    /// Stands for the options that Ollama loads it anew for, such as the length of its context.
    pub shape: u64,
}

impl Runner {
    /// A model with the options it has by default.
    pub fn of(model: &ModelName) -> Self {
        Self { model: model.clone(), shape: 0 }
    }
}

/// When a client gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Then.
    pub at: Nanos,
    /// How long after it has its slot the answer is of use: a stream with its first token, anything else as a whole.
    pub needs: Nanos,
}

impl Due {
    /// How long one that comes now may wait: half of what is left, the other half being for its answer. A client that asks
    /// for less than its part must be able to wait for its turn, which with two of its requests in close succession comes
    /// after a whole turn of all others.
    pub fn longest_wait(self, now: Nanos) -> Nanos {
        Nanos(self.at.since(now).0.checked_div(2).unwrap_or_default())
    }
}

/// What a request wants of the queue.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// A slot of this.
    pub runner: &'a Runner,
    /// Whose it is.
    pub flow: FlowKey,
    /// What its client gets beside others of its band; 1 to 1000 (0 counts as 1, more as 1000).
    pub weight: u32,
    /// Its band, and more.
    pub priority: Priority,
    /// What it will probably cost: nanoseconds of a slot, or whatever else all costs are told in.
    pub cost: u64,
    /// Bytes of memory that it holds while it waits.
    pub bytes: u64,
    /// Something is to be asked before it may start, so it waits until the next [`super::FairQueue::dispatch`] at least.
    pub is_pending: bool,
    /// The longest that it waits, if that is less than the bound of the queue.
    pub max_wait: Option<Nanos>,
    /// When its client gives up, where that is known.
    pub due: Option<Due>,
}

impl<'a> Wish<'a> {
    /// A slot for a second, of medium priority, for a client that all such share.
    pub fn slot(runner: &'a Runner) -> Self {
        Self {
            runner,
            flow: FlowKey(0),
            weight: 1,
            priority: Priority::Medium,
            cost: 1_000_000_000,
            bytes: 0,
            is_pending: false,
            max_wait: None,
            due: None,
        }
    }

    /// Its weight, within the bounds.
    pub(super) fn weight(&self) -> u32 {
        self.weight.clamp(1, MOST_WEIGHT)
    }
}

/// What becomes of a request that is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It has a slot.
    Start,
    /// It waits for one, at most until then.
    Wait {
        /// The caller watches it, and then calls [`super::FairQueue::time_out`].
        deadline: Nanos,
    },
}

/// A request was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// How.
    pub arrival: Arrival,
    /// Those who had to go for it. They are out already.
    pub pushed_out: SmallVec<[(WaiterId, Shed); 1]>,
}

/// What a dispatch has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dispatched {
    /// They have a slot now.
    pub started: SmallVec<[WaiterId; 4]>,
    /// Their clients would have given up before an answer could be of use. They are out already.
    pub late: SmallVec<[(WaiterId, Shed); 1]>,
}

/// Why a request gets no slot, and what to tell its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shed {
    /// Which bound it met.
    pub reason: ShedReason,
    /// How long one that came now would wait, by what was learned of the model; 1 s when nothing was. An estimate.
    pub estimated_wait: Nanos,
    /// How many of its model are, or would have been, served before it at most.
    pub position: u32,
    /// The longest that one of its priority may wait.
    pub max_wait: Nanos,
}

/// A bound of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShedReason {
    /// As many of its client wait as may, or as much of its client's data.
    ClientFull,
    /// As many wait as may, or as much data or work, and nobody who waits has less claim to be there.
    QueueFull,
    /// Others wait, and it would probably wait longer than it may, or than its client does.
    WaitTooLong,
    /// Another came while the queue was full, and its client had the most waiting of those with the least claim.
    PushedOut,
    /// It waited as long as it may.
    TimedOut,
    /// Its turn came when its client would have given up before an answer could be of use.
    DeadlineMissed,
}
