//! What came of a run: for each client, and of all.

use corral_limiter::Nanos;

use crate::gap::GapMeter;
use crate::load::seconds;

/// What came of one client's requests, of those that came once the run was warm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    pub(crate) done: u32,
    /// Refused at arrival.
    pub(crate) refused: u32,
    /// Pushed out, timed out, or too late.
    pub(crate) shed: u32,
    /// The client gave up while it waited.
    pub(crate) left: u32,
    /// The client gave up while it was served.
    pub(crate) cut: u32,
    /// How long those waited that were served, in seconds.
    pub(crate) waits: Vec<f64>,
    /// How long those had waited that were refused, shed or left, in seconds.
    pub(crate) refused_after: Vec<f64>,
    /// Seconds of a slot for what was done.
    pub(crate) useful: f64,
    /// Seconds of a slot for what was cut.
    pub(crate) wasted: f64,
}

impl Account {
    pub(crate) fn failed(&self) -> u32 {
        self.refused + self.shed + self.left + self.cut
    }

    fn offered(&self) -> u32 {
        self.done + self.failed()
    }

    fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.refused += other.refused;
        self.shed += other.shed;
        self.left += other.left;
        self.cut += other.cut;
        self.waits.extend(&other.waits);
        self.refused_after.extend(&other.refused_after);
        self.useful += other.useful;
        self.wasted += other.wasted;
    }
}

/// What came of all.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) accounts: Vec<Account>,
    /// By mark and client: the cost of what it had been served.
    pub(crate) marks: Vec<Vec<f64>>,
    pub(crate) gap: GapMeter,
    /// The most that one request cost.
    pub(crate) dearest: f64,
    /// Seconds of slots that there were.
    pub(crate) capacity: f64,
    /// Seconds of the longest request.
    pub(crate) longest: f64,
    pub(crate) loads: u32,
    /// How many had a slot and could not even load their model, because another's requests ran.
    pub(crate) blocked: u32,
}

impl Outcome {
    pub(crate) fn new(clients: usize, capacity: f64) -> Self {
        Self {
            accounts: vec![Account::default(); clients],
            marks: Vec::new(),
            gap: GapMeter::default(),
            dearest: 0.0,
            capacity,
            longest: 0.0,
            loads: 0,
            blocked: 0,
        }
    }

    /// Adds another run of the same clients: what became of their requests, and when.
    pub(crate) fn add(&mut self, other: &Self) {
        self.accounts.iter_mut().zip(&other.accounts).for_each(|(own, other)| own.add(other));
        self.capacity += other.capacity;
        self.longest = self.longest.max(other.longest);
    }

    /// Of the slots' time, the part that made whole answers.
    pub(crate) fn goodput(&self) -> f64 {
        self.accounts.iter().map(|account| account.useful).sum::<f64>() / self.capacity
    }

    /// Of the work done, the part that was cut.
    pub(crate) fn waste(&self) -> f64 {
        let sum = |of: fn(&Account) -> f64| self.accounts.iter().map(of).sum::<f64>();
        let (useful, wasted) = (sum(|account| account.useful), sum(|account| account.wasted));
        wasted / (useful + wasted).max(1e-9)
    }

    pub(crate) fn success(&self, clients: std::ops::Range<usize>) -> f64 {
        let of = &self.accounts[clients];
        let (done, offered) =
            of.iter().fold((0, 0), |(done, offered), it| (done + it.done, offered + it.offered()));
        f64::from(done) / f64::from(offered.max(1))
    }

    /// Of the waits of those clients: this part waited no longer.
    pub(crate) fn wait(&self, clients: std::ops::Range<usize>, part: f64) -> f64 {
        quantile(self.accounts[clients].iter().flat_map(|account| account.waits.iter().copied()), part)
    }

    /// The cost of what each client was served between two marks.
    pub(crate) fn served(&self, from: usize, to: usize) -> Vec<f64> {
        self.marks[to].iter().zip(&self.marks[from]).map(|(to, from)| to - from).collect()
    }

    /// Each client's part of what was served between two marks.
    pub(crate) fn shares(&self, from: usize, to: usize) -> Vec<f64> {
        let served = self.served(from, to);
        let all = served.iter().sum::<f64>().max(1e-9);
        served.iter().map(|one| one / all).collect()
    }

    /// The largest gap of the two clients that were watched, in costs of the dearest request.
    pub(crate) fn gap(&self) -> f64 {
        self.gap.worst() / self.dearest
    }
}

/// Jain's index: 1 where all have the same, 1/n where one has all.
pub(crate) fn jain(values: &[f64]) -> f64 {
    let count = f64::from(u32::try_from(values.len()).unwrap());
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), it| (sum + it, squares + it * it));
    if squares > 0.0 { sum * sum / (count * squares) } else { 0.0 }
}

pub(crate) fn quantile(values: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let rank = part * f64::from(u32::try_from(values.len().saturating_sub(1)).unwrap());
    let below = (0..values.len()).take_while(|at| f64::from(u32::try_from(*at).unwrap()) < rank).count();
    values.get(below).copied().unwrap_or_default()
}

/// Seconds from one instant to a later one.
pub(crate) fn between(from: Nanos, to: Nanos) -> f64 {
    seconds(to.since(from))
}

#[test]
fn jain_and_quantiles_are_what_they_are_said_to_be() {
    let near = |value: f64, wanted: f64| assert!((value - wanted).abs() < 1e-9, "{value} is not {wanted}");
    near(jain(&[2.0, 2.0, 2.0, 2.0]), 1.0);
    near(jain(&[1.0, 0.0, 0.0, 0.0]), 0.25);
    let hundred = || (0..=100).rev().map(f64::from);
    near(quantile(hundred(), 0.99), 99.0);
    near(quantile(hundred(), 0.5), 50.0);
    near(quantile(std::iter::empty(), 0.5), 0.0);
}
