//! What goes wrong, on demand: lost requests, lost replies, refusals, lost and repeated watch events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::event_faults::EventFaults;
pub use super::event_faults::{EventFault, LATE};
use super::write_faults::WriteFaults;
pub use super::write_faults::{HANG, Harm, WriteFault};

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
    Fail(WriteFault),
}

/// The faults still to come.
#[derive(Debug, Default)]
pub struct Faults {
    writes: u64,
    cuts: BTreeMap<u64, Cut>,
    refuse: Option<(u16, u64)>,
    down: bool,
    broken_watches: BTreeMap<String, u64>,
    slow: BTreeMap<String, Duration>,
    single: WriteFaults,
    events: Arc<Mutex<EventFaults>>,
}

impl Faults {
    /// Cuts the `nth` write from now; 1 is the next one.
    pub fn cut_write(&mut self, nth: u64, cut: Cut) {
        self.cuts.insert(self.writes.saturating_add(nth), cut);
    }

    /// Lets the `nth` write from now go wrong; 1 is the next one, and those of Leases do not count.
    pub fn harm_write(&mut self, nth: u64, fault: WriteFault) {
        self.single.add(nth, fault);
    }

    /// Lets the `nth` watch event from now go wrong; 1 is the next one, and bookmarks do not count.
    pub fn harm_event(&mut self, nth: u64, fault: EventFault) {
        self.events.lock().add(nth, fault);
    }

    /// How many writes were asked for, and how many watch events were sent, as [`Faults::harm_write`] and
    /// [`Faults::harm_event`] count them.
    pub fn counts(&self) -> (u64, u64) {
        (self.single.seen(), self.events.lock().seen())
    }

    /// Whether every fault of a single write or event has come.
    pub fn are_over(&self) -> bool {
        self.single.are_over() && self.events.lock().are_over()
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

    /// From now on each request for a resource, such as `secrets`, waits so long until it is carried out.
    pub fn slow(&mut self, plural: &str, by: Duration) {
        self.slow.insert(plural.to_owned(), by);
    }

    /// How long a request for a resource waits.
    pub(crate) fn delay(&self, plural: &str) -> Duration {
        self.slow.get(plural).copied().unwrap_or_default()
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

    /// What becomes of a request; `write` names the resource that it would change.
    pub(crate) fn judge(&mut self, write: Option<&str>) -> Verdict {
        if self.down {
            return Verdict::Fail(WriteFault::Before(Harm::Reset));
        }
        if let Some((code, left)) = self.refuse.filter(|(_, left)| *left > 0) {
            self.refuse = Some((code, left.saturating_sub(1)));
            return Verdict::Fail(WriteFault::Before(Harm::Code(code)));
        }
        let Some(plural) = write else { return Verdict::Serve };
        self.writes = self.writes.saturating_add(1);
        let cut = self.cuts.remove(&self.writes).map(|cut| match cut {
            Cut::Before => WriteFault::Before(Harm::Reset),
            Cut::After => WriteFault::After(Harm::Reset),
        });
        self.single.next(plural).or(cut).map_or(Verdict::Serve, Verdict::Fail)
    }

    pub(crate) fn event_faults(&self) -> Arc<Mutex<EventFaults>> {
        Arc::clone(&self.events)
    }
}
