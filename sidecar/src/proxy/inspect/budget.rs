//! One bound for the bytes of all request bodies held at one time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// The bytes that may still be taken. Shared by all requests.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget {
    free: Arc<AtomicUsize>,
}

/// A body in memory, and the part of the budget that it takes; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: BodyBudget,
    taken: usize,
    bytes: Bytes,
}

impl BodyBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { free: Arc::new(AtomicUsize::new(bytes)) }
    }

    /// An empty body that takes no room yet.
    pub(crate) fn open(&self) -> Held {
        Held { budget: self.clone(), taken: 0, bytes: Bytes::new() }
    }

    /// What may still be taken.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }
}

impl Held {
    /// Takes more room, up to `total` for this body.
    pub(crate) fn grow_to(&mut self, total: usize) -> Option<()> {
        let more = total.saturating_sub(self.taken);
        let enough = |free: usize| free.checked_sub(more);
        self.budget.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).ok()?;
        self.taken += more;
        Some(())
    }

    /// Puts the body in.
    pub(crate) fn fill(&mut self, bytes: Bytes) {
        self.bytes = bytes;
    }

    /// The body.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.free.fetch_add(self.taken, Ordering::Relaxed);
    }
}
