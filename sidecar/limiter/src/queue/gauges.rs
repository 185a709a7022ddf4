//! How the queue stands, for those who look on.

use super::{Band, FairQueue, group::Group};
use crate::{ModelName, Nanos};

/// How the queue stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueGauges {
    /// Requests that wait.
    pub depth: usize,
    /// Requests that have booked a place and come later.
    pub booked: usize,
    /// Requests that have a slot.
    pub in_flight: usize,
    /// Estimated cost of what waits.
    pub cost: u64,
    /// Bytes that are held by those who wait or have booked.
    pub bytes: u64,
    /// Flows that are kept: clients, at each of their priorities, that wait or run or did so lately.
    pub flows: usize,
    /// How long the oldest waiter has waited; zero when none waits.
    pub oldest_wait: Nanos,
}

/// How one band stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BandGauges {
    /// Which.
    pub band: Band,
    /// Requests that wait.
    pub waiting: u32,
    /// Estimated cost of what waits.
    pub cost: u64,
    /// Requests that have a slot.
    pub in_flight: u32,
    /// What its running requests are held to cost.
    pub outstanding: u64,
    /// What its requests have cost since the beginning.
    pub served: u64,
    /// What a client of weight 1 that always asks has had of it since the beginning: its virtual time. It never falls.
    pub fair_share: u64,
    /// Its queue stands: nobody has started soon for a while.
    pub stands: bool,
}

/// How one model stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelGauges {
    /// Which.
    pub model: ModelName,
    /// How many requests of it may run now.
    pub slots: u32,
    /// How many might if it were not for signs that Ollama has too much.
    pub most_slots: u32,
    /// How many run.
    pub in_flight: u32,
    /// How many wait.
    pub waiting: u32,
    /// It is loaded, as far as is known.
    pub is_loaded: bool,
}

impl FairQueue {
    /// How many requests have a slot.
    pub fn in_flight(&self) -> usize {
        self.running
    }

    /// How the queue stands.
    pub fn gauges(&self, now: Nanos) -> QueueGauges {
        let oldest = self.groups.iter().filter_map(|(_, group)| group.oldest()).min();
        let booked = usize::try_from(self.all.requests).unwrap_or(usize::MAX).saturating_sub(self.waiting);
        QueueGauges {
            depth: self.waiting,
            booked,
            in_flight: self.running,
            cost: self.bands().iter().fold(0, |sum: u64, band| sum.saturating_add(band.cost)),
            bytes: self.all.bytes,
            flows: self.flows.len(),
            oldest_wait: oldest.map_or(Nanos::ZERO, |since| now.since(since)),
        }
    }

    /// How each band stands.
    pub fn bands(&self) -> [BandGauges; 4] {
        Band::ALL.map(|band| {
            let state = self.band(band);
            let costs = self.groups.iter().map(|(_, group)| group.cost_of(band));
            BandGauges {
                band,
                waiting: state.waiting,
                cost: costs.fold(0, u64::saturating_add),
                in_flight: state.running,
                outstanding: state.account.outstanding(),
                served: state.served,
                fair_share: state.time.now().cost(1),
                stands: state.codel.stands(),
            }
        })
    }

    /// How each model stands that is loaded, runs or is waited for; in any order.
    pub fn models(&self) -> Vec<ModelGauges> {
        let in_groups = self.groups.iter().map(|(_, group)| self.model(&group.runner, Some(group)));
        let idle =
            self.models.residents().iter().filter(|resident| self.groups.of(&resident.runner).is_none());
        in_groups.chain(idle.map(|resident| self.model(&resident.runner, None))).collect()
    }

    fn model(&self, runner: &super::Runner, group: Option<&Group>) -> ModelGauges {
        let most_slots = self.models.most_slots(&runner.model, self.slots.per_model);
        ModelGauges {
            model: runner.model.clone(),
            slots: self.slots_of(&runner.model),
            most_slots,
            in_flight: group.map_or(0, |group| group.running),
            waiting: group.map_or(0, |group| group.waiting_before(super::Priority::Spare)),
            is_loaded: self.models.is_loaded(runner),
        }
    }
}
