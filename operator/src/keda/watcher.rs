//! One stream of `StreamIsActive`: whether a pool is in use, told on opening and whenever it changes.

use std::sync::Arc;
use std::time::Duration;

use corral_wire::PoolRef;
use futures::Stream;
use futures::stream::unfold;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::Status;

use super::externalscaler::IsActiveResponse;
use super::measure::is_active;
use super::source::PoolNumbers;

/// How often it is looked at: a change is told within 200 ms, and no more often than this.
const EVERY: Duration = Duration::from_millis(100);

pub(super) struct Watcher {
    numbers: Arc<dyn PoolNumbers>,
    pool: PoolRef,
    told: Option<bool>,
    ticks: Interval,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    pub(super) fn new(numbers: Arc<dyn PoolNumbers>, pool: PoolRef, permit: OwnedSemaphorePermit) -> Self {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { numbers, pool, told: None, ticks, _permit: permit }
    }

    /// What it says, until there are no numbers any more: then the stream ends with why, and KEDA opens another.
    pub(super) fn news(self) -> impl Stream<Item = Result<IsActiveResponse, Status>> + Send {
        unfold(Some(self), |watcher| async {
            let mut watcher = watcher?;
            let news = watcher.next().await.map(|result| IsActiveResponse { result });
            let goes_on = news.is_ok().then_some(watcher);
            Some((news, goes_on))
        })
    }

    async fn next(&mut self) -> Result<bool, Status> {
        loop {
            self.ticks.tick().await;
            let active = is_active(&self.numbers.of(&self.pool)?);
            if self.told.replace(active) != Some(active) {
                return Ok(active);
            }
        }
    }
}
