//! The requests for one runner: how many of its slots are taken, and who waits for one, flow by flow.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use hashbrown::HashMap;

use super::{Band, Priority, Runner, WaiterId, account::Virtual, flows::FlowId};
use crate::Nanos;

/// So long no other runner makes way for those whose limits have just said no.
const AFTER_REFUSAL: Nanos = Nanos::from_secs(20);

/// The order in which requests came; those that come again after their first turn are before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket {
    pub(super) is_new: bool,
    pub(super) number: u64,
}

/// Whose turn it is, where several might go: the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Turn {
    pub(super) key: Virtual,
    pub(super) ticket: Ticket,
    pub(super) flow: FlowId,
}

/// One who waits, as its group knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) id: WaiterId,
    pub(super) cost: u64,
    pub(super) since: Nanos,
}

/// Who waits for one runner.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) runner: Runner,
    pub(super) running: u32,
    /// How many of them there are of each priority.
    busy: [u32; 5],
    lanes: HashMap<FlowId, Lane>,
    ready: [BTreeSet<Turn>; 5],
    /// Lanes by how much waits in them over the weight of their client.
    backlog: [BTreeSet<(Virtual, FlowId)>; 5],
    waiting: [u32; 5],
    cost: [u64; 5],
    /// Of the flows that wait, by band.
    weights: [u64; 4],
    /// When the limits of all who wait said no last, since somebody came who has none to ask.
    refused: Option<Nanos>,
}

/// Those of one flow that wait for one runner, first come first served.
#[derive(Debug, Clone)]
struct Lane {
    priority: Priority,
    seats: BTreeMap<Ticket, Seat>,
    cost: u64,
    /// Of its flow, as it counts among `weights`.
    weight: u32,
    /// Under what it stands among those that are ready, and in the backlog.
    turn: Option<Turn>,
    weighed: Option<Virtual>,
    /// Its limits have just said no: it is not asked again before the next dispatch.
    is_aside: bool,
    /// When they did so last.
    refused: Option<Nanos>,
}

