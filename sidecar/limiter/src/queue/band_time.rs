//! The virtual time of a band: where a flow begins that asks anew.
//!
//! It follows whoever starts (start-time fair queueing): it is the furthest start there was. While all who start are new,
//! that would stand still, and who was served once would wait for as long as somebody new comes, such as one who changes
//! his name with each request. So when it has stood still for the largest cost that was served meanwhile, for each of
//! the flows, it goes on by what is served over the weights of all who take part (as the fluid time of weighted fair
//! queueing does), until somebody starts who is further.

use super::account::Virtual;

/// The virtual time of one band.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BandTime {
    now: Virtual,
    /// What each flow of weight 1 had since it last moved on with a start, beyond what it moved on by itself.
    stood: Virtual,
    /// The largest cost that was served since then.
    largest: u64,
}

impl BandTime {
    pub(super) fn now(&self) -> Virtual {
        self.now
    }

    /// Somebody starts who is there.
    pub(super) fn start(&mut self, key: Virtual) {
        if key > self.now {
            *self = Self { now: key, ..Self::default() };
        }
    }

    /// Something was served that cost so much, among flows of these weights together.
    pub(super) fn pass(&mut self, cost: u64, weights: u32) {
        self.largest = self.largest.max(cost);
        self.stood = self.stood.plus(Virtual::of(cost, weights));
        let still = Virtual::of(self.largest, 1);
        if self.stood > still {
            self.now = self.now.plus(self.stood.minus(still));
            self.stood = still;
        }
    }

    /// Nothing of the band is left, and the furthest of its flows is there, if it had any that was ahead.
    pub(super) fn rest(&mut self, furthest: Option<Virtual>) {
        *self = Self { now: furthest.map_or(self.now, |key| key.max(self.now)), ..Self::default() };
    }
}
