//! The sidecar's own queue, with estimates as the sidecar makes them: the input is known, the output is what the client's
//! answers have had so far, on the average.

use std::collections::BTreeMap;

use corral_limiter::queue::{
    Arrival, Due, FairQueue, FlowKey, Priority, QueueBounds, Runner, Slots, WaiterId, Wish,
};
use corral_limiter::{ModelName, Nanos};

use crate::load::{Client, CostModel, Importance, Request, seconds};
use crate::outcome::between;
use crate::policy::{Arrived, Dispatched, Fate, Policy};
use crate::random::Random;

/// The tokens of an answer, before there was one.
const UNKNOWN_OUTPUT: f64 = 256.0;
/// How much one answer moves the mean.
const STEP: f64 = 1.0 / 8.0;

/// How the estimates are spoiled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wrong {
    Not,
    /// Each by any factor between these, independently of each other.
    Between(f64, f64),
}

/// How it is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) slots: Slots,
    pub(crate) bounds: QueueBounds,
    pub(crate) cost: CostModel,
    pub(crate) wrong: Wrong,
}

impl Setup {
    /// A pool's defaults.
    pub(crate) fn new(per_model: u32) -> Self {
        let bounds = QueueBounds {
            max_depth: 64,
            max_depth_per_client: 32,
            max_wait: Nanos::from_secs(60),
            batch_max_wait: Nanos::from_secs(300),
        };
        Self { slots: Slots { per_model, models: 1 }, bounds, cost: CostModel::SlotTime, wrong: Wrong::Not }
    }

    /// For loads in which everybody always has something waiting: as deep, and for as long, as it takes.
    pub(crate) fn patient(self) -> Self {
        let hour = Nanos::from_secs(3600);
        let bounds =
            QueueBounds { max_depth: 2000, max_depth_per_client: 32, max_wait: hour, batch_max_wait: hour };
        Self { bounds, ..self }
    }

    pub(crate) fn build(self) -> Ours {
        let mut queue = FairQueue::new(self.slots);
        queue.set_bounds(self.bounds);
        let (outputs, known) = (BTreeMap::new(), BTreeMap::new());
        let (random, predictions) = (Random::new(7, 7), Vec::new());
        Ours { setup: self, queue, outputs, known, random, predictions }
    }
}

/// What is remembered of a request.
#[derive(Debug, Clone, Copy)]
struct Known {
    came: Nanos,
    /// Seconds that it was expected to wait.
    predicted: f64,
}

/// The queue, and what surrounds it in the sidecar.
pub(crate) struct Ours {
    setup: Setup,
    queue: FairQueue,
    /// The mean output of each client.
    outputs: BTreeMap<usize, f64>,
    known: BTreeMap<u64, Known>,
    random: Random,
    /// Seconds of waits: as predicted, and as they were.
    pub(crate) predictions: Vec<(f64, f64)>,
}

fn runner(model: usize) -> Runner {
    Runner { model: ModelName::parse(&format!("model-{model}")).unwrap(), shape: 0 }
}

fn priority(importance: Importance) -> Priority {
    match importance {
        Importance::Critical => Priority::Critical,
        Importance::High => Priority::High,
        Importance::Medium => Priority::Medium,
        Importance::Low => Priority::Low,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand, and above zero")]
fn tokens(count: f64) -> u32 {
    count as u32
}

impl Ours {
    /// Estimated tokens of input and output.
    fn estimate(&mut self, request: &Request) -> (u32, u32) {
        let output = self.outputs.get(&request.client).copied().unwrap_or(UNKNOWN_OUTPUT);
        let factor = match self.setup.wrong {
            Wrong::Not => 1.0,
            Wrong::Between(least, most) => least * (most / least).powf(self.random.unit()),
        };
        (tokens(f64::from(request.input) * factor), tokens(output * factor))
    }

    fn cost(&self, request: &Request, generated: u32) -> u64 {
        self.setup.cost.of(request.input, generated)
    }

    fn started(&mut self, number: u64, now: Nanos) {
        if let Some(known) = self.known.remove(&number) {
            self.predictions.push((known.predicted, between(known.came, now)));
        }
    }

    fn forget(&mut self, number: u64) -> u64 {
        self.known.remove(&number);
        number
    }
}

impl Policy for Ours {
    fn arrive(&mut self, request: &Request, client: &Client, now: Nanos) -> Arrived {
        let (input, output) = self.estimate(request);
        let needs = Nanos(CostModel::SlotTime.of(input, output));
        let runner = runner(request.model);
        let wish = Wish {
            flow: FlowKey(u128::try_from(request.client).unwrap()),
            weight: client.weight,
            priority: priority(client.importance),
            cost: self.setup.cost.of(input, output),
            bytes: u64::from(request.input) * 4,
            due: request.gives_up.map(|at| Due { at, needs }),
            ..Wish::slot(&runner)
        };
        let predicted = self.queue.estimate(&wish).map_or(0.0, seconds);
        let Ok(arrived) = self.queue.arrive(WaiterId(request.number), wish, now) else {
            return Arrived::default();
        };
        let pushed_out = arrived.pushed_out.iter().map(|(id, _)| self.forget(id.0)).collect();
        let fate = match arrived.arrival {
            Arrival::Start => Fate::Starts,
            Arrival::Wait { deadline } => {
                self.known.insert(request.number, Known { came: now, predicted });
                Fate::Waits(Some(deadline))
            }
        };
        Arrived { fate, pushed_out }
    }

    fn dispatch(&mut self, now: Nanos) -> Dispatched {
        let dispatched = self.queue.dispatch(now, |_| true);
        let started: Vec<u64> = dispatched.started.iter().map(|id| id.0).collect();
        for number in &started {
            self.started(*number, now);
        }
        Dispatched { started, late: dispatched.late.iter().map(|(id, _)| self.forget(id.0)).collect() }
    }

    fn progress(&mut self, request: &Request, generated: u32) {
        self.queue.progress(WaiterId(request.number), self.cost(request, generated));
    }

    fn finish(&mut self, request: &Request, now: Nanos) {
        self.queue.release(WaiterId(request.number), self.cost(request, request.output), now);
        let mean = self.outputs.entry(request.client).or_insert(request.output.into());
        *mean += (f64::from(request.output) - *mean) * STEP;
    }

    /// Who was served is charged for it, though the answer was cut.
    fn leave(&mut self, request: &Request, waits: bool, generated: u32, now: Nanos) {
        if waits {
            self.forget(request.number);
            self.queue.leave(WaiterId(request.number), now);
        } else {
            self.queue.release(WaiterId(request.number), self.cost(request, generated), now);
        }
    }

    fn time_out(&mut self, request: &Request) -> bool {
        let is_out = self.queue.time_out(WaiterId(request.number)).is_some();
        if is_out {
            self.forget(request.number);
        }
        is_out
    }

    fn loaded(&mut self, request: &Request, now: Nanos) {
        self.queue.loaded(&runner(request.model), now);
    }

    fn next_look(&self, now: Nanos) -> Option<Nanos> {
        self.queue.next_look(now)
    }
}