impl Group {
    pub(super) fn new(runner: Runner) -> Self {
        Self {
            runner,
            running: 0,
            busy: [0; 5],
            lanes: HashMap::new(),
            ready: Default::default(),
            backlog: Default::default(),
            waiting: [0; 5],
            cost: [0; 5],
            weights: [0; 4],
            refused: None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.lanes.is_empty()
    }

    /// A request of this priority takes one of the slots.
    pub(super) fn occupy(&mut self, priority: Priority) {
        self.running = self.running.saturating_add(1);
        add(&mut self.busy, priority, 1);
    }

    /// It gives it back.
    pub(super) fn vacate(&mut self, priority: Priority) {
        self.running = self.running.saturating_sub(1);
        take_one(&mut self.busy, priority);
    }

    /// Whether one of so many slots is free for this priority, where some of them are kept for critical requests. Those that
    /// are critical already fill what is kept first.
    pub(super) fn has_slot(&self, priority: Priority, slots: u32, kept: u32) -> bool {
        let others = self.running.saturating_sub(count(&self.busy, Priority::Critical));
        self.running < slots && (priority == Priority::Critical || others < slots.saturating_sub(kept))
    }

    pub(super) fn has_waiters(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Whether somebody waits whose limits have not just said no.
    pub(super) fn has_ready(&self) -> bool {
        self.ready.iter().any(|ready| !ready.is_empty())
    }

    /// Whether somebody waits for whom the runner may be loaded in the place of another. Only who is given a slot has its
    /// limits asked, so those whose limits say no would drain other runners in vain: they have another try later.
    pub(super) fn may_be_loaded(&self, now: Nanos) -> bool {
        self.has_ready() && self.next_try().is_none_or(|at| now >= at)
    }

    /// When the limits of those who wait may be worth a load again, where all of them have just said no.
    pub(super) fn next_try(&self) -> Option<Nanos> {
        self.refused.map(|at| at.plus(AFTER_REFUSAL))
    }

    /// The limits of somebody said no.
    pub(super) fn refused(&mut self, now: Nanos) {
        if !self.has_ready() {
            self.refused = Some(now);
        }
    }

    /// Somebody comes who has no limits to ask.
    pub(super) fn has_hope(&mut self) {
        self.refused = None;
    }

    /// The most urgent band in which somebody waits.
    pub(super) fn most_urgent_waiting(&self) -> Option<Band> {
        most_urgent(&self.waiting)
    }

    /// The most urgent band of those that run.
    pub(super) fn most_urgent_running(&self) -> Option<Band> {
        most_urgent(&self.busy)
    }

    /// How many wait in the bands that go before one more of this priority, or beside it.
    pub(super) fn waiting_before(&self, priority: Priority) -> u32 {
        let before = |other: &Priority| other.band() <= priority.band();
        let counts = Priority::ALL.into_iter().filter(before);
        counts.fold(0, |sum, other| sum.saturating_add(count(&self.waiting, other)))
    }

    /// What waits in a band is estimated to cost.
    pub(super) fn cost_of(&self, band: Band) -> u64 {
        let of_band = Priority::ALL.into_iter().filter(|priority| priority.band() == band);
        let costs = of_band.filter_map(|priority| self.cost.get(priority as usize));
        costs.fold(0, |sum: u64, cost| sum.saturating_add(*cost))
    }

    /// What of a flow waits here is estimated to cost.
    pub(super) fn cost_of_flow(&self, flow: FlowId) -> u64 {
        self.lanes.get(&flow).map_or(0, |lane| lane.cost)
    }

    /// Who has waited longest.
    pub(super) fn oldest(&self) -> Option<Nanos> {
        self.lanes.values().flat_map(|lane| lane.seats.values()).map(|seat| seat.since).min()
    }

    /// The weights of the flows that wait here, and one for each request that runs.
    pub(super) fn weight(&self) -> u64 {
        self.weights.iter().fold(self.running.into(), |sum: u64, weight| sum.saturating_add(*weight))
    }

    /// The weights of the other flows of a band that wait here.
    pub(super) fn weight_of_others(&self, band: Band, flow: Option<FlowId>) -> u64 {
        let all = self.weights.get(band as usize).copied().unwrap_or_default();
        let own = flow.and_then(|flow| self.lanes.get(&flow)).map_or(0, |lane| u64::from(lane.weight));
        all.saturating_sub(own)
    }

    /// Whose turn it is at a priority.
    pub(super) fn first(&self, priority: Priority) -> Option<Turn> {
        self.ready.get(priority as usize)?.first().copied()
    }

    /// Who goes when it is the turn of a flow: who came first, or last where `newest_first`.
    pub(super) fn head(&self, flow: FlowId, newest_first: bool) -> Option<(Ticket, Seat)> {
        let seats = &self.lanes.get(&flow)?.seats;
        let first = seats.first_key_value()?;
        let head = if newest_first && first.0.is_new { seats.last_key_value()? } else { first };
        Some((*head.0, *head.1))
    }

    /// Sits down; returns whether the flow did not wait here before.
    pub(super) fn sit(&mut self, (flow, priority): (FlowId, Priority), ticket: Ticket, seat: Seat) -> bool {
        add(&mut self.waiting, priority, 1);
        if let Some(cost) = self.cost.get_mut(priority as usize) {
            *cost = cost.saturating_add(seat.cost);
        }
        let is_first = !self.lanes.contains_key(&flow);
        let lane = self.lanes.entry(flow).or_insert_with(|| Lane::new(priority));
        lane.cost = lane.cost.saturating_add(seat.cost);
        lane.seats.insert(ticket, seat);
        is_first
    }

    /// Gets up; returns whether that was the last of its flow here.
    pub(super) fn rise(&mut self, flow: FlowId, ticket: Ticket) -> bool {
        let Some(lane) = self.lanes.get_mut(&flow) else { return false };
        let Some(seat) = lane.seats.remove(&ticket) else { return false };
        let priority = lane.priority;
        lane.cost = lane.cost.saturating_sub(seat.cost);
        let is_empty = lane.seats.is_empty();
        take_one(&mut self.waiting, priority);
        if let Some(cost) = self.cost.get_mut(priority as usize) {
            *cost = cost.saturating_sub(seat.cost);
        }
        if is_empty {
            if let Some(sum) = self.weights.get_mut(priority.band() as usize) {
                *sum = sum.saturating_sub(lane.weight.into());
            }
            self.leave_line(flow);
            self.unweigh(flow);
            self.lanes.remove(&flow);
        }
        is_empty
    }

    /// Puts a flow in line by its key and weight as they are now. Where it stands so already, nothing is moved.
    pub(super) fn line_up(&mut self, flow: FlowId, key: Virtual, weight: u32) {
        let Some(lane) = self.lanes.get_mut(&flow) else { return };
        let Some((ticket, _)) = lane.seats.first_key_value() else { return };
        let turn = (!lane.is_aside).then_some(Turn { key, ticket: *ticket, flow });
        let weighed = Some(Virtual::of(lane.cost, weight));
        if let Some(sum) = self.weights.get_mut(lane.priority.band() as usize) {
            *sum = sum.saturating_sub(lane.weight.into()).saturating_add(weight.into());
        }
        lane.weight = weight;
        let turned = mem::replace(&mut lane.turn, turn);
        let before = mem::replace(&mut lane.weighed, weighed);
        let place = lane.priority as usize;
        if let Some(ready) = self.ready.get_mut(place) {
            replace(ready, turned, turn);
        }
        if let Some(backlog) = self.backlog.get_mut(place) {
            replace(backlog, before.map(|weighed| (weighed, flow)), weighed.map(|weighed| (weighed, flow)));
        }
    }

    /// Takes a flow out of the line, however often it lines up, until it comes back.
    pub(super) fn stand_aside(&mut self, flow: FlowId, now: Nanos) {
        self.leave_line(flow);
        if let Some(lane) = self.lanes.get_mut(&flow) {
            (lane.is_aside, lane.refused) = (true, Some(now));
        }
    }

    /// When the limits of a flow said no last, since it waits here.
    pub(super) fn last_refused(&self, flow: FlowId) -> Option<Nanos> {
        self.lanes.get(&flow)?.refused
    }

    /// It may line up again.
    pub(super) fn come_back(&mut self, flow: FlowId) {
        if let Some(lane) = self.lanes.get_mut(&flow) {
            lane.is_aside = false;
        }
    }

    fn leave_line(&mut self, flow: FlowId) {
        if let Some(lane) = self.lanes.get_mut(&flow)
            && let Some(turn) = lane.turn.take()
            && let Some(ready) = self.ready.get_mut(lane.priority as usize)
        {
            ready.remove(&turn);
        }
    }

    fn unweigh(&mut self, flow: FlowId) {
        if let Some(lane) = self.lanes.get_mut(&flow)
            && let Some(weighed) = lane.weighed.take()
            && let Some(backlog) = self.backlog.get_mut(lane.priority as usize)
        {
            backlog.remove(&(weighed, flow));
        }
    }

    /// The last of a flow to come, of those who have had no turn yet.
    pub(super) fn newest(&self, flow: FlowId) -> Option<(Ticket, WaiterId)> {
        let (ticket, seat) = self.lanes.get(&flow)?.seats.last_key_value()?;
        ticket.is_new.then_some((*ticket, seat.id))
    }

    /// The newest of the flow of this priority that has the most waiting over its weight, and how much that is. Those
    /// who have had a turn already are not among them.
    pub(super) fn largest(&self, priority: Priority) -> Option<(Virtual, Seat)> {
        let backlog = self.backlog.get(priority as usize)?;
        backlog.iter().rev().find_map(|(weighed, flow)| {
            let (ticket, seat) = self.lanes.get(flow)?.seats.last_key_value()?;
            ticket.is_new.then_some((*weighed, *seat))
        })
    }
}

impl Lane {
    fn new(priority: Priority) -> Self {
        Self {
            priority,
            seats: BTreeMap::new(),
            cost: 0,
            weight: 0,
            turn: None,
            weighed: None,
            is_aside: false,
            refused: None,
        }
    }
}

/// Puts one in the place of another.
fn replace<T: Ord>(set: &mut BTreeSet<T>, before: Option<T>, after: Option<T>) {
    if before == after {
        return;
    }
    if let Some(before) = before {
        set.remove(&before);
    }
    set.extend(after);
}

fn add(counts: &mut [u32; 5], priority: Priority, more: u32) {
    if let Some(count) = counts.get_mut(priority as usize) {
        *count = count.saturating_add(more);
    }
}

fn take_one(counts: &mut [u32; 5], priority: Priority) {
    if let Some(count) = counts.get_mut(priority as usize) {
        *count = count.saturating_sub(1);
    }
}

fn count(counts: &[u32; 5], priority: Priority) -> u32 {
    counts.get(priority as usize).copied().unwrap_or_default()
}

fn most_urgent(counts: &[u32; 5]) -> Option<Band> {
    Priority::ALL.into_iter().find(|priority| count(counts, *priority) > 0).map(Priority::band)
}
