//! One more try, inside and unseen: only where Ollama cannot have begun to work on the request, and only so many of them.
//!
//! | what happened | sent once more |
//! | --- | --- |
//! | a kept connection had ended before a byte of the request was written | at once, on a fresh connection |
//! | no connection | once, after a moment, at the head of its client's requests |
//! | Ollama's 503, which says that it has no room | the same |
//! | anything after that: no head, a broken answer, any other status | never |
//!
//! The latter two cost Ollama something when it has least: one in ten requests, and one a second, may come a second time.

use std::time::Duration;

use corral_limiter::Nanos;

use super::Proxy;
use super::dispatch::Sent;
use super::forward::{Failed, Hold};
use super::listener::Listener;
use super::upstream::NoAnswer;
use crate::metrics::Retried;

/// How long is waited before the second try, a fifth more or less.
const PAUSE: Duration = Duration::from_millis(100);

/// A retry costs this much of the budget.
const RETRY: u64 = 1000;
/// What a request brings.
const A_REQUEST: u64 = RETRY / 10;
/// What a second brings.
const A_SECOND: u64 = RETRY;
/// No more is saved: ten seconds' worth.
const MOST: u64 = 10 * A_SECOND;

/// What may be spent on retries, in thousandths of one.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    seen: Nanos,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: MOST, seen: Nanos::ZERO }
    }
}

impl Budget {
    /// A request is sent for the first time.
    pub(super) fn request(&mut self, now: Nanos) {
        self.pass(now);
        self.left = self.left.saturating_add(A_REQUEST).min(MOST);
    }

    /// Takes what a retry costs, if it is there.
    fn take(&mut self, now: Nanos) -> bool {
        self.pass(now);
        let left = self.left.checked_sub(RETRY);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    fn pass(&mut self, now: Nanos) {
        let earned = u128::from(now.since(self.seen).0) * u128::from(A_SECOND) / 1_000_000_000;
        // Less than one thousandth is earned again the next time.
        if earned > 0 {
            self.seen = now;
            self.left = self.left.saturating_add(u64::try_from(earned).unwrap_or(u64::MAX)).min(MOST);
        }
    }
}

/// Whether one request may still be sent once more.
#[derive(Debug)]
pub(super) struct Tries {
    used: bool,
}

impl Tries {
    /// For a request that comes to be sent now.
    pub(super) fn begin(proxy: &Proxy) -> Self {
        proxy.retries.lock().request(proxy.core.clock().now());
        Self { used: false }
    }

    /// Whether it is to be, after this. Counts it.
    pub(super) fn once_more(&mut self, proxy: &Proxy, sent: &Sent<'_>, listener: &Listener) -> bool {
        let why = match sent {
            Sent::Failed(NoAnswer::Refused(_) | NoAnswer::Unreachable(_)) => Retried::Connect,
            Sent::Begun(begun) if begun.busy => Retried::Busy,
            Sent::Failed(NoAnswer::Ended(_) | NoAnswer::NotFinal(_) | NoAnswer::Shut)
            | Sent::Begun(_)
            | Sent::Unwanted
            | Sent::Unsent
            | Sent::Stalled => return false,
        };
        let now = proxy.core.clock().now();
        let granted = !self.used
            && !listener.has_left()
            && !proxy.core.health.is_cut()
            && proxy.retries.lock().take(now);
        if granted {
            self.used = true;
            proxy.core.metrics.upstream_retried(why);
        }
        granted
    }
}

/// Waits a moment, and then for a slot at the head of its client's requests. None: it has been told why there is none, or
/// has left.
pub(super) async fn anew(proxy: &Proxy, hold: Hold, listener: &mut Listener) -> Option<Hold> {
    tokio::select! {
        () = tokio::time::sleep(proxy.dice.about(PAUSE)) => {}
        () = listener.gone() => return None,
    }
    let next = hold.cost(proxy);
    again(proxy, hold, 0, next, listener).await
}

/// Gives the slot back after so many tokens, and waits for another one that will cost so much. None: whoever waits has
/// been told why there is none, or has left.
pub(super) async fn again(
    proxy: &Proxy,
    hold: Hold,
    spent: u64,
    next: u64,
    listener: &mut Listener,
) -> Option<Hold> {
    let health = &proxy.core.health;
    let why = tokio::select! {
        // First, so that no slot that comes back is taken by one who would be sent to what has stopped.
        biased;
        () = listener.gone() => return None,
        () = health.until_stopped() => Failed::Stalled,
        () = health.until_cut() => Failed::Drained,
        hold = hold.again(spent, next) => match hold {
            Ok(hold) => return Some(hold),
            Err(denied) => Failed::Denied(denied),
        },
    };
    listener.fail(why).await;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Nanos {
        Nanos::from_millis(millis)
    }

    fn taken(budget: &mut Budget, now: Nanos) -> u32 {
        (0..1000).map(|_| u32::from(budget.take(now))).sum()
    }

    #[test]
    fn ten_are_there_at_first_and_one_more_each_second() {
        let mut budget = Budget::default();
        assert_eq!(taken(&mut budget, at(0)), 10);
        assert_eq!(taken(&mut budget, at(999)), 0);
        assert_eq!(taken(&mut budget, at(1000)), 1);
        assert_eq!(taken(&mut budget, at(3500)), 2);
        assert_eq!(taken(&mut budget, at(1_000_000)), 10, "no more is saved");
    }

    #[test]
    fn one_request_in_ten_may_come_a_second_time() {
        let mut budget = Budget::default();
        taken(&mut budget, at(0));
        let mut retries = 0;
        for _ in 0..500 {
            budget.request(at(0));
            retries += u32::from(budget.take(at(0)));
        }
        assert_eq!(retries, 50);
    }

    #[test]
    fn time_is_earned_however_often_it_is_looked_at() {
        let mut budget = Budget::default();
        taken(&mut budget, at(0));
        let mut retries = 0;
        for micros in 0..3_000_000_u64 {
            if micros % 7 == 0 {
                retries += u32::from(budget.take(Nanos(micros * 1000)));
            }
        }
        assert!((2..=3).contains(&retries), "{retries}");
    }
}
