//! What happens next, on a clock that nobody waits for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Since the run began.
pub(crate) type Time = Duration;

/// Seconds from one moment to a later one.
pub(crate) fn between(from: Time, to: Time) -> f64 {
    to.saturating_sub(from).as_secs_f64()
}

/// One request of a client, until it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) number: u64,
    /// When it was first sent.
    pub(crate) came: Time,
    /// How long it holds a slot.
    pub(crate) service: Duration,
    /// It was refused before, and says so.
    pub(crate) again: bool,
}

/// A pod is named by its number; none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A new request.
    Comes,
    /// A client tries again.
    Returns(Request),
    /// A slot comes back.
    Ends { pod: usize, request: Request },
    /// One has waited as long as any may.
    TimesOut { pod: usize, number: u64 },
    /// The autoscaler's turn.
    Looks,
    /// The autoscaler is asked out of its turn, because somebody waits for the first pod.
    Asked,
    /// The activator looks for a pod with a free slot.
    Releases,
    /// The load balancers hear whether the activator stands in.
    HolderListed,
    /// The `ReplicaSet` controller has heard of something.
    Reconciles,
    /// Its containers run.
    Runs(usize),
    /// Ollama answers.
    Loaded(usize),
    /// The kubelet asks whether it is ready.
    Probed(usize),
    /// The load balancers hear of it.
    Listed(usize),
    /// Its order to retire may be over.
    LeaseEnds(usize),
    /// It may have nothing more to do.
    Drained(usize),
    /// Its grace is over.
    Killed(usize),
    /// One more of what the scenario does to the pool.
    Deed(usize),
}

/// The events to come, and the time.
#[derive(Default)]
pub(crate) struct Agenda {
    pub(crate) now: Time,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    last: u64,
}

impl Agenda {
    pub(crate) fn at(&mut self, time: Time, event: Event) {
        self.last += 1;
        self.events.push(Reverse((time.max(self.now), self.last, event)));
    }

    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    /// The next event, with the clock set to it; none when there is none before `end`.
    pub(crate) fn next(&mut self, end: Time) -> Option<Event> {
        let Reverse((at, _, event)) = self.events.pop()?;
        if at > end {
            return None;
        }
        self.now = at;
        Some(event)
    }
}
