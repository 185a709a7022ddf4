//! What happened at the scripted Ollama: every request that arrived, how each inference ended, and how many ran and
//! waited at once. Tests read it to say "Ollama never held a queue of its own".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::go_fields::Fields;
use super::name::{self, Named};

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Which connection it came on, counted from 1.
    pub connection: u64,
    /// The method.
    pub method: String,
    /// Path and query as they stood on the wire.
    pub target: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// When its body was complete.
    pub at: Instant,
}

impl Arrival {
    /// Whether it asked for inference, by any spelling of the path.
    pub fn infers(&self) -> bool {
        let path = self.target.split('?').next().unwrap_or_default();
        let method = http::Method::from_bytes(self.method.as_bytes()).unwrap_or_default();
        matches!(super::route::find(&method, path), super::route::Route::To(endpoint) if endpoint.infers())
    }

    /// The model that its body names, as Go reads it: short, with its tag; none if it names none.
    pub fn model(&self) -> Option<String> {
        let fields = Fields::read(&self.body, "api", "GenerateRequest").ok()?;
        match name::read(&fields.text("model").ok()?) {
            Named::Model(normal) => Some(name::short(&normal)),
            _ => None,
        }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How an inference request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered in full.
    Finished,
    /// Ended by a scripted fault.
    Faulted,
    /// 503: too many waited for a load.
    Busy,
    /// The model did not load.
    LoadFailed,
    /// The client left before a runner was found: the real server never lets go of such a connection.
    Leaked,
    /// The client left while it waited for a slot; released cleanly.
    LeftWaiting,
    /// The client left while it ran: generation was cancelled.
    Cancelled,
}

/// How things stand at one model, or at all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Holding a slot now.
    pub running: usize,
    /// The most that ever held one at a time.
    pub max_running: usize,
    /// Waiting for a slot now.
    pub waiting: usize,
    /// The most that ever waited at a time.
    pub max_waiting: usize,
    /// The longest that one waited for a slot.
    pub longest_wait: Duration,
}

#[derive(Debug, Default)]
struct Log {
    arrivals: Vec<Arrival>,
    outcomes: Vec<Outcome>,
    counted: (u64, u64),
    models: BTreeMap<String, Load>,
    all: Load,
    loads: usize,
    embedded: usize,
    unread: usize,
    connections: u64,
    open: usize,
}

/// The record; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Record {
    log: Arc<Mutex<Log>>,
}

impl Record {
    /// Every request so far, in order of arrival.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.log.lock().arrivals.clone()
    }

    /// Those that asked for inference.
    pub fn inferences(&self) -> Vec<Arrival> {
        self.log.lock().arrivals.iter().filter(|arrival| arrival.infers()).cloned().collect()
    }

    /// How many inference requests ended this way.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.log.lock().outcomes.iter().filter(|one| **one == outcome).count()
    }

    /// Tokens of prompts and of answers, as told in all answers that were given in full.
    pub fn counted(&self) -> (u64, u64) {
        self.log.lock().counted
    }

    /// How many connections the real server would never let go of.
    pub fn leaked(&self) -> usize {
        self.count(Outcome::Leaked)
    }

    /// Load of one model, by its short name with tag (`tiny:latest`).
    pub fn model(&self, short: &str) -> Load {
        self.log.lock().models.get(short).copied().unwrap_or_default()
    }

    /// Load of all models together.
    pub fn load(&self) -> Load {
        self.log.lock().all
    }

    /// How often a model was loaded or loaded anew.
    pub fn loads(&self) -> usize {
        self.log.lock().loads
    }

    /// How many inputs have been embedded, of whatever requests.
    pub fn embedded_inputs(&self) -> usize {
        self.log.lock().embedded
    }

    /// Requests whose body never became whole.
    pub fn broken_bodies(&self) -> usize {
        self.log.lock().unread
    }

    /// Connections open now, and ever accepted.
    pub fn connections(&self) -> (usize, u64) {
        let log = self.log.lock();
        (log.open, log.connections)
    }

    pub(crate) fn arrived(&self, arrival: Arrival) {
        self.log.lock().arrivals.push(arrival);
    }

    pub(crate) fn body_broke(&self) {
        self.log.lock().unread += 1;
    }

    pub(crate) fn told(&self, prompt: i64, answer: i64) {
        let mut log = self.log.lock();
        log.counted.0 += u64::try_from(prompt).unwrap_or_default();
        log.counted.1 += u64::try_from(answer).unwrap_or_default();
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.log.lock().outcomes.push(outcome);
    }

    pub(crate) fn loaded(&self) {
        self.log.lock().loads += 1;
    }

    pub(crate) fn embedded(&self) {
        self.log.lock().embedded += 1;
    }

    pub(crate) fn connected(&self) -> Connected {
        let mut log = self.log.lock();
        log.connections += 1;
        log.open += 1;
        Connected { record: self.clone(), number: log.connections }
    }

    pub(crate) fn waits(&self, model: &str) -> Waiting {
        self.change(model, |load| {
            load.waiting += 1;
            load.max_waiting = load.max_waiting.max(load.waiting);
        });
        Waiting { record: self.clone(), model: model.to_owned(), since: Instant::now() }
    }

    pub(crate) fn runs(&self, model: &str) -> Running {
        self.change(model, |load| {
            load.running += 1;
            load.max_running = load.max_running.max(load.running);
        });
        Running { record: self.clone(), model: model.to_owned() }
    }

    fn change(&self, model: &str, change: impl Fn(&mut Load)) {
        let mut log = self.log.lock();
        change(&mut log.all);
        change(log.models.entry(model.to_owned()).or_default());
    }
}

/// Counts an open connection until it is dropped.
pub(crate) struct Connected {
    record: Record,
    pub(crate) number: u64,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.record.log.lock().open -= 1;
    }
}

/// Counts a waiter until it is dropped.
pub(crate) struct Waiting {
    record: Record,
    model: String,
    since: Instant,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let waited = Instant::now() - self.since;
        self.record.change(&self.model, |load| {
            load.waiting -= 1;
            load.longest_wait = load.longest_wait.max(waited);
        });
    }
}

/// Counts a runner's request until it is dropped.
pub(crate) struct Running {
    record: Record,
    model: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.record.change(&self.model, |load| load.running -= 1);
    }
}
