//! The requests of one model: those that run, and those that wait in the order in which they came.

use std::{collections::BTreeMap, ops::Bound};

use super::{SlotBounds, WaiterId};
use crate::Nanos;

#[derive(Debug, Default)]
pub(super) struct Group {
    running: u32,
    waiting: BTreeMap<u64, Waiter>,
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
        self.waiting.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }

    /// Who came first of those who wait.
    pub(super) fn head(&self) -> Option<(&u64, &Waiter)> {
        self.waiting.first_key_value()
    }

    /// Who came first of those after a ticket.
    pub(super) fn next_after(&self, ticket: u64) -> Option<(u64, WaiterId)> {
        let mut after = self.waiting.range((Bound::Excluded(ticket), Bound::Unbounded));
        after.next().map(|(ticket, waiter)| (*ticket, waiter.id))
    }

    pub(super) fn wait(&mut self, ticket: u64, waiter: Waiter) {
        self.waiting.insert(ticket, waiter);
    }

    pub(super) fn unlink(&mut self, ticket: u64) {
        self.waiting.remove(&ticket);
    }

    pub(super) fn start(&mut self) {
        self.running = self.running.saturating_add(1);
    }

    pub(super) fn stop(&mut self) {
        self.running = self.running.saturating_sub(1);
    }
}
