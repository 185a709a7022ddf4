//! How a client stands with the limits that apply to it: the numbers of the `RateLimit` headers and of
//! `/corral/v1/limits`.

use std::{cmp::Ordering, num::NonZeroU32, sync::Arc};

use corral_wire::Mode;

use crate::{
    Limit, LimitInfo, Nanos, Rate, Retry, Unit,
    algo::gcra::Pace,
    judge::{Asked, Judge, Keys},
    key::BucketKey,
    state::{LimitState, ONE},
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
    /// w: the window in seconds; none for concurrency.
    pub window_seconds: Option<u64>,
    /// r: what would be admitted now, at once.
    pub remaining: u64,
    /// The most that `remaining` can be: this pod's burst, or its concurrency.
    pub capacity: u64,
    /// Until one more request would be admitted; zero when it would be now. For concurrency zero: nobody knows.
    pub next: Nanos,
    /// Until `remaining` is `capacity` again if nothing more comes. For concurrency zero.
    pub full: Nanos,
    /// Among how many pods the policy's numbers are shared; 1 when this pod has the whole.
    pub pods: NonZeroU32,
}

impl Standing {
    /// t in seconds: on an answer that was admitted, until the bucket is full; on a refusal never later than the
    /// wait that the refusal states, which is t of what is used up. None for concurrency.
    pub fn reset_seconds(&self, refused: Option<&Retry>) -> Option<u64> {
        self.window_seconds?;
        Some(match refused {
            None => self.full.secs_ceil(),
            Some(retry) if self.remaining == 0 => retry.wait.secs_ceil(),
            Some(retry) => self.full.min(retry.wait).secs_ceil(),
        })
    }

    fn of(limit: &Limit, pods: NonZeroU32) -> Self {
        Self {
            limit: limit.info().clone(),
            unit: Unit::Concurrency,
            quota: 0,
            window_seconds: None,
            remaining: 0,
            capacity: 0,
            next: Nanos::ZERO,
            full: Nanos::ZERO,
            pods,
        }
    }

    fn with_rate(self, state: &LimitState, key: BucketKey, now: Nanos) -> Option<Self> {
        let store = state.store()?;
        let (pace, bucket) = (store.pace(), store.look(key, now).bucket);
        let (quota, window_seconds) = quota(self.limit.rate.as_ref()?, self.pods, pace);
        Some(Self {
            unit: Unit::Requests,
            quota,
            window_seconds: Some(window_seconds),
            remaining: bucket.available(pace, now),
            capacity: pace.burst(),
            next: bucket.wait(pace, ONE, now),
            full: bucket.until_full(now),
            ..self
        })
    }

    fn with_concurrency(self, state: &LimitState, key: BucketKey) -> Option<Self> {
        let (allowed, used) = state.concurrency(key)?;
        let (quota, remaining) = (u64::from(allowed), u64::from(allowed.saturating_sub(used)));
        Some(Self { quota, remaining, capacity: quota, ..self })
    }
}

impl Judge<'_> {
    /// How a request stands with the enforced limits that apply to it, scarcest first.
    pub(crate) fn standing(&self, asked: Asked<'_>) -> Vec<Standing> {
        let mut keys = Keys::new(self.hasher, asked);
        let mut standings = Vec::new();
        for (_, limit, state) in self.applying(Mode::Enforce, asked) {
            let key = keys.key(limit.per());
            let pods = limit.sharers(self.divisor);
            let standing = Standing::of(limit, pods);
            standings.extend(standing.clone().with_rate(state, key, asked.now));
            standings.extend(standing.with_concurrency(state, key));
        }
        standings.sort_by(by_scarcity);
        standings
    }
}

/// q and w of this pod's share: what it lets through in the policy's window; where that is less than one, one in as
/// many seconds as it takes.
fn quota(rate: &Rate, pods: NonZeroU32, pace: &Pace) -> (u64, u64) {
    match (rate.count_milli / 1000).checked_div(u64::from(pods.get())) {
        None | Some(0) => (1, pace.interval().secs_ceil()),
        Some(quota) => (quota, rate.window.secs_ceil()),
    }
}

/// The smaller part left comes first, of equals the longer wait.
fn by_scarcity(a: &Standing, b: &Standing) -> Ordering {
    let left = |one: &Standing, other: &Standing| {
        u128::from(one.remaining).saturating_mul(u128::from(other.capacity))
    };
    left(a, b).cmp(&left(b, a)).then(b.next.cmp(&a.next)).then(b.full.cmp(&a.full))
}
