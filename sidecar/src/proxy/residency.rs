//! Which requests Ollama has certainly given to a runner: only those may be cut before their first byte.
//!
//! Ollama gives a request to its model's runner at once if that runner is loaded with the same [`Shape`], and keeps a
//! runner for as long as a request is on it. All other requests stand in one line, whatever their model, and wait for
//! loads and unloads. So a request is on a runner
//!
//! - if others were on the same one without a break, from its dispatch until it must have arrived: its *company*; or
//! - if nobody can be at the head of that line: each request that may stand in front of it, and it itself, asks for
//!   the runner that answered last for its model, and all of these runners stay loaded and settled meanwhile. That is
//!   for Ollama to say: see [`super::ps`].
//!
//! No clock here, and no I/O: times are handed in.

use std::sync::Arc;
use std::time::Duration;

use corral_limiter::ModelName;
use tokio::time::Instant;

use super::inspect::Shape;
use super::pulse::{Beats, Pulse};

/// The most models whose last answer is remembered: more than fit into any pod at one time.
const MAX_MODELS: usize = 64;

/// The runner that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) model: ModelName,
    pub(crate) shape: Shape,
}

/// One request that Ollama has been sent.
#[derive(Debug)]
struct Flight {
    id: u64,
    need: Need,
    dispatched: Instant,
    /// How its answer has begun, if it has. Until a stream ends, Ollama keeps its runner.
    head: Option<Head>,
    /// It is on its runner for certain, still.
    aboard: bool,
    /// Since its dispatch there has always been another one aboard.
    company: bool,
    pulse: Arc<Pulse>,
}

impl Flight {
    fn is_headless(&self) -> bool {
        self.head.is_none()
    }
}

/// A runner that requests are on, for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runner {
    pub(crate) need: Need,
    /// What has come from it: it grows with every sign of life.
    pub(crate) beats: u64,
    /// Whether one of its streams that has begun waits for more, and not for its client.
    pub(crate) streams: bool,
}

/// How an answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// With its first token: the request is on its runner until the answer ends.
    Stream,
    /// With everything: the runner may have been let go.
    Whole,
    /// With an error: the runner may never have been there.
    Error,
}

/// All requests in flight, and what answered last.
#[derive(Debug)]
pub(crate) struct Residency {
    /// Within this time a request has reached Ollama's scheduler.
    arrives_within: Duration,
    last_id: u64,
    flights: Vec<Flight>,
    /// What each model was last known to be loaded with; the oldest first. It may have been unloaded since.
    answered: Vec<Need>,
}

impl Residency {
    pub(crate) fn new(arrives_within: Duration) -> Self {
        Self { arrives_within, last_id: 0, flights: Vec::new(), answered: Vec::new() }
    }

    /// A request is sent. What is returned names it until [`Self::ended`], and watches it.
    pub(crate) fn dispatched(&mut self, need: Need, now: Instant) -> (u64, Arc<Pulse>) {
        self.settle(now);
        self.last_id += 1;
        let id = self.last_id;
        let company = self.is_held(&need);
        let pulse = Arc::new(Pulse::new(self.beats_of(&need)));
        let watched = Arc::clone(&pulse);
        self.flights.push(Flight { id, need, dispatched: now, head: None, aboard: false, company, pulse });
        (id, watched)
    }

    /// Whether Ollama has been sent a request for a model that is not over.
    pub(crate) fn is_used(&self, model: &ModelName) -> bool {
        self.flights.iter().any(|flight| flight.need.model == *model)
    }

    /// The signs of life that all share who need the same runner.
    fn beats_of(&self, need: &Need) -> Arc<Beats> {
        let same = self.flights.iter().find(|flight| flight.need == *need);
        same.map_or_else(Arc::default, |flight| Arc::clone(flight.pulse.beats()))
    }

    /// Its answer begins.
    pub(crate) fn answered(&mut self, id: u64, head: Head, now: Instant) {
        self.settle(now);
        let Some(flight) = self.flights.iter_mut().find(|flight| flight.id == id) else { return };
        flight.head = Some(head);
        flight.aboard = head == Head::Stream;
        if head != Head::Error {
            flight.pulse.beat();
        }
        let need = flight.need.clone();
        if head == Head::Error {
            self.doubt(&need);
        } else {
            self.remember(&need);
        }
        self.part(&need);
    }

    /// Its client reads too slowly to tell any longer whether Ollama is still at it.
    pub(crate) fn lagging(&mut self, id: u64, now: Instant) {
        self.settle(now);
        let Some(flight) = self.flights.iter_mut().find(|flight| flight.id == id) else { return };
        flight.aboard = false;
        let need = flight.need.clone();
        self.part(&need);
    }

    /// It is over, or cut.
    pub(crate) fn ended(&mut self, id: u64, now: Instant) {
        self.settle(now);
        let Some(at) = self.flights.iter().position(|flight| flight.id == id) else { return };
        let flight = self.flights.swap_remove(at);
        if flight.is_headless() {
            self.doubt(&flight.need);
        }
        self.part(&flight.need);
    }

