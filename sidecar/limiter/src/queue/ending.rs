//! A request is over, wherever it was: it leaves, has waited too long, is pushed out, or has been served.

use super::{
    Arrival, Band, Entry, FairQueue, Priority, Running, Shed, ShedReason, WaiterId, Waiting, Wish,
    flows::{FlowId, GroupId},
    group::Ticket,
    service::Sample,
};
use crate::Nanos;

impl FairQueue {
    /// A request that runs has cost so much so far: what goes beyond what it is held to cost is charged now. Never less
    /// than before.
    pub fn progress(&mut self, id: WaiterId, cost: u64) {
        let Some(Entry::Running(running)) = self.entries.get_mut(&id) else { return };
        let (more, flow) = (running.grow(cost), running.flow);
        let Some(flow) = self.flows.get_mut(flow).filter(|_| more > 0) else { return };
        flow.account.charge(more);
        let band = flow.priority.band();
        self.band_mut(band).account.charge(more);
    }

    /// A request that had a slot has been served, and this is what it really cost; how long its model takes is learned.
    pub fn release(&mut self, id: WaiterId, cost: u64, now: Nanos) {
        let Some(running) = self.stop(id, cost, now) else { return };
        if let Some(group) = self.groups.get(running.group) {
            let sample = Sample { took: now.since(running.since), estimate: running.estimate };
            self.times.learn(&group.runner.model, sample);
            let model = group.runner.model.clone();
            let busy =
                group.running.saturating_add(1).saturating_mul(5) >= self.slots_of(&model).saturating_mul(4);
            let demand = busy || group.has_waiters();
            self.models.served(&model, demand, self.slots.per_model, now);
        }
        self.forget(running.flow, running.group);
    }

    /// A request that had a slot came to nothing: this is what it cost, and nothing is learned from how long that took.
    pub fn fail(&mut self, id: WaiterId, cost: u64, now: Nanos) {
        if let Some(running) = self.stop(id, cost, now) {
            self.forget(running.flow, running.group);
        }
    }

    /// A request gives its slot back, having cost so much, and waits for another one in front of all others of its
    /// client: for its next piece, or to be tried once more. It is never refused nor pushed out.
    pub fn again(&mut self, id: WaiterId, spent: u64, next: u64, now: Nanos) -> Arrival {
        let Some(running) = self.stop(id, spent, now) else { return Arrival::Wait { deadline: now } };
        let Running { client, flow, group, .. } = running;
        let Some(band) = self.flows.get(flow).map(|flow| flow.priority.band()) else {
            return Arrival::Wait { deadline: now };
        };
        self.ask(flow, band);
        self.tickets = self.tickets.saturating_add(1);
        let ticket = Ticket { is_new: false, number: self.tickets };
        let waiting = Waiting {
            client,
            flow,
            group,
            ticket,
            cost: next,
            bytes: 0,
            since: now,
            due: None,
            is_held_back: false,
        };
        self.sit(id, waiting, band);
        Arrival::Wait { deadline: now.plus(self.bounds.max_wait_of(band)) }
    }

    /// A request has gone: a waiter is unlinked at once; a slot it had is free again, and costs it nothing.
    pub fn leave(&mut self, id: WaiterId, now: Nanos) {
        self.unbook(id);
        if let Some(waiting) = self.rise(id) {
            self.line_up(waiting.flow, waiting.group);
            self.forget(waiting.flow, waiting.group);
        } else if let Some(running) = self.stop(id, 0, now) {
            self.forget(running.flow, running.group);
        }
    }

    /// The deadline of a waiter has come: it is out, and this is what to tell its client. None: it waits no more.
    pub fn time_out(&mut self, id: WaiterId) -> Option<Shed> {
        self.take_out(id, ShedReason::TimedOut)
    }

    /// Somebody with more claim to be there has come.
    pub(super) fn push_out(&mut self, id: WaiterId) -> Option<Shed> {
        self.take_out(id, ShedReason::PushedOut)
    }

