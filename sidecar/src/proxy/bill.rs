//! What one request comes to: those who serve it write on it, and when the last of them is done it is counted for its
//! client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use corral_limiter::{HeadFacts, Nanos};

use crate::clients::{Had, Who};
use crate::core::Core;

/// Shared as `Arc<Bill>`: a slot may be held for longer than the client waits.
pub(crate) struct Bill {
    core: Arc<Core>,
    who: Who,
    refused: AtomicBool,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    slot_nanos: AtomicU64,
}

impl Bill {
    /// For one request.
    pub(crate) fn open(core: &Arc<Core>, head: &HeadFacts) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::clone(core),
            who: core.clients.who(head),
            refused: AtomicBool::new(false),
            input_tokens: AtomicU64::new(0),
            output_tokens: AtomicU64::new(0),
            slot_nanos: AtomicU64::new(0),
        })
    }

    /// It was answered 429 or 401.
    pub(crate) fn refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Its tokens, so far or in all: the last word counts.
    pub(crate) fn tokens(&self, input: u64, output: u64) {
        self.input_tokens.store(input, Ordering::Relaxed);
        self.output_tokens.store(output, Ordering::Relaxed);
    }

    /// It held a slot for this long.
    pub(crate) fn slot_held(&self, held: Nanos) {
        self.slot_nanos.fetch_add(held.0, Ordering::Relaxed);
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        let had = Had {
            requests: 1,
            refused: u64::from(*self.refused.get_mut()),
            input_tokens: *self.input_tokens.get_mut(),
            output_tokens: *self.output_tokens.get_mut(),
            slot_ms: *self.slot_nanos.get_mut() / 1_000_000,
        };
        self.core.clients.count(self.who.clone(), &had, self.core.clock().now());
    }
}
