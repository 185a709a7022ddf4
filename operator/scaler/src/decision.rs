//! What is to be done, and why.

use std::collections::{BTreeMap, BTreeSet};

/// The deletion cost of a pod that is to go: lower than any that somebody else will set.
pub const VICTIM_COST: i32 = -2_147_483_647;

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// How many pods the pool should have.
    pub desired: u32,
    /// How many pods the Deployment is asked for: above `desired` while pods that are to go still work.
    pub replicas: u32,
    /// The UIDs of the pods that are told to retire; all others are told not to.
    pub retire: BTreeSet<String>,
    /// The deletion cost that pods must have, by UID. A pod that is not named here and shows [`VICTIM_COST`] is to lose
    /// it.
    pub costs: BTreeMap<String, i32>,
    /// Why.
    pub reason: Reason,
    /// The numbers that led to it.
    pub numbers: Numbers,
    /// What keeps the pool from being as large, or as small, as it should be.
    pub limited: Option<Limited>,
    /// Whether enough pods report to judge the pool by it.
    pub metrics_available: bool,
    /// How many pods have gone since the last look that were not meant to, while a shrink was under way.
    pub wrong_victim: u32,
}

/// Why a pool is as large as it is, or changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It is as large as it should be.
    #[default]
    Steady,
    /// More pods for the requests that come.
    Work,
    /// More pods for the requests that wait.
    Backlog,
    /// More pods for a sudden rise. It does not shrink until a minute after.
    Panic,
    /// More pods for a rise that goes on.
    Trend,
    /// More pods because a plain target is exceeded.
    Target,
    /// Pods that were to go stay, as they are needed again.
    Undrain,
    /// The owner's range has it so.
    Range,
    /// Fewer pods: no more were needed for a while.
    ScaleDown,
    /// Nothing has come for long.
    IdleToZero,
    /// From zero: something came.
    FromZero,
    /// From zero: nobody is known to hold what comes.
    NoActivator,
    /// Fewer would do by what is known, and too little is.
    Frozen,
    /// Fewer would do, once the rollout is complete.
    RolloutInProgress,
    /// Fewer would do by what is known, and that is not a minute old.
    Restart,
    /// More are needed, and those asked for have had no place for long.
    NoPlace,
}

impl Reason {
    /// The word for it in a status, an event or a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "Steady",
            Self::Work => "Work",
            Self::Backlog => "Backlog",
            Self::Panic => "Panic",
            Self::Trend => "Trend",
            Self::Target => "Target",
            Self::Undrain => "Undrain",
            Self::Range => "Range",
            Self::ScaleDown => "ScaleDown",
            Self::IdleToZero => "IdleToZero",
            Self::FromZero => "FromZero",
            Self::NoActivator => "NoActivator",
            Self::Frozen => "Frozen",
            Self::RolloutInProgress => "RolloutInProgress",
            Self::Restart => "Restart",
            Self::NoPlace => "NoPlace",
        }
    }
}

/// The numbers that led to a decision.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Numbers {
    /// λ: new requests a second. What limits refuse is not among them, and a request that comes again counts once.
    pub rate: f64,
    /// S: for how long a request holds its slot, in seconds.
    pub service_seconds: f64,
    /// Q: requests that wait, in pods and held for the pool.
    pub backlog: u64,
    /// Requests that run.
    pub in_flight: u64,
    /// The age of the oldest that waits, in seconds.
    pub oldest_wait_seconds: f64,
    /// L: how long a pod takes from its node to being ready, in seconds.
    pub startup_seconds: f64,
    /// T: in what time what waits should be worked off, in seconds.
    pub drain_seconds: f64,
    /// N: how many pods that makes, before any bound.
    pub needed: u32,
    /// P: how many requests one pod answers at one time.
    pub slots: f64,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods that should report, and are silent.
    pub missing: u32,
}

/// What keeps a pool from being as large, or as small, as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limited {
    /// Fewer would do, and the owner wants no fewer.
    TooFewReplicas,
    /// More are needed, and the owner wants no more.
    TooManyReplicas,
    /// Pods are to go, once the rollout is complete.
    RolloutInProgress,
    /// Pods find no GPU, or the quota allows no more.
    InsufficientGpu,
    /// Pods have had no place for so long that no more are asked for.
    ProvisioningTimeout,
    /// It would go to zero, and nobody has been there for long who would hold what comes.
    NoActivator,
}

impl Limited {
    /// The word for it in a condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooFewReplicas => "TooFewReplicas",
            Self::TooManyReplicas => "TooManyReplicas",
            Self::RolloutInProgress => "RolloutInProgress",
            Self::InsufficientGpu => "InsufficientGPU",
            Self::ProvisioningTimeout => "ProvisioningTimeout",
            Self::NoActivator => "NoActivator",
        }
    }
}
