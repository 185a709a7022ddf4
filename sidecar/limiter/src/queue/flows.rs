//! The flows of all bands: what each client has waiting and running at one priority, and its account.
//!
//! A flow is kept while something of it waits or runs, and then until the others have caught up with what it had, for from
//! there on a new one would be no different. Their number is bounded: beyond it idle ones are forgotten, and where none is
//! idle clients share 256 flows by chance.

use std::{collections::BTreeSet, mem};

use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;

use super::{
    Band, FlowKey, Priority,
    account::{Account, Virtual},
};

/// The most flows that clients have for themselves.
const MOST_FLOWS: usize = 10_000;
/// The flows that all others share.
const OVERFLOW_FLOWS: u128 = 256;

/// Names a flow while it lives.
pub(super) type FlowId = usize;
/// Names a group while it lives.
pub(super) type GroupId = usize;

/// What a client has waiting and running at one priority.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    client: FlowKey,
    pub(super) priority: Priority,
    pub(super) account: Account,
    pub(super) waiting: u32,
    pub(super) running: u32,
    /// What of it waits is estimated to cost, and under what it stands in the backlog.
    pub(super) cost: u64,
    weighed: Option<Virtual>,
    /// The key and the weight by which it stands in line wherever it waits.
    pub(super) lined_up: Option<(Virtual, u32)>,
    /// Its weight as it counts among those that wait or run; none where it is idle.
    counted: u32,
    /// The groups in which it waits.
    pub(super) lanes: SmallVec<[GroupId; 2]>,
    /// Where it stands among the idle ones of its band.
    idle_at: Option<Virtual>,
}

impl Flow {
    fn is_idle(&self) -> bool {
        self.waiting == 0 && self.running == 0
    }
}

/// All flows.
#[derive(Debug, Clone, Default)]
pub(super) struct Flows {
    all: Slab<Flow>,
    by_client: HashMap<(Priority, FlowKey), FlowId>,
    /// Those that wait, by priority: by how much, over the weight of the client.
    backlog: [BTreeSet<(Virtual, FlowId)>; 5],
    /// The weights of those that wait or run, by band.
    weights: [u32; 4],
    /// Those with nothing in the queue, by band; the first are forgotten first.
    idle: [BTreeSet<(Virtual, FlowId)>; 4],
}

impl Flows {
    pub(super) fn get(&self, id: FlowId) -> Option<&Flow> {
        self.all.get(id)
    }

    pub(super) fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.all.get_mut(id)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The flow of a client, which is new where the others are, or goes by another weight from now on.
    pub(super) fn find_or_make(
        &mut self,
        (client, priority): (FlowKey, Priority),
        weight: u32,
        others: Virtual,
    ) -> FlowId {
        let client = self.own_or_shared(client, priority);
        if let Some(id) = self.by_client.get(&(priority, client)) {
            let id = *id;
            if let Some(flow) = self.all.get_mut(id) {
                flow.account.set_weight(weight);
            }
            self.wake(id);
            return id;
        }
        let account = Account::new(weight, others);
        let id = self.all.insert(Flow {
            client,
            priority,
            account,
            waiting: 0,
            running: 0,
            cost: 0,
            weighed: None,
            counted: 0,
            lined_up: None,
            lanes: SmallVec::new(),
            idle_at: None,
        });
        self.by_client.insert((priority, client), id);
        id
    }

    /// The flow that a client has, if it has one.
    pub(super) fn find(&self, client: FlowKey, priority: Priority) -> Option<FlowId> {
        self.by_client.get(&(priority, client)).copied()
    }

    fn own_or_shared(&mut self, client: FlowKey, priority: Priority) -> FlowKey {
        if self.by_client.contains_key(&(priority, client))
            || self.all.len() < MOST_FLOWS
            || self.forget_one()
        {
            return client;
        }
        FlowKey(client.0.checked_rem(OVERFLOW_FLOWS).unwrap_or_default())
    }

    /// Forgets the idle flow that is least ahead of the others of its band.
    fn forget_one(&mut self) -> bool {
        let first = self.idle.iter().find_map(|idle| idle.first().copied());
        if let Some((_, id)) = first {
            self.forget(id);
        }
        first.is_some()
    }

    fn forget(&mut self, id: FlowId) {
        self.wake(id);
        if let Some(flow) = self.all.try_remove(id) {
            self.by_client.remove(&(flow.priority, flow.client));
        }
    }

    /// It is idle no more.
    fn wake(&mut self, id: FlowId) {
        if let Some(flow) = self.all.get_mut(id)
            && let Some(at) = flow.idle_at.take()
            && let Some(idle) = of_band(&mut self.idle, flow.priority.band())
        {
            idle.remove(&(at, id));
        }
    }

    /// Something of it has gone: where nothing is left, it is forgotten once the others have caught up.
    pub(super) fn retire(&mut self, id: FlowId, others: Virtual) {
        self.wake(id);
        let Some(flow) = self.all.get_mut(id).filter(|flow| flow.is_idle()) else { return };
        let key = flow.account.key();
        if key <= others {
            return self.forget(id);
        }
        flow.idle_at = Some(key);
        if let Some(idle) = of_band(&mut self.idle, flow.priority.band()) {
            idle.insert((key, id));
        }
    }

    /// The others of a band have come this far: forgets who has nothing ahead of them any more.
    pub(super) fn caught_up(&mut self, band: Band, others: Virtual) {
        while let Some((_, id)) = of_band(&mut self.idle, band)
            .and_then(|idle| idle.first().copied())
            .filter(|(key, _)| *key <= others)
        {
            self.forget(id);
        }
    }

    /// The weights of all flows of a band that wait or run.
    pub(super) fn weights(&self, band: Band) -> u32 {
        self.weights.get(band as usize).copied().unwrap_or_default()
    }

    /// What waits or runs of a flow, or its weight, is another.
    pub(super) fn weigh(&mut self, id: FlowId) {
        let Some(flow) = self.all.get_mut(id) else { return };
        let counts = if flow.is_idle() { 0 } else { flow.account.weight() };
        let counted = mem::replace(&mut flow.counted, counts);
        if let Some(weights) = of_band(&mut self.weights, flow.priority.band()) {
            *weights = weights.saturating_sub(counted).saturating_add(counts);
        }
        let weighed = (flow.waiting > 0).then(|| Virtual::of(flow.cost, flow.account.weight()));
        let before = mem::replace(&mut flow.weighed, weighed);
        let Some(backlog) = self.backlog.get_mut(flow.priority as usize).filter(|_| before != weighed) else {
            return;
        };
        if let Some(before) = before {
            backlog.remove(&(before, id));
        }
        backlog.extend(weighed.map(|weighed| (weighed, id)));
    }

    /// The flows of a priority that wait, those with the most over their weight first.
    pub(super) fn by_backlog(&self, priority: Priority) -> impl Iterator<Item = (Virtual, &Flow, FlowId)> {
        let all = self.backlog.get(priority as usize).into_iter().flat_map(|backlog| backlog.iter().rev());
        all.filter_map(|(weighed, id)| Some((*weighed, self.all.get(*id)?, *id)))
    }

    /// How far the furthest of the idle flows of a band has come.
    pub(super) fn furthest_idle(&self, band: Band) -> Option<Virtual> {
        self.idle.get(band as usize).and_then(|idle| idle.last()).map(|(key, _)| *key)
    }
}

fn of_band<T>(list: &mut [T; 4], band: Band) -> Option<&mut T> {
    list.get_mut(band as usize)
}
