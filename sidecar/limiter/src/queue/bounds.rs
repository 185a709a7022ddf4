//! How much may wait: in number, bytes and time, in all and for each client; and who makes room when it is too much.

use smallvec::SmallVec;

use super::{
    Band, FairQueue, FlowKey, Priority, Shed, ShedReason, WaiterId, Wish,
    account::Virtual,
    flows::{Flow, FlowId},
};
use crate::Nanos;

/// The most bytes that wait, all clients together.
const MOST_BYTES: u64 = 64 << 20;
/// The most bytes that wait of one client, but for a single request.
const MOST_BYTES_OF_CLIENT: u64 = 8 << 20;

/// How many requests run at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// For one model; at least 1 (0 is taken as 1).
    pub per_model: u32,
    /// How many models may be loaded at one time; at least 1 (0 is taken as 1).
    pub models: u32,
}

impl Slots {
    pub(super) fn at_least_one(self) -> Self {
        Self { per_model: self.per_model.max(1), models: self.models.max(1) }
    }
}

/// How many wait, and how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueBounds {
    /// The most that wait, all models together. 0: none waits, a busy pod refuses at once.
    pub max_depth: u32,
    /// The most that wait of one client. 0: none waits.
    pub max_depth_per_client: u32,
    /// The longest that one waits whose band is interactive or standard.
    pub max_wait: Nanos,
    /// The longest that any other waits.
    pub batch_max_wait: Nanos,
}

impl QueueBounds {
    /// The longest that one of a band waits.
    pub fn max_wait_of(&self, band: Band) -> Nanos {
        match band {
            Band::Interactive | Band::Standard => self.max_wait,
            Band::Batch | Band::Spare => self.batch_max_wait,
        }
    }
}

/// How much somebody has in the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) requests: u32,
    pub(super) bytes: u64,
}

