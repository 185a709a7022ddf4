//! Slots that are free go to who is next.

use smallvec::SmallVec;

use super::{
    Band, Dispatched, Entry, FairQueue, Priority, Runner, ShedReason, WaiterId, Waiting,
    account::Virtual,
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
                self.stand_aside(group, turn.flow, now);
                held_back.push((group, turn.flow));
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
            self.line_up(choice.turn.flow, choice.group);
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

    /// Whoever is next of those whose model is not loaded takes the place of one who is loaded and comes after it in fair
    /// order. It is compared with those who wait for that place alone: bands and flows that others serve at the same time
    /// may be far ahead or behind.
    fn look_at_models(&mut self, now: Nanos) {
        let groups = &self.groups;
        let may_be_loaded = |group: &Group| group.may_be_loaded(now);
        self.models.call_off(|runner| groups.of(runner).is_some_and(may_be_loaded));
        if !self.groups.iter().any(|(_, group)| self.waits_for_load(group)) {
            return;
        }
        let is_stranger = |group: &Group| !self.models.is_resident(&group.runner) && group.may_be_loaded(now);
        let Some(choice) = self.first(|this, id, _| this.groups.get(id).is_some_and(is_stranger)) else {
            return;
        };
        let Some(group) = self.groups.get(choice.group) else { return };
        let comes_after = |runner: &Runner| {
            let own =
                self.first(|this, id, _| this.groups.get(id).is_some_and(|group| group.runner == *runner));
            own.is_none_or(|own| self.order(&choice) < self.order(&own))
        };
        let to = (group.runner.clone(), choice.priority.band());
        let residents = self.models.residents().iter().map(|resident| &resident.runner);
        let after: SmallVec<[Runner; 4]> = residents.filter(|runner| comes_after(runner)).cloned().collect();
        let groups = &self.groups;
        let used = |runner: &Runner| groups.used(runner);
        self.models.make_way((&to.0, to.1), self.slots.models, used, |runner| after.contains(runner), now);
    }

    /// Fair order over all bands; who may only have what is to spare comes last.
    fn order(&self, choice: &Choice) -> (bool, Virtual, Band, Turn) {
        let band = choice.priority.band();
        (band == Band::Spare, self.band(band).account.key(), band, choice.turn)
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

    fn stand_aside(&mut self, group: GroupId, flow: FlowId, now: Nanos) {
        if let Some(group) = self.groups.get_mut(group) {
            group.stand_aside(flow, now);
            group.refused(now);
        }
    }

    fn come_back(&mut self, group: GroupId, flow: FlowId) {
        if let Some(known) = self.groups.get_mut(group) {
            known.come_back(flow);
        }
        self.line_up(flow, group);
    }

    /// Whoever waits gets a slot.
    fn seat_to_slot(&mut self, id: WaiterId, now: Nanos) -> bool {
        let waits_for_slot = self.waiting(id).is_some_and(|waiting| !self.was_held_up(waiting));
        let Some(waiting) = self.rise(id) else { return false };
        let Waiting { client, flow, group, cost, since, .. } = waiting;
        let Some(band) = self.flows.get(flow).map(|flow| flow.priority.band()) else { return false };
        if band.is_waited_for() && waits_for_slot {
            let service = self.times.overall();
            self.band_mut(band).codel.started(now.since(since), service, now);
        }
        self.start(id, (flow, group), (client, cost), now);
        true
    }

    /// Whether limits held up its flow while it waited: how long that was says nothing of the queue.
    fn was_held_up(&self, waiting: &Waiting) -> bool {
        let refused = self.groups.get(waiting.group).and_then(|group| group.last_refused(waiting.flow));
        refused.is_some_and(|at| at >= waiting.since)
    }

    /// One who waits.
    pub(super) fn waiting(&self, id: WaiterId) -> Option<&Waiting> {
        match self.entries.get(&id) {
            Some(Entry::Waiting(waiting)) => Some(waiting),
            _ => None,
        }
    }
}
