//! The bound of a limit in words: what status, `/corral/v1/limits` and the docs print.

use std::{fmt, num::NonZeroU32, sync::Arc};

use corral_wire::{Action, Algorithm, Scope};

use super::{
    Limit, LimitInfo, Plan, Rate, UNSCALED,
    rate::{Factor, Thousandths, Window},
};
use crate::{Unit, meter::Share};

/// What a limit lets through at most while a given number of pods serve; prints as
/// `≤ 70/min pool-wide (2 pods × 30/min, burst 5)`.
///
/// In a window of the rate, over all pods:
/// - token bucket: rate·t + D·max(1, ⌊B/D⌋); leaky bucket: the same with B = 1, for what waits has not started;
/// - sliding window: below 2·D·max(1, ⌊N/D⌋), in the worst window, around an edge of its two counters;
/// - sliding log: D·max(1, ⌊N/D⌋) in any half-open window;
/// - fixed window: D·max(1, ⌊N/D⌋) in each of the clock, so twice that around an edge.
///
/// At one time: D·max(1, ⌊n/D⌋). With more pods than a number it grows with each pod; each change of D may add one
/// burst. Numbers are those of clients without a scaled tier, and the most that an adaptive limit lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    info: Arc<LimitInfo>,
    algorithm: Algorithm,
    action: Action,
    scope: Scope,
    pods: NonZeroU32,
    largest_scale: u32,
    is_adaptive: bool,
}

impl Plan {
    /// The bound of `limit` while `pods` pods serve.
    pub fn bound(&self, limit: &Limit, pods: NonZeroU32) -> Bound {
        Bound {
            info: limit.info().clone(),
            algorithm: limit.algorithm(),
            action: limit.action(),
            scope: limit.scope(),
            pods,
            largest_scale: limit.largest_scale_milli(),
            is_adaptive: limit.adaptive_min_milli().is_some(),
        }
    }
}

impl Limit {
    /// Among how many of `pods` pods its numbers are shared: all, or for `scope: Pod` none but this one.
    pub fn sharers(&self, pods: NonZeroU32) -> NonZeroU32 {
        sharers(self.scope, pods)
    }
}

fn sharers(scope: Scope, pods: NonZeroU32) -> NonZeroU32 {
    match scope {
        Scope::Pool => pods,
        Scope::Pod => NonZeroU32::MIN,
    }
}

impl Bound {
    /// The most of a unit in any window of its rate, over the whole scope; for a sliding window the worst is below it.
    /// None without a rate.
    pub fn per_window(&self, unit: Unit) -> Option<u64> {
        let rate = self.info.rate(unit)?;
        let counted = self.of_all(unit, rate.count());
        Some(match self.algorithm {
            Algorithm::TokenBucket => rate.count().saturating_add(self.of_all(unit, rate.burst)),
            Algorithm::LeakyBucket => rate.count().saturating_add(u64::from(self.share().pods.get())),
            Algorithm::SlidingLog => counted,
            Algorithm::SlidingWindow | Algorithm::FixedWindow => counted.saturating_mul(2),
        })
    }

    /// The most of a unit at one time, over the whole scope; none where it does not bound that.
    pub fn at_once(&self, unit: Unit) -> Option<u64> {
        Some(self.of_all(unit, u64::from(self.info.most(unit)?.get())))
    }

    fn share(&self) -> Share {
        Share { pods: sharers(self.scope, self.pods), factor: Factor::ONE }
    }

    /// One pod's share of a number, rounded up to whole units.
    fn of_one(&self, unit: Unit, number: u64) -> u64 {
        unit.of_permits(self.share().of(number.saturating_mul(unit.permits())))
    }

    /// The shares of all pods together.
    fn of_all(&self, unit: Unit, number: u64) -> u64 {
        let one = self.share().of(number.saturating_mul(unit.permits()));
        unit.of_permits(one.saturating_mul(u64::from(self.share().pods.get())))
    }

    /// Whose the bound is, up to the share of one pod.
    fn whose(&self) -> String {
        match (self.scope, self.pods.get()) {
            (Scope::Pod, _) => "per pod (".to_owned(),
            (Scope::Pool, 1) => "pool-wide (1 pod × ".to_owned(),
            (Scope::Pool, pods) => format!("pool-wide ({pods} pods × "),
        }
    }

    fn write_rate(&self, f: &mut fmt::Formatter<'_>, unit: Unit, rate: &Rate) -> fmt::Result {
        let (window, whose, most) = (Window(rate.window), self.whose(), self.per_window(unit).unwrap_or(0));
        let counted = self.of_one(unit, rate.count());
        let pods = u64::from(self.share().pods.get());
        let even = Thousandths(rate.count_milli.div_ceil(pods));
        let of = Noun(unit);
        match self.algorithm {
            Algorithm::TokenBucket => {
                let burst = self.of_one(unit, rate.burst);
                write!(f, "≤ {most}{of}/{window} {whose}{even}/{window}, burst {burst})")
            }
            Algorithm::LeakyBucket => {
                let waiting = self.of_one(unit, rate.burst);
                write!(f, "≤ {most}{of}/{window} {whose}{even}/{window} one by one, up to {waiting} wait)")
            }
            Algorithm::SlidingWindow => {
                write!(f, "< {most}{of} in any {window} {whose}{counted}/{window} by a sliding window)")
            }
            Algorithm::SlidingLog => {
                write!(f, "≤ {most}{of} in any {window} {whose}{counted}/{window})")
            }
            Algorithm::FixedWindow => {
                let clock = most / 2;
                write!(
                    f,
                    "≤ {clock}{of}/{window} by the clock, ≤ {most} around an edge {whose}{counted}/{window})"
                )
            }
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut join = "";
        for (unit, rate) in self.info.rates() {
            f.write_str(join)?;
            self.write_rate(f, *unit, rate)?;
            if *unit != Unit::Requests {
                f.write_str(" + what answers in flight exceed their reservation")?;
            }
            join = "; ";
        }
        for (unit, most) in self.info.bounds_at_once() {
            let (all, whose) = (self.at_once(*unit).unwrap_or(0), self.whose());
            let one = self.of_one(*unit, u64::from(most.get()));
            write!(f, "{join}≤ {all}{} at once {whose}{one})", Noun(*unit))?;
            join = "; ";
        }
        if self.largest_scale > UNSCALED {
            write!(f, "; up to {} times that by tier", Thousandths(u64::from(self.largest_scale)))?;
        }
        if self.is_adaptive {
            f.write_str("; less while Ollama fares badly")?;
        }
        match self.action {
            Action::Deprioritize => {
                f.write_str("; soft: beyond it requests run where nobody else wants the slot")
            }
            Action::Reject | Action::Delay | Action::Queue => Ok(()),
        }
    }
}

/// What a number is of; requests go without saying.
struct Noun(Unit);

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Unit::Requests | Unit::Concurrency => "",
            Unit::Tokens => " tokens",
            Unit::InputTokens => " input tokens",
            Unit::OutputTokens => " output tokens",
            Unit::SlotSeconds => " slot seconds",
            Unit::Queued => " waiting",
            Unit::QueuedTokens => " prompt tokens waiting",
        })
    }
}
