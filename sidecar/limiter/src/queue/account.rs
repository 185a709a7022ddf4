//! Virtual time: what a client, or a band, has had of the slots, over its weight.
//!
//! Start-time fair queueing, charged as VTC charges: who is behind goes next. Its key is what it was charged in the past
//! plus what it holds now. While it asks for nothing its key stands still, and is lifted to the time of the others when it
//! asks again, so that nobody saves up. A request that turns out cheaper than it was taken for gives the rest back; but
//! what was dispatched before the last lift gives back at most down to where the others were then, or its refund would be
//! such savings.

/// Virtual time, in units of cost over weight, scaled by 2²⁰ so that division loses nothing that counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Virtual(i128);

const SCALE: i128 = 1 << 20;

impl Virtual {
    /// What a cost is for a weight; 0 counts as 1.
    pub(super) fn of(cost: u64, weight: u32) -> Self {
        let scaled = i128::from(cost).saturating_mul(SCALE);
        Self(scaled.checked_div(i128::from(weight.max(1))).unwrap_or(scaled))
    }

    /// What cost this is for a weight; none below zero.
    pub(super) fn cost(self, weight: u32) -> u64 {
        let cost = self.0.max(0).saturating_mul(weight.into()).checked_div(SCALE).unwrap_or_default();
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// The account of a client in a band, or of a band in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    weight: u32,
    /// What is over and done with.
    past: Virtual,
    /// What its running requests are held to cost.
    outstanding: u64,
    /// How often it was lifted.
    epoch: u32,
    /// By how much refunds from before the last lift may still lower its key.
    slack: Virtual,
}

impl Account {
    /// Of somebody new, where the others are.
    pub(super) fn new(weight: u32, at: Virtual) -> Self {
        Self { weight: weight.max(1), past: at, outstanding: 0, epoch: 0, slack: Virtual::default() }
    }

    pub(super) fn weight(&self) -> u32 {
        self.weight
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Who has the least goes next.
    pub(super) fn key(&self) -> Virtual {
        self.past.plus(Virtual::of(self.outstanding, self.weight))
    }

    /// The cost by which it is ahead of the others: it waits until they have had as much for their weights.
    pub(super) fn ahead_of(&self, others: Virtual) -> u64 {
        self.key().minus(others).cost(self.weight)
    }

    /// A charge that is made now belongs to this.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// It asks again, where nothing of it waited before: it is not behind the others.
    pub(super) fn lift(&mut self, others: Virtual) {
        self.epoch = self.epoch.wrapping_add(1);
        let key = self.key();
        if key < others {
            self.past = self.past.plus(others.minus(key));
            self.slack = Virtual::default();
        } else {
            self.slack = key.minus(others);
        }
    }

    /// A request starts, or grows by so much.
    pub(super) fn charge(&mut self, cost: u64) {
        self.outstanding = self.outstanding.saturating_add(cost);
    }

    /// A request ends that was held to cost `held` since the epoch `of`, and really cost `real`.
    pub(super) fn settle(&mut self, held: u64, real: u64, of: u32) {
        let held = held.min(self.outstanding);
        let before = self.key();
        let mut after = before.plus(Virtual::of(real, self.weight)).minus(Virtual::of(held, self.weight));
        if of != self.epoch {
            let floor = before.minus(self.slack);
            after = after.max(floor);
            self.slack = self.slack.minus(before.minus(after)).max(Virtual::default());
        }
        self.outstanding = self.outstanding.saturating_sub(held);
        self.past = after.minus(Virtual::of(self.outstanding, self.weight));
    }

    /// Another weight from now on: nobody gains or loses what was before.
    pub(super) fn set_weight(&mut self, weight: u32) {
        let weight = weight.max(1);
        if weight != self.weight {
            let key = self.key();
            self.weight = weight;
            self.past = key.minus(Virtual::of(self.outstanding, weight));
        }
    }
}