    /// It is on its runner, as Ollama itself has shown.
    pub(crate) fn proven(&mut self, id: u64, now: Instant) {
        self.settle(now);
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.id == id && flight.is_headless()) {
            flight.aboard = true;
        }
    }

    /// Those that have waited for their head for so long, and may still wait for a load.
    pub(crate) fn doubtful(&mut self, longer_than: Duration, now: Instant) -> Vec<u64> {
        self.settle(now);
        let old = |flight: &&Flight| now.saturating_duration_since(flight.dispatched) >= longer_than;
        let doubtful =
            self.flights.iter().filter(|flight| flight.is_headless() && !flight.aboard).filter(old);
        doubtful.map(|flight| flight.id).collect()
    }

    /// Whether all that is in flight waits for its head, none of it is on a runner for certain, and some has for so
    /// long: then a model is being loaded, as far as anybody can tell.
    pub(crate) fn all_wait_for_a_load(&mut self, longer_than: Duration, now: Instant) -> bool {
        let doubtful = self.doubtful(Duration::ZERO, now).len();
        doubtful == self.flights.len() && !self.doubtful(longer_than, now).is_empty()
    }

    /// The runners from which something is waited for, for certain.
    pub(crate) fn runners(&mut self, now: Instant) -> Vec<Runner> {
        self.settle(now);
        let mut runners: Vec<Runner> = Vec::new();
        for flight in &self.flights {
            let streams = flight.head == Some(Head::Stream) && !flight.pulse.is_handing_on();
            let aboard = flight.is_headless() && flight.aboard;
            if streams || aboard {
                add(&mut runners, flight, streams);
            }
        }
        runners
    }

    /// Ends all that a model was asked for; of every model, if none is named.
    pub(crate) fn end_all(&self, model: Option<&ModelName>) {
        let meant = |flight: &&Flight| model.is_none_or(|model| flight.need.model == *model);
        self.flights.iter().filter(meant).for_each(|flight| flight.pulse.end());
    }

    /// Whether it is on its runner for certain.
    pub(crate) fn is_aboard(&mut self, id: u64, now: Instant) -> bool {
        self.settle(now);
        self.flights.iter().any(|flight| flight.id == id && flight.aboard)
    }

    /// The models whose runners, if they stay loaded and settled, prove that it is on its own; none if that would
    /// prove nothing.
    pub(crate) fn witnesses(&self, id: u64) -> Option<Vec<ModelName>> {
        let own = self.flights.iter().find(|flight| flight.id == id)?;
        let arrived_by = own.dispatched + self.arrives_within;
        let in_front = |flight: &&Flight| {
            flight.is_headless() && !flight.aboard && (flight.id == id || flight.dispatched < arrived_by)
        };
        let mut models = Vec::new();
        for flight in self.flights.iter().filter(in_front) {
            if !self.fits(&flight.need) {
                return None;
            }
            if !models.contains(&flight.need.model) {
                models.push(flight.need.model.clone());
            }
        }
        Some(models)
    }

    /// Whether a need is what its model was last loaded with, and nobody in flight wants it changed.
    fn fits(&self, need: &Need) -> bool {
        let other = |flight: &Flight| flight.need.model == need.model && flight.need.shape != need.shape;
        self.answered.contains(need) && !self.flights.iter().any(other)
    }

    /// Who had company until it must have arrived is aboard.
    fn settle(&mut self, now: Instant) {
        for flight in &mut self.flights {
            let arrived = now.saturating_duration_since(flight.dispatched) >= self.arrives_within;
            if flight.is_headless() && flight.company && arrived {
                flight.aboard = true;
            }
        }
    }

    fn is_held(&self, need: &Need) -> bool {
        self.flights.iter().any(|flight| flight.aboard && flight.need == *need)
    }

    /// Somebody may have left a runner: if it was the last, it may be unloaded from now on.
    fn part(&mut self, need: &Need) {
        if self.is_held(need) {
            return;
        }
        for flight in self.flights.iter_mut().filter(|flight| flight.need == *need) {
            flight.company = false;
        }
    }

    fn remember(&mut self, need: &Need) {
        self.answered.retain(|other| other.model != need.model);
        if self.answered.len() == MAX_MODELS {
            self.answered.remove(0);
        }
        self.answered.push(need.clone());
    }

    /// Somebody may have had a model loaded anew, and had no answer to tell it by.
    fn doubt(&mut self, need: &Need) {
        self.answered.retain(|other| other.model != need.model || other.shape == need.shape);
    }
}

fn add(runners: &mut Vec<Runner>, flight: &Flight, streams: bool) {
    if let Some(runner) = runners.iter_mut().find(|runner| runner.need == flight.need) {
        runner.streams |= streams;
        return;
    }
    let (need, beats) = (flight.need.clone(), flight.pulse.beats().count());
    runners.push(Runner { need, beats, streams });
}

#[cfg(test)]
#[path = "residency_tests.rs"]
mod tests;
