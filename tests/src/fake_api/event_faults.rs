//! What goes wrong with watch events, one by one; every open watch draws from the same row.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::ready;
use futures::{Stream, StreamExt};
use serde_json::{Value, json};

use super::refusal;

/// How much later than those of other kinds a late event comes.
pub const LATE: Duration = Duration::from_secs(3);

/// What becomes of one watch event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventFault {
    /// It is never seen, and nothing tells that it is missing.
    Dropped,
    /// It comes twice.
    Repeated,
    /// After it, the object comes once more as it was before.
    Stale,
    /// It comes after later events of other kinds, which hold up its own kind.
    Late,
    /// Instead of it the watch ends with 410.
    Expired,
    /// Instead of it the watch ends.
    Broken,
}

/// An event, and the object as it was before.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) event: Value,
    pub(crate) older: Option<Value>,
}

impl Told {
    fn is_bookmark(&self) -> bool {
        self.event.pointer("/type") == Some(&json!("BOOKMARK"))
    }

    /// What is sent instead of it; none ends the watch.
    fn after(self, fault: Option<EventFault>) -> Vec<Option<Value>> {
        let Self { event, older } = self;
        match fault {
            None | Some(EventFault::Late) => vec![Some(event)],
            Some(EventFault::Dropped) => Vec::new(),
            Some(EventFault::Repeated) => vec![Some(event.clone()), Some(event)],
            Some(EventFault::Stale) => {
                let older = older.unwrap_or_else(|| event.clone());
                vec![Some(event), Some(older)]
            }
            Some(EventFault::Expired) => {
                vec![Some(json!({"type": "ERROR", "object": refusal::gone().status()})), None]
            }
            Some(EventFault::Broken) => vec![None],
        }
    }
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(crate) struct EventFaults {
    pub(crate) dropped: u64,
    pub(crate) repeated: u64,
    seen: u64,
    to_come: BTreeMap<u64, EventFault>,
}

impl EventFaults {
    pub(crate) fn add(&mut self, nth: u64, fault: EventFault) {
        self.to_come.insert(self.seen.saturating_add(nth), fault);
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    pub(crate) fn are_over(&self) -> bool {
        self.to_come.is_empty()
    }

    fn next(&mut self) -> Option<EventFault> {
        self.seen = self.seen.saturating_add(1);
        if self.dropped > 0 {
            self.dropped = self.dropped.saturating_sub(1);
            return Some(EventFault::Dropped);
        }
        if self.repeated > 0 {
            self.repeated = self.repeated.saturating_sub(1);
            return Some(EventFault::Repeated);
        }
        self.to_come.remove(&self.seen)
    }
}

/// The events as they arrive.
pub(crate) fn arriving(
    events: impl Stream<Item = Told> + Send + 'static,
    faults: std::sync::Arc<parking_lot::Mutex<EventFaults>>,
) -> impl Stream<Item = Value> + Send + 'static {
    let sent = events.then(move |told| {
        let fault = if told.is_bookmark() { None } else { faults.lock().next() };
        async move {
            if fault == Some(EventFault::Late) {
                tokio::time::sleep(LATE).await;
            }
            futures::stream::iter(told.after(fault))
        }
    });
    sent.flatten().take_while(|event| ready(event.is_some())).filter_map(ready)
}
