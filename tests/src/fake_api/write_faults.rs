//! What goes wrong with single writes, by their place in the order of writes. Writes of Leases are not counted: they
//! come by the clock, not by what happens.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long a request hangs that is never answered: then the client of Kubernetes gives up by itself.
pub const HANG: Duration = Duration::from_secs(295);

/// What the client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// The connection breaks.
    Reset,
    /// Nothing, for [`HANG`].
    Hang,
    /// This status code; 429 comes with `Retry-After`.
    Code(u16),
}

/// What becomes of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriteFault {
    /// It is not carried out.
    Before(Harm),
    /// It is carried out, and the client does not get to know.
    After(Harm),
    /// It is carried out and answered, and the process that sent it dies at its next request.
    Last,
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(crate) struct WriteFaults {
    seen: u64,
    to_come: BTreeMap<u64, WriteFault>,
}

impl WriteFaults {
    pub(crate) fn add(&mut self, nth: u64, fault: WriteFault) {
        self.to_come.insert(self.seen.saturating_add(nth), fault);
    }

    /// What becomes of the next write of `plural`.
    pub(crate) fn next(&mut self, plural: &str) -> Option<WriteFault> {
        if plural == "leases" {
            return None;
        }
        self.seen = self.seen.saturating_add(1);
        self.to_come.remove(&self.seen)
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    pub(crate) fn are_over(&self) -> bool {
        self.to_come.is_empty()
    }
}
