//! Who asks for what, how often, and how long they have patience.

use std::time::Duration;

use corral_limiter::Nanos;

use crate::random::Random;

/// Nanoseconds that a slot takes for a token of input: 2,000 a second.
const PREFILL: u64 = 500_000;
/// Nanoseconds that a slot takes for a token of output: 50 a second.
pub(crate) const DECODE: u64 = 20_000_000;

pub(crate) fn nanos(seconds: f64) -> Nanos {
    Duration::from_secs_f64(seconds).into()
}

pub(crate) fn seconds(nanos: Nanos) -> f64 {
    Duration::from(nanos).as_secs_f64()
}

/// In what service is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CostModel {
    /// Nanoseconds of a slot.
    SlotTime,
    /// Input + 2 × output.
    Tokens,
}

impl CostModel {
    pub(crate) fn of(self, input: u32, output: u32) -> u64 {
        let (input, output) = (u64::from(input), u64::from(output));
        match self {
            Self::SlotTime => input * PREFILL + output * DECODE,
            Self::Tokens => input + 2 * output,
        }
    }
}

/// How long requests are: log-normal, independently of each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Mean tokens of input.
    pub(crate) input: f64,
    /// Mean tokens of output.
    pub(crate) output: f64,
    /// Deviation of their logarithms.
    pub(crate) sigma: f64,
    /// The most that one costs in tokens, input + 2 × output.
    pub(crate) most: f64,
}

impl Sizes {
    pub(crate) fn new(input: f64, output: f64) -> Self {
        Self { input, output, sigma: 0.7, most: 4096.0 }
    }

    /// The mean time that a slot is taken, in seconds; a little less where the longest are cut.
    pub(crate) fn service(self) -> f64 {
        self.input / 2_000.0 + self.output / 50.0
    }

    fn draw(self, random: &mut Random) -> (u32, u32) {
        let (input, output) =
            (random.log_normal(self.input, self.sigma), random.log_normal(self.output, self.sigma));
        let cut = (self.most / (input + 2.0 * output)).min(1.0);
        (tokens(input * cut), tokens(output * cut))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand, and above zero")]
fn tokens(count: f64) -> u32 {
    (count as u32).max(1)
}

/// When requests come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrivals {
    /// Independently of each other and of what becomes of them: every so many seconds on average.
    Open(f64),
    /// So many at a time; for each that ends comes another.
    Closed(u32),
}

/// What the policy may know of a client's importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Importance {
    Critical,
    High,
    Medium,
    Low,
}

/// One client.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) arrivals: Arrivals,
    pub(crate) sizes: Sizes,
    pub(crate) weight: u32,
    pub(crate) importance: Importance,
    /// The number of its model.
    pub(crate) model: usize,
    /// After so long it gives up.
    pub(crate) patience: Option<Nanos>,
    /// When it begins.
    pub(crate) from: Nanos,
}

impl Client {
    fn new(arrivals: Arrivals, sizes: Sizes) -> Self {
        let (importance, from) = (Importance::Medium, Nanos::ZERO);
        Self { arrivals, sizes, weight: 1, importance, model: 0, patience: None, from }
    }

    /// Asks for so many slots' time on average, whatever it gets.
    pub(crate) fn open(sizes: Sizes, slots: f64) -> Self {
        Self::new(Arrivals::Open(sizes.service() / slots), sizes)
    }

    pub(crate) fn closed(sizes: Sizes, at_once: u32) -> Self {
        Self::new(Arrivals::Closed(at_once), sizes)
    }

    pub(crate) fn patient_for(self, seconds: u64) -> Self {
        Self { patience: Some(Nanos::from_secs(seconds)), ..self }
    }

    pub(crate) fn of(self, importance: Importance) -> Self {
        Self { importance, ..self }
    }

    pub(crate) fn weighs(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    pub(crate) fn request(&self, client: usize, number: u64, now: Nanos, random: &mut Random) -> Request {
        let (input, output) = self.sizes.draw(random);
        let gives_up = self.patience.map(|patience| now.plus(patience));
        Request { number, client, model: self.model, input, output, came: now, gives_up }
    }
}

/// One request. How long its output is nobody knows before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) client: usize,
    pub(crate) model: usize,
    pub(crate) input: u32,
    pub(crate) output: u32,
    pub(crate) came: Nanos,
    pub(crate) gives_up: Option<Nanos>,
}

impl Request {
    pub(crate) fn prefill(&self) -> Nanos {
        Nanos(CostModel::SlotTime.of(self.input, 0))
    }

    pub(crate) fn service(&self) -> Nanos {
        Nanos(CostModel::SlotTime.of(self.input, self.output))
    }

    pub(crate) fn cost(&self, model: CostModel) -> u64 {
        model.of(self.input, self.output)
    }

    /// The output there is after it was served for so long.
    pub(crate) fn generated(&self, served: Nanos) -> u32 {
        let tokens = served.since(self.prefill()).0 / DECODE;
        u32::try_from(tokens).unwrap().min(self.output)
    }

    /// What it has cost after it was served for so long, as if every token came bit by bit.
    pub(crate) fn accrued(&self, served: Nanos, model: CostModel) -> f64 {
        let served = seconds(served.min(self.service()));
        let prefill = seconds(self.prefill());
        match model {
            CostModel::SlotTime => served * 1e9,
            CostModel::Tokens => served.min(prefill) * 2_000.0 + (served - prefill).max(0.0) * 100.0,
        }
    }
}

#[test]
fn a_request_costs_in_the_end_what_it_has_accrued() {
    let client = Client::closed(Sizes::new(400.0, 100.0), 1);
    let request = client.request(0, 1, Nanos::ZERO, &mut Random::new(3, 0));
    for model in [CostModel::SlotTime, CostModel::Tokens] {
        let (whole, cost) = (request.accrued(request.service(), model), request.cost(model));
        assert!(
            (whole - f64::from(u32::try_from(cost / 1000).unwrap()) * 1000.0).abs() <= 1000.0,
            "{whole} {cost}"
        );
    }
    assert_eq!(request.generated(request.service()), request.output);
    assert_eq!(request.generated(request.prefill()), 0);
}
