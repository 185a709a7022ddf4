//! What goes wrong, on demand: lost requests, lost replies, refusals, lost and repeated watch events.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Where a write is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing is stored, and the connection breaks.
    Before,
    /// The write is stored, and the connection breaks before the reply.
    After,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Serve,
    Refuse(u16),
    LoseRequest,
    LoseReply,
}

/// The faults still to come.
#[derive(Debug, Default)]
pub struct Faults {
    writes: u64,
    cuts: BTreeMap<u64, Cut>,
    refuse: Option<(u16, u64)>,
    down: bool,
    broken_watches: BTreeMap<String, u64>,
    events: Arc<Mutex<EventFaults>>,
}

/// The faults of watch events still to come; every open watch draws from them.
#[derive(Debug, Default)]
pub(crate) struct EventFaults {
    dropped: u64,
    repeated: u64,
}

impl Faults {
    /// Cuts the `nth` write from now; 1 is the next one.
    pub fn cut_write(&mut self, nth: u64, cut: Cut) {
        self.cuts.insert(self.writes.saturating_add(nth), cut);
    }

    /// Answers the next `count` requests, of any kind, with this status code.
    pub fn refuse(&mut self, code: u16, count: u64) {
        self.refuse = Some((code, count));
    }

    /// Cuts every request, or ends that.
    pub fn down(&mut self, down: bool) {
        self.down = down;
    }

    /// Cuts the next `count` lists and watches of one resource, such as `pods`.
    pub fn break_watches(&mut self, plural: &str, count: u64) {
        self.broken_watches.insert(plural.to_owned(), count);
    }

    /// Whether a list or watch of a resource is cut; it counts.
    pub(crate) fn breaks_watch(&mut self, plural: &str) -> bool {
        let Some(left) = self.broken_watches.get_mut(plural).filter(|left| **left > 0) else { return false };
        *left = left.saturating_sub(1);
        true
    }

    /// Loses the next `count` watch events, whoever was to see them.
    pub fn drop_events(&mut self, count: u64) {
        self.events.lock().dropped = count;
    }

    /// Sends each of the next `count` watch events twice.
    pub fn repeat_events(&mut self, count: u64) {
        self.events.lock().repeated = count;
    }

    pub(crate) fn judge(&mut self, write: bool) -> Verdict {
        if self.down {
            return Verdict::LoseRequest;
        }
        if let Some((code, left)) = self.refuse.filter(|(_, left)| *left > 0) {
            self.refuse = Some((code, left.saturating_sub(1)));
            return Verdict::Refuse(code);
        }
        if !write {
            return Verdict::Serve;
        }
        self.writes = self.writes.saturating_add(1);
        match self.cuts.remove(&self.writes) {
            None => Verdict::Serve,
            Some(Cut::Before) => Verdict::LoseRequest,
            Some(Cut::After) => Verdict::LoseReply,
        }
    }

    pub(crate) fn event_faults(&self) -> Arc<Mutex<EventFaults>> {
        Arc::clone(&self.events)
    }
}

impl EventFaults {
    /// How many times the next watch event is sent.
    pub(crate) fn copies(&mut self) -> usize {
        if self.dropped > 0 {
            self.dropped = self.dropped.saturating_sub(1);
            return 0;
        }
        if self.repeated > 0 {
            self.repeated = self.repeated.saturating_sub(1);
            return 2;
        }
        1
    }
}
