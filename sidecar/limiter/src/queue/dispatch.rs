//! Slots that are free go to who is next.

use smallvec::SmallVec;

use super::{
    Band, Dispatched, Entry, FairQueue, Priority, ShedReason, WaiterId, Waiting,
    flows::{FlowId, GroupId},
    group::{Group, Turn},
};
use crate::{ModelName, Nanos};

/// Who might go: first of its priority in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Choice {
    turn: Turn,
    priority: Priority,
    group: GroupId,
}

impl FairQueue {
    /// Hands every free slot to the waiter who is next for it, and names those who got one. `try_commit` is asked
    /// for each; `false` holds its flow back for this time, without blocking others.
    pub fn dispatch(&mut self, now: Nanos, mut try_commit: impl FnMut(WaiterId) -> bool) -> Dispatched {
        let mut done = Dispatched::default();
        let mut held_back: SmallVec<[(GroupId, FlowId); 8]> = SmallVec::new();
        self.recover(now);
        self.look_at_models(now);
        while let Some(Choice { turn, priority, group }) = self.next(now) {
            let newest_first = self.newest_first(priority.band());
            let head = self.groups.get(group).and_then(|group| group.head(turn.flow, newest_first));
            let Some((_, seat)) = head else { break };
            if self.is_late(seat.id, now) {
                done.late
                    .extend(self.take_out(seat.id, ShedReason::DeadlineMissed).map(|shed| (seat.id, shed)));
            } else if !try_commit(seat.id) {
                self.hold_back(seat.id);
                self.stand_aside(group, turn.flow);
                held_back.push((group, turn.flow));
                continue;
            } else if self.seat_to_slot(seat.id, now) {
                done.started.push(seat.id);
            }
            self.look_at_models(now);
        }
        for (group, flow) in held_back {
            self.come_back(group, flow);
        }
        done
    }

    /// Who is next of those for whom there is a slot. Keys only grow between the times that a flow lines up, so who is
    /// first may have to step back; then the next one is looked at.
    fn next(&mut self, now: Nanos) -> Option<Choice> {
        loop {
            let choice = self.first(|this, group, priority| {
                this.groups.get(group).is_some_and(|group| this.is_open(&group.runner, priority, now))
            })?;
            let key = self.flows.get(choice.turn.flow)?.account.key();
            if key == choice.turn.key {
                return Some(choice);
            }
            self.line_up(choice.turn.flow);
        }
    }

    /// Who is first of all whose group and priority may go: of the band that is furthest behind, the flow that is.
    fn first(&self, may: impl Fn(&Self, GroupId, Priority) -> bool) -> Option<Choice> {
        let mut first: [Option<Choice>; 4] = [None; 4];
        for (id, group) in self.groups.iter().filter(|(_, group)| group.has_ready()) {
            for priority in Priority::ALL {
                let Some(turn) = group.first(priority) else { continue };
                let Some(best) = first.get_mut(priority.band() as usize) else { continue };
                let choice = Choice { turn, priority, group: id };
                if best.is_none_or(|best| choice < best) && may(self, id, priority) {
                    *best = Some(choice);
                }
            }
        }
        let [interactive, standard, batch, spare] = first;
        let competing = [(Band::Interactive, interactive), (Band::Standard, standard), (Band::Batch, batch)];
        let competing = competing.into_iter().filter_map(|(band, choice)| Some((band, choice?)));
        let next = competing.min_by_key(|(band, _)| (self.band(*band).account.key(), *band));
        next.map(|(_, choice)| choice).or(spare)
    }

    /// If who is next in fair order waits for a model that is not loaded, somebody has to make way for it.
    fn look_at_models(&mut self, now: Nanos) {
        let groups = &self.groups;
        self.models.call_off(|runner| groups.of(runner).is_some_and(Group::has_waiters));
        if !self.groups.iter().any(|(_, group)| self.waits_for_load(group)) {
            return;
        }
        let Some(choice) = self.first(|_, _, _| true) else { return };
        let Some(group) = self.groups.get(choice.group) else { return };
        let to = (&group.runner, choice.priority.band());
        let groups = &self.groups;
        self.models.make_way(to, self.slots.models, |runner| groups.used(runner), now);
    }

    /// Slots that a model lost to signs of strain come back in time.
    fn recover(&mut self, now: Nanos) {
        let groups = &self.groups;
        let is_waited_for = |model: &ModelName| {
            groups.iter().any(|(_, group)| group.runner.model == *model && group.has_waiters())
        };
        self.models.recover(is_waited_for, now);
    }

    fn is_late(&self, id: WaiterId, now: Nanos) -> bool {
        let due = self.waiting(id).and_then(|waiting| waiting.due);
        due.is_some_and(|due| now.plus(due.needs) > due.at)
    }

    fn hold_back(&mut self, id: WaiterId) {
        if let Some(Entry::Waiting(waiting)) = self.entries.get_mut(&id)
            && !waiting.is_held_back
        {
            waiting.is_held_back = true;
            self.held_back = self.held_back.saturating_add(1);
        }
    }

    fn stand_aside(&mut self, group: GroupId, flow: FlowId) {
        if let Some(group) = self.groups.get_mut(group) {
            group.stand_aside(flow);
        }
    }

    fn come_back(&mut self, group: GroupId, flow: FlowId) {
        if let Some(group) = self.groups.get_mut(group) {
            group.come_back(flow);
        }
        self.line_up(flow);
    }

    /// Whoever waits gets a slot.
    fn seat_to_slot(&mut self, id: WaiterId, now: Nanos) -> bool {
        let Some(waiting) = self.rise(id) else { return false };
        let Waiting { client, flow, group, cost, since, .. } = waiting;
        let Some(band) = self.flows.get(flow).map(|flow| flow.priority.band()) else { return false };
        if band.is_waited_for() {
            let service = self.times.overall();
            self.band_mut(band).codel.started(now.since(since), service, now);
        }
        self.start(id, (flow, group), (client, cost), now);
        true
    }

    /// One who waits.
    pub(super) fn waiting(&self, id: WaiterId) -> Option<&Waiting> {
        match self.entries.get(&id) {
            Some(Entry::Waiting(waiting)) => Some(waiting),
            _ => None,
        }
    }
}
