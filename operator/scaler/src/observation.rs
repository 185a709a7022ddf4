//! What is known of a pool at one moment.

use std::time::Duration;

use corral_wire::{Counters, Gauges};

/// What is known of a pool now. All times are since the moment that `now` counts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// How many pods the Deployment is asked for.
    pub replicas: u32,
    /// How many pods Kubernetes counts for it that are not on their way out; fewer than are seen, or 0, say nothing. More
    /// than are seen: the view of the pods is behind.
    pub exist: u32,
    /// Whether a rollout is incomplete.
    pub rollout: bool,
    /// Every pod of the pool that exists, also those that terminate.
    pub pods: Vec<PodSeen>,
    /// What is held for the pool while it has no pod that could answer.
    pub held: Held,
    /// Why some pods have no place; none while all have.
    pub shortage: Option<Shortage>,
}

/// What activators hold for a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Requests that are held now.
    pub requests: u32,
    /// Requests that have come, also those that were refused for want of room. It only grows.
    pub arrivals: u64,
    /// Within one `requests` grows by what comes and falls by what is let go to pods; it moves when some are lost with who
    /// held them. 0 while nobody tells.
    pub epoch: u64,
    /// For how long the oldest is held, in milliseconds; 0 when none is.
    pub oldest_wait_ms: u64,
}

/// Some pods have no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// What there is too little of.
    pub of: Scarce,
    /// Since when.
    pub since: Duration,
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scarce {
    /// GPUs of the cluster's nodes.
    Gpu,
    /// What the namespace's quota allows.
    Quota,
    /// Anything else of a node.
    Node,
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSeen {
    /// Its UID, by which it is told apart.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// The node it is assigned to; none before it is.
    pub node: Option<String>,
    /// Its phase.
    pub phase: Phase,
    /// Whether Kubernetes calls it ready.
    pub ready: bool,
    /// Since when Kubernetes does; none while it does not.
    pub ready_since: Option<Duration>,
    /// The most restarts of one of its containers.
    pub restarts: u32,
    /// When it was made.
    pub created: Duration,
    /// When it got its node; none before.
    pub scheduled: Option<Duration>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Its deletion cost as last seen; 0 without the annotation.
    pub deletion_cost: i32,
    /// What its sidecar last said; none before it said anything.
    pub heard: Option<Heard>,
}

/// The phase of a pod that has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Not all of its containers have been started.
    #[default]
    Pending,
    /// Its node does not answer.
    Unknown,
    /// It runs.
    Running,
}

/// What a sidecar said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// When it was heard.
    pub at: Duration,
    /// Marks one life of the sidecar: its counters start at 0 when it changes.
    pub epoch: u64,
    /// What has happened since then.
    pub counters: Counters,
    /// How things stand.
    pub gauges: Gauges,
    /// Which models are loaded.
    pub models: Vec<String>,
    /// Whether it obeys the order to retire.
    pub retiring: bool,
    /// Whether it calls itself ready.
    pub ready: bool,
}
