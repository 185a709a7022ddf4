//! How a client stands with the limits that apply to it: the numbers of the `RateLimit` headers and of
//! `/corral/v1/limits`.

use std::{cmp::Ordering, num::NonZeroU32, sync::Arc};

use corral_wire::{Algorithm, KeyPart, Mode};

use crate::{
    Limit, LimitInfo, Nanos, Rate, Retry, Unit,
    judge::{Asked, Judge, Keys, KnownKeys},
    key::BucketKey,
    meter::{Meter, Share},
    plan::Factor,
    state::{Guard, LimitState},
};

/// One bucket that applies to a request, in the terms of draft-ietf-httpapi-ratelimit-headers-10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which limit, with the policy's numbers for the whole scope.
    pub limit: Arc<LimitInfo>,
    /// Which of its units.
    pub unit: Unit,
    /// q: what this pod lets through in a window, or at one time. At least 1.
    pub quota: u64,
    /// w: the window in seconds; none for what counts at one time.
    pub window_seconds: Option<u64>,
    /// What is used; above `capacity` while there is debt.
    pub used: u64,
    /// r: what would be admitted now, at once.
    pub remaining: u64,
    /// The most that `remaining` can be: this pod's burst, what a window lets through, or its concurrency.
    pub capacity: u64,
    /// Until one more would be admitted; zero when it would be now. For what counts at one time zero: nobody knows.
    pub next: Nanos,
    /// Until `remaining` is `capacity` again if nothing more comes. For what counts at one time zero.
    pub full: Nanos,
    /// Among how many pods the policy's numbers are shared; 1 when this pod has the whole.
    pub pods: NonZeroU32,
}

impl Standing {
    /// t, to be rounded up to seconds: on an answer that was admitted, until the bucket is full; on a refusal never later
    /// than the wait that the refusal states, which is t of what is used up. None for what counts at one time.
    pub fn reset(&self, refused: Option<&Retry>) -> Option<Nanos> {
        self.window_seconds?;
        Some(match refused {
            None => self.full,
            Some(retry) if self.remaining == 0 => retry.wait,
            Some(retry) => self.full.min(retry.wait),
        })
    }

    fn of_meter(limit: &Limit, meter: &Meter, share: Share, key: BucketKey, now: Nanos) -> Option<Self> {
        let (unit, reading) = (meter.unit, meter.reading(key, now));
        let (quota, window_seconds) = quota(limit, &limit.info().rate(unit)?, share);
        Some(Self {
            limit: limit.info().clone(),
            unit,
            quota,
            window_seconds: Some(window_seconds),
            used: unit.of_permits(reading.used),
            remaining: reading.available.checked_div(unit.permits()).unwrap_or(0),
            capacity: unit.of_permits(reading.capacity),
            next: reading.next,
            full: reading.full,
            pods: share.pods,
        })
    }

    fn of_guard(limit: &Limit, guard: &Guard, pods: NonZeroU32, key: BucketKey) -> Self {
        let used = guard.used(key);
        Self {
            limit: limit.info().clone(),
            unit: guard.unit,
            quota: guard.allowed,
            window_seconds: None,
            used,
            remaining: guard.allowed.saturating_sub(used),
            capacity: guard.allowed,
            next: Nanos::ZERO,
            full: Nanos::ZERO,
            pods,
        }
    }
}

impl Judge<'_> {
    /// How a request stands with the enforced limits that apply to it, scarcest first.
    pub(crate) fn standing(&self, asked: &Asked<'_>) -> Vec<Standing> {
        let mut known = KnownKeys::new();
        let mut keys = Keys::new(*self, asked, &mut known);
        let mut standings = Vec::new();
        let is_known = |limit: &Limit| asked.model.is_some() || !limit.per().contains(&KeyPart::Model);
        let applying = self.applying(Mode::Enforce, asked);
        for (_, limit, state) in applying.filter(|(_, limit, _)| is_known(limit)) {
            standings.extend(self.standings_of(limit, state, keys.key(limit), asked));
        }
        standings.sort_by(by_scarcity);
        standings
    }

    /// How a request stands with one limit: its rates, then what it bounds at one time.
    pub(crate) fn standings_of(
        &self,
        limit: &Limit,
        state: &LimitState,
        key: BucketKey,
        asked: &Asked<'_>,
    ) -> Vec<Standing> {
        let scale = limit.scale_place(asked.traits.scale);
        let milli = limit.scales().get(scale).map_or(1000, |scaled| scaled.milli);
        let pods = limit.sharers(self.divisor);
        let share = Share { pods, factor: Factor::of(milli, state.adaptive_milli()) };
        let meters = state.meters(scale).iter();
        let mut standings: Vec<_> =
            meters.filter_map(|meter| Standing::of_meter(limit, meter, share, key, asked.now)).collect();
        standings.extend(state.guards(scale).iter().map(|guard| Standing::of_guard(limit, guard, pods, key)));
        standings
    }
}

/// q and w of this pod's share: what it lets through in the policy's window; where that is less than one, one in as
/// many seconds as it takes.
fn quota(limit: &Limit, rate: &Rate, share: Share) -> (u64, u64) {
    let window = rate.window.secs_ceil();
    if !matches!(limit.algorithm(), Algorithm::TokenBucket | Algorithm::LeakyBucket) {
        return (share.of(rate.count()), window);
    }
    let pods = u64::from(share.pods.get());
    match (share.factor.times(rate.count_milli) / 1000).checked_div(pods) {
        None | Some(0) => {
            let interval = rate.interval_of(share.factor, 1);
            (1, Nanos(interval.0.saturating_mul(pods)).secs_ceil())
        }
        Some(quota) => (quota, window),
    }
}

/// The smaller part left comes first, of equals the longer wait.
fn by_scarcity(a: &Standing, b: &Standing) -> Ordering {
    let left = |one: &Standing, other: &Standing| {
        u128::from(one.remaining).saturating_mul(u128::from(other.capacity))
    };
    left(a, b).cmp(&left(b, a)).then(b.next.cmp(&a.next)).then(b.full.cmp(&a.full))
}