    /// Takes a waiter out, and says what one like it would find now.
    pub(super) fn take_out(&mut self, id: WaiterId, reason: ShedReason) -> Option<Shed> {
        let waiting = self.rise(id)?;
        self.line_up(waiting.flow, waiting.group);
        let (flow, group) = (self.flows.get(waiting.flow)?, self.groups.get(waiting.group)?);
        let runner = group.runner.clone();
        let wish = Wish {
            flow: waiting.client,
            weight: flow.account.weight(),
            priority: flow.priority,
            cost: waiting.cost,
            ..Wish::slot(&runner)
        };
        let shed = self.shed(reason, &wish);
        self.forget(waiting.flow, waiting.group);
        Some(shed)
    }

    /// Gets up from among those who wait. Its flow and its group may be idle now; if not, the flow has to line up.
    pub(super) fn rise(&mut self, id: WaiterId) -> Option<Waiting> {
        self.waiting(id)?;
        let Some(Entry::Waiting(waiting)) = self.entries.remove(&id) else { return None };
        self.count_out(waiting.client, waiting.bytes);
        self.waiting = self.waiting.saturating_sub(1);
        self.held_back = self.held_back.saturating_sub(usize::from(waiting.is_held_back));
        let (flow, group) = (waiting.flow, waiting.group);
        if let (Some(known), Some(place)) = (self.flows.get_mut(flow), self.groups.get_mut(group)) {
            known.waiting = known.waiting.saturating_sub(1);
            known.cost = known.cost.saturating_sub(waiting.cost);
            if place.rise(flow, waiting.ticket) {
                known.lanes.retain(|lane| *lane != group);
            }
            let band = known.priority.band();
            let state = self.band_mut(band);
            state.waiting = state.waiting.saturating_sub(1);
            if state.waiting == 0 {
                state.codel.empty();
            }
        }
        Some(waiting)
    }

    /// Takes the slot back from one who had it, and settles what it was held to cost to what it did.
    fn stop(&mut self, id: WaiterId, cost: u64, now: Nanos) -> Option<Running> {
        if !matches!(self.entries.get(&id), Some(Entry::Running(_))) {
            return None;
        }
        let Some(Entry::Running(running)) = self.entries.remove(&id) else { return None };
        self.running = self.running.saturating_sub(1);
        let (of_flow, of_band) = running.epochs;
        if let Some(flow) = self.flows.get_mut(running.flow) {
            flow.running = flow.running.saturating_sub(1);
            flow.account.settle(running.held, cost, of_flow);
            let priority = flow.priority;
            let state = self.band_mut(priority.band());
            state.running = state.running.saturating_sub(1);
            state.served = state.served.saturating_add(cost);
            state.account.settle(running.held, cost, of_band);
            self.pass(priority.band(), cost);
            self.vacate(running.group, priority, now);
        }
        self.line_up(running.flow, running.group);
        Some(running)
    }

    /// The flows of a band have had so much among them.
    fn pass(&mut self, band: Band, cost: u64) {
        let weights = self.flows.weights(band);
        let state = self.band_mut(band);
        state.time.pass(cost, weights);
        let others = state.time.now();
        self.flows.caught_up(band, others);
    }

    fn vacate(&mut self, group: GroupId, priority: Priority, now: Nanos) {
        let Some(group) = self.groups.get_mut(group) else { return };
        group.vacate(priority);
        if group.running == 0 {
            self.models.at_rest(&group.runner, now);
        }
    }

    /// Forgets a flow and a group of which nothing is left. Where nothing is left of a band, its time moves on to the
    /// furthest of its flows, so that none of them owes anything to those who come next.
    fn forget(&mut self, flow: FlowId, group: GroupId) {
        self.groups.drop_if_idle(group);
        let Some(band) = self.flows.get(flow).map(|flow| flow.priority.band()) else { return };
        let others = self.band(band).time.now();
        self.flows.retire(flow, others);
        let state = self.band(band);
        if state.waiting == 0 && state.running == 0 {
            self.settle_band(band);
        }
    }

    fn settle_band(&mut self, band: Band) {
        let furthest = self.flows.furthest_idle(band);
        self.band_mut(band).time.rest(furthest);
        let others = self.band(band).time.now();
        self.flows.caught_up(band, others);
        if self.waiting == 0 && self.running == 0 {
            let furthest = self.bands.iter().map(|band| band.account.key()).max();
            self.time = furthest.map_or(self.time, |key| key.max(self.time));
        }
    }
}
