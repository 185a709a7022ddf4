//! How long one who comes now would wait. An estimate.
//!
//! What is served before it, in the order of the queue, until its own turn comes: of its own flow everything; of other flows
//! of its band as much as their weights give them until they are where its flow will be by then, and of other bands as much
//! as theirs do, each no more than waits; and before all that, until the next slot comes free, one service time over the
//! slots.

use super::{Band, FairQueue, Wish, group::Group};
use crate::{ModelName, Nanos};

impl FairQueue {
    /// How long such a request would wait; zero where it would start at once, none while nothing is known of its model.
    /// An estimate.
    pub fn estimate(&self, wish: &Wish<'_>) -> Option<Nanos> {
        let model = &wish.runner.model;
        let mean = self.times.mean(model)?;
        let Some(group) = self.groups.of(wish.runner) else { return Some(Nanos::ZERO) };
        if group.running < self.slots_of(model) && !group.has_waiters() {
            return Some(Nanos::ZERO);
        }
        let work = self.times.time_of(model, self.work_before(group, wish))?;
        Some(self.over_slots(model, work.plus(mean)))
    }

    /// How long a runner's slots take for so much work; none while nothing is known of the model.
    pub(super) fn time_for(&self, model: &ModelName, cost: u64) -> Option<Nanos> {
        self.times.time_of(model, cost).map(|time| self.over_slots(model, time))
    }

    /// How long everything that waits for a runner takes, and one request more.
    pub(super) fn time_for_all(&self, group: &Group) -> Option<Nanos> {
        let model = &group.runner.model;
        let mean = self.times.mean(model)?;
        let waiting = Band::ALL.into_iter().fold(0, |sum: u64, band| sum.saturating_add(group.cost_of(band)));
        self.times.time_of(model, waiting).map(|time| self.over_slots(model, time.plus(mean)))
    }

    fn over_slots(&self, model: &ModelName, time: Nanos) -> Nanos {
        Nanos(time.0.checked_div(u64::from(self.slots_of(model).max(1))).unwrap_or(time.0))
    }

    /// The cost of what is served before it: of its own flow what waits, of others what they get until it is its turn. That
    /// hangs on how far its flow and its band are ahead, and not on what it costs itself.
    fn work_before(&self, group: &Group, wish: &Wish<'_>) -> u64 {
        let band = wish.priority.band();
        let state = self.band(band);
        let flow = self.flows.find(wish.flow, wish.priority);
        let own = flow.map_or(0, |flow| group.cost_of_flow(flow));
        let known = flow.and_then(|flow| self.flows.get(flow));
        let ahead = known.map_or(0, |flow| flow.account.ahead_of(state.time.now()));
        let of_others = group.weight_of_others(band, flow);
        let others = scaled(own.saturating_add(ahead), of_others, u64::from(wish.weight()));
        let in_band = own.saturating_add(others.min(group.cost_of(band).saturating_sub(own)));
        let of_band = in_band.saturating_add(state.account.ahead_of(self.time));
        let other_bands = Band::ALL.into_iter().filter(|other| *other != band);
        let beside = other_bands.map(|other| {
            let waiting = group.cost_of(other);
            match (band, other) {
                (Band::Spare, _) => waiting,
                (_, Band::Spare) => 0,
                _ => scaled(of_band, other.weight_milli().into(), band.weight_milli().into()).min(waiting),
            }
        });
        beside.fold(in_band, u64::saturating_add)
    }
}

fn scaled(cost: u64, by: u64, over: u64) -> u64 {
    let scaled =
        u128::from(cost).saturating_mul(by.into()).checked_div(over.max(1).into()).unwrap_or_default();
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