impl Share {
    fn add(&mut self, bytes: u64) {
        self.requests = self.requests.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn take(&mut self, bytes: u64) {
        self.requests = self.requests.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Who goes so that another may come.
pub(super) type Victims = SmallVec<[WaiterId; 1]>;

impl FairQueue {
    /// Counts one more of a client.
    pub(super) fn count_in(&mut self, client: FlowKey, bytes: u64) {
        self.all.add(bytes);
        self.clients.entry(client).or_default().add(bytes);
    }

    /// Counts one less of it.
    pub(super) fn count_out(&mut self, client: FlowKey, bytes: u64) {
        self.all.take(bytes);
        if let Some(share) = self.clients.get_mut(&client) {
            share.take(bytes);
            if share.requests == 0 {
                self.clients.remove(&client);
            }
        }
    }

    /// Whether a client may have one more of so many bytes.
    pub(super) fn has_room_of_its_own(&self, client: FlowKey, bytes: u64) -> bool {
        let share = self.clients.get(&client).copied().unwrap_or_default();
        let all = share.bytes.saturating_add(bytes);
        share.requests < self.bounds.max_depth_per_client
            && (share.requests == 0 || all <= MOST_BYTES_OF_CLIENT)
    }

    /// Whether there is room for one more of so many bytes, whoever it is, once `gone` have gone.
    pub(super) fn has_room(&self, bytes: u64, gone: &[WaiterId]) -> bool {
        let freed = gone.iter().filter_map(|id| self.waiting(*id));
        let freed = freed.fold(0, |sum: u64, waiting| sum.saturating_add(waiting.bytes));
        let requests = usize::try_from(self.all.requests).unwrap_or(usize::MAX).saturating_sub(gone.len());
        let left = self.all.bytes.saturating_sub(freed);
        requests < usize::try_from(self.bounds.max_depth).unwrap_or(usize::MAX)
            && (requests == 0 || left.saturating_add(bytes) <= MOST_BYTES)
    }

    /// Who has to go so that this one fits; none goes where there is room. Changes nothing.
    pub(super) fn make_room(&self, wish: &Wish<'_>) -> Result<Victims, ShedReason> {
        let mut victims = self.make_time(wish)?;
        if !self.has_room(wish.bytes, &victims) {
            let victim = self.least_claim(wish)?;
            if !victims.contains(&victim) {
                victims.push(victim);
            }
        }
        if self.has_room(wish.bytes, &victims) { Ok(victims) } else { Err(ShedReason::QueueFull) }
    }

    /// The newest of the client with the most waiting, whatever for, of those with the least claim, if that is not the one
    /// who comes.
    fn least_claim(&self, wish: &Wish<'_>) -> Result<WaiterId, ShedReason> {
        for priority in Priority::ALL.into_iter().rev().take_while(|priority| *priority >= wish.priority) {
            let mut largest = self.flows.by_backlog(priority);
            let largest = largest.find_map(|(weighed, flow, id)| Some((weighed, self.newest(flow, id)?)));
            let Some((weighed, victim)) = largest else { continue };
            let own = || Virtual::of(self.waits_of(wish).saturating_add(wish.cost), wish.weight());
            let is_own = priority == wish.priority && own() >= weighed;
            return if is_own { Err(ShedReason::QueueFull) } else { Ok(victim) };
        }
        Err(ShedReason::QueueFull)
    }

    /// What of the flow of one who comes waits, for whatever runner.
    fn waits_of(&self, wish: &Wish<'_>) -> u64 {
        let flow = self.flows.find(wish.flow, wish.priority).and_then(|flow| self.flows.get(flow));
        flow.map_or(0, |flow| flow.cost)
    }

    /// The last of a flow to come, of those who have had no turn yet.
    fn newest(&self, flow: &Flow, id: FlowId) -> Option<WaiterId> {
        let lanes = flow.lanes.iter().filter_map(|lane| self.groups.get(*lane)?.newest(id));
        lanes.max_by_key(|(ticket, _)| *ticket).map(|(_, id)| id)
    }

    /// The same where what waits for a runner in a band is more work than may wait there: somebody of that band goes.
    fn make_time(&self, wish: &Wish<'_>) -> Result<Victims, ShedReason> {
        let band = wish.priority.band();
        let Some(group) = self.groups.of(wish.runner) else { return Ok(Victims::new()) };
        let waiting = group.cost_of(band);
        if waiting == 0 || !self.is_too_long(wish, waiting.saturating_add(wish.cost)) {
            return Ok(Victims::new());
        }
        let of_band = Priority::ALL.into_iter().rev().filter(|priority| priority.band() == band);
        for priority in of_band.take_while(|priority| *priority >= wish.priority) {
            let Some((weighed, seat)) = group.largest(priority) else { continue };
            let own = priority == wish.priority && self.weighed(wish) >= weighed;
            return if own { Err(ShedReason::QueueFull) } else { Ok(SmallVec::from_slice(&[seat.id])) };
        }
        Err(ShedReason::QueueFull)
    }

    /// Whether so much work takes longer than anybody of the band may wait.
    fn is_too_long(&self, wish: &Wish<'_>, cost: u64) -> bool {
        let longest = self.bounds.max_wait_of(wish.priority.band());
        self.time_for(&wish.runner.model, cost).is_some_and(|time| time > longest)
    }

    /// What the flow of one who comes would have waiting for its runner, over its weight.
    fn weighed(&self, wish: &Wish<'_>) -> Virtual {
        let flow = self.flows.find(wish.flow, wish.priority);
        let own = |flow: FlowId| self.groups.of(wish.runner).map_or(0, |group| group.cost_of_flow(flow));
        let waiting = flow.map_or(0, own).saturating_add(wish.cost);
        Virtual::of(waiting, wish.weight())
    }

    pub(super) fn shed(&self, reason: ShedReason, wish: &Wish<'_>) -> Shed {
        Shed {
            reason,
            estimated_wait: self.estimate(wish).unwrap_or(UNKNOWN_WAIT),
            position: self.groups.of(wish.runner).map_or(0, |group| group.waiting_before(wish.priority)),
            max_wait: self.bounds.max_wait_of(wish.priority.band()),
        }
    }
}

/// What is said of a wait when nothing has been learned of the model.
pub(super) const UNKNOWN_WAIT: Nanos = Nanos::from_secs(1);
