//! A request comes: it gets a slot, waits, or is refused and leaves no trace.

use super::{
    Arrival, Arrived, Band, Entry, FairQueue, FlowKey, Priority, Runner, Running, Shed, ShedReason, WaiterId,
    Waiting, Wish,
    flows::{FlowId, GroupId},
    group::{Group, Seat, Ticket},
};
use crate::Nanos;

impl FairQueue {
    /// A request comes: it gets a slot, waits, or is refused and leaves no trace. It never overtakes a waiter who might
    /// use the same slot; what it then takes is decided by [`Self::dispatch`].
    ///
    /// It is refused where its client has as much waiting as it may, where the queue is full and nobody in it has less
    /// claim to be there, and where others wait for its model and it would probably wait longer than it may or than its
    /// client does. Where nobody waits for its model no estimate refuses it: that may be wrong, and only those who are let
    /// in can correct it.
    pub fn arrive(&mut self, id: WaiterId, wish: Wish<'_>, now: Nanos) -> Result<Arrived, Shed> {
        let starts = !wish.is_pending && self.starts_at_once(wish.runner, wish.priority, now);
        let mut pushed_out = super::bounds::Victims::new();
        if !starts {
            pushed_out = self.check(&wish, now).map_err(|reason| self.shed(reason, &wish))?;
        }
        let pushed_out = pushed_out.into_iter().filter_map(|id| Some((id, self.push_out(id)?))).collect();
        let arrival = self.enter(id, &wish, starts, now);
        Ok(Arrived { arrival, pushed_out })
    }

    /// Whether a request that comes now would start without waiting, if its limits let it.
    pub fn starts_at_once(&self, runner: &Runner, priority: Priority, now: Nanos) -> bool {
        self.is_open(runner, priority, now) && !self.groups.of(runner).is_some_and(Group::has_waiters)
    }

    /// A request may come only later: it takes a place now, so that it is not refused then, or is refused and leaves no
    /// trace. It comes by [`Self::join`] or goes by [`Self::leave`].
    pub fn book(&mut self, id: WaiterId, client: FlowKey, bytes: u64) -> Result<(), Shed> {
        let reason = if !self.has_room_of_its_own(client, bytes) {
            ShedReason::ClientFull
        } else if !self.has_room(bytes, &[]) {
            ShedReason::QueueFull
        } else {
            self.count_in(client, bytes);
            self.entries.insert(id, Entry::Booked { client, bytes });
            return Ok(());
        };
        let estimated_wait = super::bounds::UNKNOWN_WAIT;
        Err(Shed { reason, estimated_wait, position: self.all.requests, max_wait: self.bounds.max_wait })
    }

    /// A request comes that has booked its place: it gets a slot, or waits.
    pub fn join(&mut self, id: WaiterId, wish: Wish<'_>, now: Nanos) -> Arrival {
        self.unbook(id);
        let starts = !wish.is_pending && self.starts_at_once(wish.runner, wish.priority, now);
        self.enter(id, &wish, starts, now)
    }

    /// It has booked no place any more.
    pub(super) fn unbook(&mut self, id: WaiterId) {
        if let Some(Entry::Booked { client, bytes }) = self.entries.get(&id) {
            let (client, bytes) = (*client, *bytes);
            self.entries.remove(&id);
            self.count_out(client, bytes);
        }
    }

    fn check(&self, wish: &Wish<'_>, now: Nanos) -> Result<super::bounds::Victims, ShedReason> {
        if self.bounds.max_depth == 0 {
            return Err(ShedReason::QueueFull);
        }
        if !self.has_room_of_its_own(wish.flow, wish.bytes) {
            return Err(ShedReason::ClientFull);
        }
        // Where a slot is free, those who wait are held back by their limits, and nobody waits behind them.
        let somebody_waits = self.groups.of(wish.runner).is_some_and(Group::has_waiters)
            && !self.is_open(wish.runner, wish.priority, now);
        let longest = self.patience(wish, now);
        if somebody_waits && self.estimate(wish).is_some_and(|wait| wait > longest) {
            return Err(ShedReason::WaitTooLong);
        }
        self.make_room(wish)
    }

    /// How long it waits at most.
    fn patience(&self, wish: &Wish<'_>, now: Nanos) -> Nanos {
        let band = wish.priority.band();
        let longest = self.bounds.max_wait_of(band);
        let longest = self.band(band).codel.patience(longest, self.times.overall());
        let own = wish.due.map(|due| due.longest_wait(now));
        [wish.max_wait, own].into_iter().flatten().fold(longest, Nanos::min)
    }

