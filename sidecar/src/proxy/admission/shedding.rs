//! What is told to a request that the queue sheds.

use corral_limiter::Nanos;
use corral_limiter::queue::{Band, Due, Shed, ShedReason};

/// A wait that ends by so much less than the bound has been cut short.
const NEARLY: Nanos = Nanos::from_millis(100);

/// A request that the queue does not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shedding {
    /// Which bound it met, and how the queue stands.
    pub(crate) shed: Shed,
    /// How long it has waited.
    pub(crate) waited: Nanos,
    /// What bounded its wait.
    pub(crate) bound: WaitBound,
}

/// What bounds how long a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitBound {
    /// `spec.capacity.queue.maxWaitSeconds`
    MaxWait,
    /// `spec.capacity.queue.batchMaxWaitSeconds`
    BatchMaxWait,
    /// Half of the time that its client gives it, which is so much.
    OwnTimeout(Nanos),
    /// The queue itself, which keeps nobody long while all wait long.
    Overload,
}

/// How a request came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    pub(super) at: Nanos,
    pub(super) band: Band,
    /// When its client gives up, if it says so.
    pub(super) due: Option<Due>,
}

impl Shedding {
    /// Of a request that has waited so long.
    pub(super) fn new(shed: Shed, waited: Nanos, came: &Came) -> Self {
        Self { shed, waited, bound: bound(&shed, waited, came) }
    }

    /// Of a request that has no wait of its own.
    pub(super) fn plain(shed: Shed, waited: Nanos) -> Self {
        Self { shed, waited, bound: WaitBound::MaxWait }
    }

    /// Which bound it met.
    pub(crate) fn reason(&self) -> ShedReason {
        self.shed.reason
    }
}

fn bound(shed: &Shed, waited: Nanos, came: &Came) -> WaitBound {
    let by_plan = match came.band {
        Band::Interactive | Band::Standard => WaitBound::MaxWait,
        Band::Batch | Band::Spare => WaitBound::BatchMaxWait,
    };
    // On arrival it is the estimate that is too long, later it is the wait itself.
    let met = match shed.reason {
        ShedReason::WaitTooLong => shed.estimated_wait,
        _ => waited.plus(NEARLY),
    };
    let own = came.due.map(|due| due.longest_wait(came.at));
    match own.filter(|own| *own < shed.max_wait) {
        _ if met >= shed.max_wait => by_plan,
        Some(own) if met >= own => WaitBound::OwnTimeout(own),
        _ => WaitBound::Overload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Nanos = Nanos::from_secs(1000);

    /// Of one in a band that may wait so long, and whose client gives it so long, in seconds; `met` is the wait, or the
    /// estimate of it.
    fn bound_of(reason: ShedReason, band: (Band, u64), met: u64, timeout: Option<u64>) -> WaitBound {
        let secs = Nanos::from_secs;
        let (waited, estimated_wait) = match reason {
            ShedReason::WaitTooLong => (Nanos::ZERO, secs(met)),
            _ => (secs(met), secs(1)),
        };
        let shed = Shed { reason, estimated_wait, position: 0, max_wait: secs(band.1) };
        let due = timeout.map(|timeout| Due { at: AT.plus(secs(timeout)), needs: secs(1) });
        Shedding::new(shed, waited, &Came { at: AT, band: band.0, due }).bound
    }

    #[test]
    fn what_bounds_a_wait_is_told_by_its_name() {
        let (standard, batch) = ((Band::Standard, 60), (Band::Batch, 300));
        let own = |seconds| WaitBound::OwnTimeout(Nanos::from_secs(seconds));
        for reason in [ShedReason::TimedOut, ShedReason::WaitTooLong] {
            let bound = |band, met, timeout| bound_of(reason, band, met, timeout);
            assert_eq!(bound(standard, 60, None), WaitBound::MaxWait);
            assert_eq!(bound(standard, 61, Some(600)), WaitBound::MaxWait, "half of it is longer");
            assert_eq!(bound(batch, 300, None), WaitBound::BatchMaxWait);
            assert_eq!(bound((Band::Spare, 300), 300, None), WaitBound::BatchMaxWait);
            assert_eq!(bound(standard, 10, Some(20)), own(10));
            assert_eq!(bound(batch, 60, Some(120)), own(60));
            assert_eq!(bound(standard, 15, None), WaitBound::Overload);
            assert_eq!(bound(standard, 15, Some(200)), WaitBound::Overload);
        }
    }
}
