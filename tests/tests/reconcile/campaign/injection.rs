//! What is to go wrong: one fault at one place of one workload, and the list of all.

use std::fmt;
use std::time::Duration;

use corral_tests::fake_api::faults::{EventFault, Faults, HANG, Harm, WriteFault};

use super::run::Run;
use super::workloads::Workload;

const HARMS: [Harm; 6] =
    [Harm::Code(409), Harm::Code(429), Harm::Code(500), Harm::Code(503), Harm::Hang, Harm::Reset];
const EVENTS: [EventFault; 6] = [
    EventFault::Dropped,
    EventFault::Repeated,
    EventFault::Stale,
    EventFault::Late,
    EventFault::Expired,
    EventFault::Broken,
];

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Write(WriteFault),
    Event(EventFault),
}

/// One fault, at the `nth` write or event of a workload.
#[derive(Debug, Clone)]
pub(crate) struct Injection {
    pub(crate) workload: Workload,
    pub(crate) nth: u64,
    pub(crate) fault: Fault,
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, nth) = (self.workload.name, self.nth);
        match &self.fault {
            Fault::Write(fault) => write!(f, "{name}/{nth}/{fault:?}"),
            Fault::Event(fault) => write!(f, "{name}/{nth}/{fault:?}"),
        }
    }
}

impl Injection {
    pub(crate) fn arm(&self, faults: &mut Faults) {
        match self.fault {
            Fault::Write(fault) => faults.harm_write(self.nth, fault),
            Fault::Event(fault) => faults.harm_event(self.nth, fault),
        }
    }

    /// How long after it all must be as it would have been.
    pub(crate) fn patience(&self) -> Duration {
        match self.fault {
            // What nobody was told of is noticed at the next look at everything.
            Fault::Event(EventFault::Dropped) => Duration::from_mins(13),
            Fault::Write(WriteFault::Before(Harm::Hang) | WriteFault::After(Harm::Hang)) => HANG,
            // A Lease that lies still for 15 s, then ten more of listening.
            Fault::Write(WriteFault::Last) => Duration::from_secs(45),
            _ => Duration::from_secs(20),
        }
    }
}

/// How much of the campaign is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Every write meets one harm before and one after it is carried out, and its process dies once; every event meets
    /// two faults. Which, goes around from one to the next, so that each kind is met in each workload of some length.
    Daily,
    /// Everything meets everything.
    Whole,
}

/// The faults at the writes and events of the calm run.
pub(crate) fn all(workload: &Workload, calm: &Run, extent: Extent) -> Vec<Injection> {
    let at = |nth, fault| Injection { workload: workload.clone(), nth, fault };
    let writes = (1..=calm.writes)
        .flat_map(|nth| write_faults(nth, extent).into_iter().map(move |fault| (nth, fault)));
    let events = (1..=calm.events)
        .flat_map(|nth| event_faults(nth, extent).into_iter().map(move |fault| (nth, fault)));
    writes.chain(events).map(|(nth, fault)| at(nth, fault)).collect()
}

fn write_faults(nth: u64, extent: Extent) -> Vec<Fault> {
    let (before, after) = match extent {
        Extent::Whole => (HARMS.to_vec(), HARMS.to_vec()),
        Extent::Daily => (vec![turn(&HARMS, nth)], vec![turn(&HARMS, nth + 3)]),
    };
    let before = before.into_iter().map(WriteFault::Before);
    let all = before.chain(after.into_iter().map(WriteFault::After)).chain([WriteFault::Last]);
    all.map(Fault::Write).collect()
}

fn event_faults(nth: u64, extent: Extent) -> Vec<Fault> {
    let all = match extent {
        Extent::Whole => EVENTS.to_vec(),
        Extent::Daily => vec![turn(&EVENTS, nth), turn(&EVENTS, nth + 2)],
    };
    all.into_iter().map(Fault::Event).collect()
}

fn turn<T: Copy>(all: &[T], nth: u64) -> T {
    all[usize::try_from(nth).unwrap_or(0) % all.len()]
}
