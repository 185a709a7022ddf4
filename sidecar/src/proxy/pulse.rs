//! Signs of life of one exchange with Ollama, and the word that ends it.
//!
//! The data path only counts; whoever watches compares two counts, and keeps the time: no clock is read for a frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// What has come from one runner, for whomever: heads and frames, counted.
#[derive(Debug, Default)]
pub(crate) struct Beats(AtomicU64);

impl Beats {
    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One exchange, as it is watched.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// Shared by all exchanges that need the same runner: whichever gets something shows that it lives.
    beats: Arc<Beats>,
    /// What has come is being handed to the client: if nothing more comes, that is the client's doing.
    handing_on: AtomicBool,
    end: Notify,
}

impl Pulse {
    pub(crate) fn new(beats: Arc<Beats>) -> Self {
        Self { beats, handing_on: AtomicBool::new(false), end: Notify::new() }
    }

    pub(crate) fn beats(&self) -> &Arc<Beats> {
        &self.beats
    }

    /// Something has come.
    pub(crate) fn beat(&self) {
        self.beats.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the client is waited for, from now on.
    pub(crate) fn handing_on(&self, so: bool) {
        self.handing_on.store(so, Ordering::Relaxed);
    }

    pub(crate) fn is_handing_on(&self) -> bool {
        self.handing_on.load(Ordering::Relaxed)
    }

    /// Ends the exchange: its runner has stopped.
    pub(crate) fn end(&self) {
        self.end.notify_one();
    }

    /// Resolves once after [`Self::end`], whichever came first.
    pub(crate) async fn until_ended(&self) {
        self.end.notified().await;
    }
}
