//! The bound of a limit in words: what status, `/corral/v1/limits` and the docs print.

use std::{fmt, num::NonZeroU32};

use corral_wire::Scope;

use super::{
    Limit, LimitInfo, Plan, Rate,
    rate::{Thousandths, Window},
};
use crate::algo::gcra::Pace;

/// What a limit lets through at most while a given number of pods serve; prints as
/// `≤ 70/min pool-wide (2 pods × 30/min, burst 5)`.
///
/// It is the token bucket's: rate·t + D·max(1, ⌊B/D⌋) in any window, and D·max(1, ⌊concurrency/D⌋) at one time. With
/// more pods than B it grows with each pod; each change of D may add one burst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    rate: Option<Rate>,
    concurrency: Option<NonZeroU32>,
    scope: Scope,
    pods: NonZeroU32,
}

impl Plan {
    /// The bound of `limit` while `pods` pods serve.
    pub fn bound(&self, limit: &Limit, pods: NonZeroU32) -> Bound {
        let LimitInfo { rate, concurrency, .. } = **limit.info();
        Bound { rate, concurrency, scope: limit.scope(), pods }
    }
}

impl Limit {
    /// Among how many of `pods` pods its numbers are shared: all, or for `scope: Pod` none but this one.
    pub fn sharers(&self, pods: NonZeroU32) -> NonZeroU32 {
        sharers(self.scope, pods)
    }
}

/// One of `pods` shares of a concurrency: max(1, ⌊concurrency/D⌋).
pub(crate) fn share_of(concurrency: NonZeroU32, pods: NonZeroU32) -> u32 {
    concurrency.get().checked_div(pods.get()).unwrap_or(1).max(1)
}

fn sharers(scope: Scope, pods: NonZeroU32) -> NonZeroU32 {
    match scope {
        Scope::Pool => pods,
        Scope::Pod => NonZeroU32::MIN,
    }
}

impl Bound {
    /// The most requests in any window of the rate, over the whole scope; none without a rate.
    pub fn per_window(&self) -> Option<u64> {
        let rate = self.rate?;
        let pods = sharers(self.scope, self.pods);
        let bursts = Pace::share(&rate, pods).burst().saturating_mul(u64::from(pods.get()));
        Some(rate.count_milli.div_ceil(1000).saturating_add(bursts))
    }

    /// The most requests at one time, over the whole scope; none without a concurrency.
    pub fn at_once(&self) -> Option<u64> {
        let pods = sharers(self.scope, self.pods);
        Some(u64::from(share_of(self.concurrency?, pods)).saturating_mul(u64::from(pods.get())))
    }

    /// Whose the bound is, up to the share of one pod.
    fn whose(&self) -> String {
        match (self.scope, self.pods.get()) {
            (Scope::Pod, _) => "per pod (".to_owned(),
            (Scope::Pool, 1) => "pool-wide (1 pod × ".to_owned(),
            (Scope::Pool, pods) => format!("pool-wide ({pods} pods × "),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pods, whose) = (sharers(self.scope, self.pods), self.whose());
        if let (Some(rate), Some(most)) = (&self.rate, self.per_window()) {
            let share = Thousandths(rate.count_milli.div_ceil(u64::from(pods.get())));
            let (window, burst) = (Window(rate.window), Pace::share(rate, pods).burst());
            write!(f, "≤ {most}/{window} {whose}{share}/{window}, burst {burst})")?;
        }
        if let (Some(concurrency), Some(most)) = (self.concurrency, self.at_once()) {
            let join = if self.rate.is_some() { "; " } else { "" };
            write!(f, "{join}≤ {most} at once {whose}{})", share_of(concurrency, pods))?;
        }
        Ok(())
    }
}
