//! The requests of one model: those that run, and those that wait, of each rank in the order in which they came.

use std::{collections::BTreeMap, ops::Bound};

use super::{Rank, SlotBounds, WaiterId};
use crate::Nanos;

#[derive(Debug, Default)]
pub(super) struct Group {
    running: u32,
    normal: BTreeMap<u64, Waiter>,
    spare: BTreeMap<u64, Waiter>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) id: WaiterId,
    pub(super) since: Nanos,
}

impl Group {
    /// Whether one more of the model may run, as far as the model goes.
    pub(super) fn has_slot(&self, slots: SlotBounds) -> bool {
        self.running < slots.per_model
    }

    pub(super) fn depth(&self) -> usize {
        self.normal.len().saturating_add(self.spare.len())
    }

    /// How many wait before one more of a rank.
    pub(super) fn before(&self, rank: Rank) -> usize {
        match rank {
            Rank::Normal => self.normal.len(),
            Rank::Spare => self.depth(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.depth() == 0
    }

    /// Who has waited longest, of either rank.
    pub(super) fn oldest(&self) -> Option<&Waiter> {
        let heads = [&self.normal, &self.spare].into_iter().filter_map(BTreeMap::first_key_value);
        heads.min_by_key(|(ticket, _)| **ticket).map(|(_, waiter)| waiter)
    }

    /// Who came first of those of a rank after a ticket.
    pub(super) fn next_after(&self, rank: Rank, ticket: u64) -> Option<(u64, WaiterId)> {
        let mut after = self.of(rank).range((Bound::Excluded(ticket), Bound::Unbounded));
        after.next().map(|(ticket, waiter)| (*ticket, waiter.id))
    }

    pub(super) fn wait(&mut self, rank: Rank, ticket: u64, waiter: Waiter) {
        match rank {
            Rank::Normal => self.normal.insert(ticket, waiter),
            Rank::Spare => self.spare.insert(ticket, waiter),
        };
    }

    pub(super) fn unlink(&mut self, ticket: u64) {
        self.normal.remove(&ticket);
        self.spare.remove(&ticket);
    }

    fn of(&self, rank: Rank) -> &BTreeMap<u64, Waiter> {
        match rank {
            Rank::Normal => &self.normal,
            Rank::Spare => &self.spare,
        }
    }

    pub(super) fn start(&mut self) {
        self.running = self.running.saturating_add(1);
    }

    pub(super) fn stop(&mut self) {
        self.running = self.running.saturating_sub(1);
    }
}