    fn enter(&mut self, id: WaiterId, wish: &Wish<'_>, starts: bool, now: Nanos) -> Arrival {
        let deadline = now.plus(self.patience(wish, now));
        if wish.priority == Priority::Critical {
            self.last_critical = Some(now);
        }
        let band = wish.priority.band();
        let others = self.band(band).time.now();
        let flow = self.flows.find_or_make((wish.flow, wish.priority), wish.weight(), others);
        let group = self.groups.find_or_make(wish.runner);
        if let Some(group) = self.groups.get_mut(group).filter(|_| !wish.is_pending) {
            group.has_hope();
        }
        self.ask(flow, band);
        if starts {
            self.start(id, (flow, group), (wish.flow, wish.cost), now);
            return Arrival::Start;
        }
        self.tickets = self.tickets.saturating_add(1);
        let ticket = Ticket { is_new: true, number: self.tickets };
        let waiting = Waiting {
            client: wish.flow,
            flow,
            group,
            ticket,
            cost: wish.cost,
            bytes: wish.bytes,
            since: now,
            due: wish.due,
            is_held_back: false,
        };
        self.sit(id, waiting, band);
        Arrival::Wait { deadline }
    }

    /// A flow asks for a slot: if nothing of it, or of its band, waited before, it begins where the others are.
    pub(super) fn ask(&mut self, flow: FlowId, band: Band) {
        let (time, others) = (self.time, self.band(band).time.now());
        if let Some(known) = self.flows.get_mut(flow).filter(|known| known.waiting == 0) {
            known.account.lift(others);
        }
        let state = self.band_mut(band);
        if state.waiting == 0 {
            state.account.lift(time);
        }
    }

    /// Sits down among those who wait.
    pub(super) fn sit(&mut self, id: WaiterId, waiting: Waiting, band: Band) {
        let seat = Seat { id, cost: waiting.cost, since: waiting.since };
        let (flow, group) = (waiting.flow, waiting.group);
        self.count_in(waiting.client, waiting.bytes);
        self.waiting = self.waiting.saturating_add(1);
        let state = self.band_mut(band);
        state.waiting = state.waiting.saturating_add(1);
        if let (Some(known), Some(place)) = (self.flows.get_mut(flow), self.groups.get_mut(group)) {
            known.waiting = known.waiting.saturating_add(1);
            known.cost = known.cost.saturating_add(waiting.cost);
            if place.sit((flow, known.priority), waiting.ticket, seat) {
                known.lanes.push(group);
            }
        }
        self.entries.insert(id, Entry::Waiting(waiting));
        self.line_up(flow, group);
    }

    /// Gives it a slot: the virtual time of its band and of its flow moves on to where they were, and both are charged.
    pub(super) fn start(
        &mut self,
        id: WaiterId,
        (flow, group): (FlowId, GroupId),
        (client, cost): (FlowKey, u64),
        now: Nanos,
    ) {
        let Some(known) = self.flows.get_mut(flow) else { return };
        let (key, priority) = (known.account.key(), known.priority);
        let band = priority.band();
        known.running = known.running.saturating_add(1);
        let held = self.take_slot(group, priority, now).saturating_add(cost);
        let Some(known) = self.flows.get_mut(flow) else { return };
        known.account.charge(held);
        let of_flow = known.account.epoch();
        let state = self.band_mut(band);
        state.time.start(key);
        state.running = state.running.saturating_add(1);
        let (others, of_band, key) = (state.time.now(), state.account.epoch(), state.account.key());
        state.account.charge(held);
        self.time = self.time.max(key);
        self.running = self.running.saturating_add(1);
        let epochs = (of_flow, of_band);
        let running = Running { client, flow, group, estimate: cost, held, epochs, since: now };
        self.entries.insert(id, Entry::Running(running));
        self.flows.caught_up(band, others);
        self.line_up(flow, group);
    }

    /// Takes one of a group's slots. Returns what loading its model will probably cost; nothing where it is loaded.
    fn take_slot(&mut self, group: GroupId, priority: Priority, now: Nanos) -> u64 {
        let Some(runner) = self.groups.get(group).map(|group| group.runner.clone()) else { return 0 };
        let is_resident = self.models.is_resident(&runner);
        let groups = &self.groups;
        self.models.start(&runner, self.slots.models, |runner| groups.used(runner), now);
        if let Some(group) = self.groups.get_mut(group) {
            group.occupy(priority);
        }
        if is_resident { 0 } else { self.times.cost_of(&runner.model, self.models.load_time(&runner.model)) }
    }
}
