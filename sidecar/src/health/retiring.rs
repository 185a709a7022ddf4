//! The order to retire: the pod is chosen to go, so it leaves its Service, finishes what it has and serves whoever still
//! comes.
//!
//! The order is a lease, counted from when the pod heard of it, and kept nowhere but here: without a leader, or in a new
//! life of the process, the pod is back. Neither leaving nor coming back waits for anything.

use std::time::Duration;

use corral_limiter::Nanos;

use super::{Health, fold};
use crate::clock::Clock;

impl Health {
    /// A directive that was heard at `now` orders the pod to retire, or no longer does.
    pub fn order_to_retire(&self, retire: bool, now: Nanos) {
        self.set_order(|_| retire.then_some(now));
    }

    /// Whether the pod is out of its Service and such an order stands.
    pub fn retiring(&self) -> bool {
        let facts = self.known.lock().facts;
        facts.retiring && !fold(facts).ready()
    }

    /// Ends an order that is not given anew within the lease; until this is dropped.
    pub(crate) async fn watch_retirement(&self, clock: &Clock, lease: Duration) {
        let mut orders = self.retire.subscribe();
        loop {
            let heard = *orders.borrow_and_update();
            let lapsed = async {
                match heard {
                    Some(at) => tokio::time::sleep_until(clock.instant(at.plus(lease.into()))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives in `self`, so this cannot fail.
                _ = orders.changed() => {}
                () = lapsed => self.lapse(clock.now(), lease),
            }
        }
    }

    /// Unless it has been given anew at this very moment.
    fn lapse(&self, now: Nanos, lease: Duration) {
        self.set_order(|heard| heard.filter(|at| now.since(*at) < lease.into()));
    }

    /// Readiness changes while nobody else can change the order.
    fn set_order(&self, order: impl FnOnce(Option<Nanos>) -> Option<Nanos>) {
        self.retire.send_if_modified(|heard| {
            let before = *heard;
            *heard = order(before);
            let stands = heard.is_some();
            if stands != before.is_some() {
                self.change(|known| known.facts.retiring = stands);
            }
            *heard != before
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::super::{Reason, Relief};
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn serving() -> Health {
        let health = Health::new();
        health.plan_accepted();
        health.told_to_serve();
        health.upstream_answered();
        health
    }

    /// Lets time pass, with somebody who looks after the lease.
    async fn pass(health: &Health, clock: &Clock, millis: u64) {
        tokio::select! {
            () = health.watch_retirement(clock, LEASE) => {}
            () = sleep(Duration::from_millis(millis)) => {}
        }
    }

    #[test]
    fn an_order_and_its_end_count_at_once_and_nobody_is_refused_for_it() {
        let health = serving();
        for (round, retire) in [true, true, false, false, true, false].into_iter().enumerate() {
            health.order_to_retire(retire, Nanos::from_secs(round as u64));
            let reason = if retire { Reason::Retiring } else { Reason::Ready };
            assert_eq!((health.readiness().reason, health.retiring()), (reason, retire), "{round}");
            assert_eq!((health.closing(), health.unavailable()), (retire, None));
            assert!(health.able_to_serve());
        }
        let retired = health.transitions().find(|(reason, _)| *reason == Reason::Retiring);
        assert_eq!(retired, Some((Reason::Retiring, 2)), "an order that is renewed is no change");
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_is_not_given_anew_runs_out_and_one_that_is_stands() {
        let (health, clock) = (serving(), Clock::start());
        for _ in 0..20 {
            health.order_to_retire(true, clock.now());
            pass(&health, &clock, 9990).await;
            assert!(health.retiring());
        }
        pass(&health, &clock, 20).await;
        assert!(!health.retiring() && health.readiness().ready());
        pass(&health, &clock, 60_000).await;
        health.order_to_retire(true, clock.now());
        pass(&health, &clock, 9990).await;
        assert!(health.retiring(), "a new lease is a whole one");
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_given_anew_at_the_moment_it_runs_out_stands() {
        let (health, clock) = (serving(), Clock::start());
        health.order_to_retire(true, clock.now());
        sleep(LEASE).await;
        health.order_to_retire(true, clock.now());
        health.lapse(clock.now(), LEASE);
        assert!(health.retiring());
        health.order_to_retire(false, clock.now());
        health.lapse(clock.now(), LEASE);
        assert!(!health.retiring());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_begins_meanwhile_finds_the_pod_out_and_leaves_it_there() {
        let (health, clock) = (serving(), Clock::start());
        health.order_to_retire(true, clock.now());
        health.begin_drain();
        assert_eq!((health.readiness().reason, health.unavailable()), (Reason::Draining, None));
        health.order_to_retire(false, clock.now());
        assert_eq!((health.readiness().reason, health.retiring()), (Reason::Draining, false));
        health.order_to_retire(true, clock.now());
        pass(&health, &clock, 11_000).await;
        assert!(!health.readiness().ready() && !health.retiring());
    }

    #[test]
    fn an_order_that_comes_after_the_drain_began_changes_nothing() {
        let health = serving();
        health.begin_drain();
        health.order_to_retire(true, Nanos::ZERO);
        assert!(health.readiness().ready() && !health.retiring());
    }

    #[test]
    fn who_retires_is_not_out_for_its_load_and_says_what_is_graver() {
        let health = serving();
        health.set_relief(Some(Relief::Overloaded));
        health.order_to_retire(true, Nanos::ZERO);
        assert_eq!(health.readiness().reason, Reason::Retiring);
        assert!(!health.ready_but_for_load(), "its load is no reason any more");
        health.upstream_refused();
        assert_eq!((health.readiness().reason, health.retiring()), (Reason::OllamaDown, true));
    }
}
