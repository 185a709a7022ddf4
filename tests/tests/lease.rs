//! Leader election on virtual time: two candidates never lead at once, and one of them leads again soon.
#![cfg(test)]

use std::sync::Arc;
use std::time::Duration;

use corral_operator::clock::{Clock, SharedClock, SystemClock};
use corral_operator::lease::{Lease, LeaseSettings};
use corral_tests::fake_api::{FakeApi, faults::Cut};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

/// A clock whose time of day is off, and which runs at its own pace.
#[derive(Debug)]
struct OddClock {
    inner: SystemClock,
    wall_off: SignedDuration,
    percent: u32,
}

impl Clock for OddClock {
    fn now(&self) -> Duration {
        self.inner.now() * self.percent / 100
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now() + self.wall_off
    }
}

fn odd(wall_off_hours: i64, percent: u32) -> SharedClock {
    Arc::new(OddClock {
        inner: SystemClock::new(),
        wall_off: SignedDuration::from_hours(wall_off_hours),
        percent,
    })
}

fn candidate(api: &FakeApi, who: &str, clock: SharedClock) -> Arc<Lease> {
    Arc::new(Lease::new(api.client(), LeaseSettings::new("corral", "operator", who), clock))
}

/// Leads whenever it can, for ever.
fn stand(lease: &Arc<Lease>) -> tokio::task::JoinHandle<()> {
    let lease = Arc::clone(lease);
    tokio::spawn(async move {
        loop {
            lease.acquire().await;
            lease.keep().await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn two_candidates_with_odd_clocks_never_lead_at_once() {
    for (hours, percent) in [(0, 100), (9_000, 100), (-9_000, 100), (1, 120), (-1, 80)] {
        let api = FakeApi::new();
        let (a, b) = (candidate(&api, "a", odd(0, 100)), candidate(&api, "b", odd(hours, percent)));
        let (one, two) = (stand(&a), stand(&b));
        let (mut led, mut both) = (0, 0);
        for second in 0..600 {
            // The server goes away now and then, for longer than the lease.
            api.faults(|faults| faults.down(second % 120 > 90));
            sleep(Duration::from_secs(1)).await;
            led += u32::from(a.is_held() || b.is_held());
            both += u32::from(a.is_held() && b.is_held());
        }
        assert_eq!(both, 0, "wall clock off by {hours} h, pace {percent} %");
        assert!(led > 300, "somebody led in {led} of 600 s");
        one.abort();
        two.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_gone_is_followed_within_lease_and_retry() {
    let api = FakeApi::new();
    let (a, b) = (candidate(&api, "a", odd(0, 100)), candidate(&api, "b", odd(0, 100)));
    a.acquire().await;
    let waiting = stand(&b);
    let began = Instant::now();
    while !b.is_held() {
        sleep(Duration::from_millis(100)).await;
    }
    let waited = Instant::now() - began;
    assert!((15..=18).contains(&waited.as_secs()), "{waited:?}");
    assert!(!a.is_held());
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn a_frozen_leader_that_wakes_up_knows_that_it_leads_no_more() {
    let api = FakeApi::new();
    let a = candidate(&api, "a", odd(0, 100));
    assert!(a.renew().await);
    sleep(Duration::from_secs(11)).await;
    assert!(!a.is_held(), "the margin has begun, though nobody else may have taken it yet");
    assert!(a.renew().await, "nobody took it, so it leads again");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_given_up_is_taken_at_once() {
    let api = FakeApi::new();
    let (a, b) = (candidate(&api, "a", odd(0, 100)), candidate(&api, "b", odd(0, 100)));
    a.acquire().await;
    assert!(!b.renew().await);
    a.release().await;
    assert!(!a.is_held());
    assert!(b.renew().await);
    assert!(!a.renew().await);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_reply_is_lost_neither_ends_nor_prolongs_the_lead() {
    let api = FakeApi::new();
    let a = candidate(&api, "a", odd(0, 100));
    a.acquire().await;
    sleep(Duration::from_secs(4)).await;
    api.faults(|faults| faults.cut_write(1, Cut::After));
    assert!(a.renew().await);
    sleep(Duration::from_secs(7)).await;
    assert!(!a.is_held());
    assert!(a.renew().await, "its own name is on the lease");
}
