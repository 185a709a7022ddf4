//! The end: a drain that begins once, goes on by itself, and is over when nothing runs any more.
//!
//! ```text
//! SIGTERM, SIGINT or `corral-sidecar drain`
//!    └▶ Closing: still served, `Connection: close`      for the delay: endpoint lists catch up
//!         └▶ Refusing: new requests get 503             until nothing runs or waits, or the timeout
//!              └▶ Over: `/drain/wait` returns, and after a signal the process ends
//! ```
//!
//! At the timeout, or at a second signal, what is left is cut: streams end in the error event of their API, and requests
//! without an answer get 503.
//!
//! Readiness does not change: a pod that terminates is out of its Service, and the last one of a pool must go on
//! answering those that are sent to it.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::info;

use crate::config::DrainSettings;
use crate::health::{Drain, Health};

/// How often is looked whether something still runs.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// SIGTERM and SIGINT, counted.
#[derive(Debug, Clone)]
pub struct Signals(watch::Receiver<u32>);

impl Signals {
    /// Counts from now on; without it the first one would end the process at once.
    pub fn listen() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (counted, signals) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => info!("SIGTERM"),
                    _ = interrupt.recv() => info!("SIGINT"),
                }
                counted.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(signals))
    }

    /// Resolves when this many have come.
    pub async fn came(mut self, count: u32) {
        if self.0.wait_for(|came| *came >= count).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Takes a drain, once it has begun, through its phases to the end. `busy` tells how many requests run or wait.
pub async fn drive(health: &Health, settings: DrainSettings, busy: impl Fn() -> u32) {
    reached(health, Drain::Closing).await;
    let deadline = Instant::now() + settings.timeout;
    health.drains_until(deadline);
    info!(delay = ?settings.delay, timeout = ?settings.timeout, "drain began");
    sleep(settings.delay).await;
    health.refuse_new();
    let emptied = timeout_at(deadline, async {
        while busy() > 0 {
            sleep(LOOK_INTERVAL).await;
        }
    });
    let in_time = emptied.await.is_ok();
    info!(in_time, left = busy(), "drain over");
    if !in_time {
        health.cut_running();
    }
    health.drain_over();
    // Answers that Ollama has given may still be on their way to slow clients, but not for longer either.
    sleep_until(deadline).await;
    health.cut_running();
}

/// Resolves when the drain has come at least this far.
pub async fn reached(health: &Health, phase: Drain) {
    // The sender lives in `health`, so this cannot fail.
    let _ = health.watch_drain().wait_for(|drain| *drain >= phase).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Driven {
        health: Arc<Health>,
        busy: Arc<AtomicU32>,
        began: Instant,
    }

    impl Driven {
        fn begin(busy: u32) -> Self {
            let settings = DrainSettings {
                delay: Duration::from_secs(5),
                timeout: Duration::from_mins(1),
                begin_wait: Duration::from_secs(30),
            };
            let (health, busy) = (Arc::new(Health::new()), Arc::new(AtomicU32::new(busy)));
            let (ours, count) = (Arc::clone(&health), Arc::clone(&busy));
            tokio::spawn(async move { drive(&ours, settings, || count.load(Ordering::Relaxed)).await });
            health.begin_drain();
            Self { health, busy, began: Instant::now() }
        }

        async fn seconds_to(&self, phase: Drain) -> u64 {
            reached(&self.health, phase).await;
            Instant::now().duration_since(self.began).as_secs()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_requests_are_served_for_the_delay_and_running_ones_to_their_end() {
        let drain = Driven::begin(2);
        assert_eq!(drain.health.drain(), Drain::Closing);
        assert_eq!(drain.seconds_to(Drain::Refusing).await, 5);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(drain.health.drain(), Drain::Refusing);
        drain.busy.store(0, Ordering::Relaxed);
        assert_eq!(drain.seconds_to(Drain::Over).await, 25);
        assert!(!drain.health.is_cut(), "slow clients may read on");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_at_its_timeout_whatever_still_runs() {
        let drain = Driven::begin(1);
        assert_eq!(drain.seconds_to(Drain::Over).await, 60);
        assert!(drain.health.is_cut());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_sidecar_still_waits_for_endpoint_lists() {
        assert_eq!(Driven::begin(0).seconds_to(Drain::Over).await, 5);
    }
}
