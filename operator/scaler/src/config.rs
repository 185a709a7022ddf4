//! What a pool's owner asks of its size.

use std::time::Duration;

/// What holds now, of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The fewest pods; 0 only where the pool may go to zero. Schedules are applied already.
    pub min: u32,
    /// The most pods. Where it is below `min`, it wins.
    pub max: u32,
    /// By what the pool is sized.
    pub sizing: Sizing,
    /// How many requests one pod answers at one time; 0 counts as 1. What pods say of themselves counts above it.
    pub slots_per_pod: u32,
    /// For how long a request holds its slot, until enough of them were seen.
    pub expected_service: Duration,
    /// How the pool shrinks.
    pub down: Down,
    /// The longest that a pod chosen to go is waited for; then Kubernetes ends it, with the grace it has.
    pub drain_timeout: Duration,
    /// Whether growing load is met ahead of time, by as much as a pod takes to start.
    pub trend: bool,
    /// Without a request for so long the pool goes to zero; none: it never has fewer than one pod.
    pub to_zero: Option<Duration>,
    /// Who holds the requests that come while no pod is there. A pool goes to zero only with somebody who is heard.
    pub holder: Holder,
}

/// Who holds the requests that come while no pod is there, the best last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// Nobody that is known.
    #[default]
    Nobody,
    /// Somebody may: one that is ready was not heard lately, or one that is heard is not ready.
    Unheard,
    /// Somebody who was heard lately.
    Heard,
}

/// By what a pool is sized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizing {
    /// By the work that comes, and the work that waits.
    Work {
        /// How much of the slots' time should be used, in percent: 1 to 100.
        utilization_percent: u32,
        /// How fast what waits is worked off.
        preset: Preset,
    },
    /// As many pods as give each so many waiting requests. 0 counts as 1, here and below.
    QueuePerReplica(u32),
    /// More pods while the oldest request waits for longer than this, fewer while for less. 0 counts as 1 ms.
    OldestWait(Duration),
    /// As many pods as give each so many requests, running or waiting.
    InFlightPerReplica(u32),
    /// As many pods as give each so many tokens of answers a second to write.
    TokensPerSecond(u32),
}

impl Default for Sizing {
    fn default() -> Self {
        Self::Work { utilization_percent: 75, preset: Preset::default() }
    }
}

/// How fast what waits is worked off: the less time for it, the more pods are made for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preset {
    /// In the time that a pod takes to start.
    Economy,
    /// In half of it.
    #[default]
    Balanced,
    /// In a quarter of it.
    Fast,
}

impl Preset {
    /// The part of a pod's start-up time in which what waits is worked off.
    pub fn part(self) -> f64 {
        match self {
            Self::Economy => 1.0,
            Self::Balanced => 0.5,
            Self::Fast => 0.25,
        }
    }
}

/// How a pool shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Down {
    /// It shrinks to the most that was needed within this time; what waited or was sudden counts for less, unless it comes
    /// again. 0: to what is needed now.
    pub window: Duration,
    /// The most that go in one step, in percent of the pods; one may always go.
    pub max_percent: u32,
    /// The time between two steps. 0: none.
    pub period: Duration,
}

impl Default for Down {
    fn default() -> Self {
        Self { window: Duration::from_mins(5), max_percent: 25, period: Duration::from_secs(30) }
    }
}

impl Default for Config {
    /// One to four pods of one slot each, sized by work.
    fn default() -> Self {
        Self {
            min: 1,
            max: 4,
            sizing: Sizing::default(),
            slots_per_pod: 1,
            expected_service: Duration::from_secs(10),
            down: Down::default(),
            drain_timeout: Duration::from_mins(10),
            trend: false,
            to_zero: None,
            holder: Holder::Nobody,
        }
    }
}
