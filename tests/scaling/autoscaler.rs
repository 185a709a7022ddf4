//! What decides how many pods there are: shown the pool at its turns, and its orders are carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::agenda::Time;
use crate::pod::Pod;

/// The pool as its API objects and its sidecars show it.
pub(crate) struct Sight<'a> {
    pub(crate) now: Time,
    /// Asked of the Deployment now.
    pub(crate) replicas: u32,
    /// All that are not gone, the oldest first.
    pub(crate) pods: Vec<&'a Pod>,
    pub(crate) slots: u32,
    /// How much later than they happen the autoscaler hears of changes of pods.
    pub(crate) lag: Duration,
    /// Pods that no node has a place for: since when.
    pub(crate) without_place: Option<Time>,
    /// What the activator holds.
    pub(crate) held: corral_scaler::Held,
}

impl Sight<'_> {
    /// Kubernetes' word.
    pub(crate) fn ready(&self) -> u32 {
        let ready = self.pods.iter().filter(|pod| pod.ready.get() && pod.terminating.is_none());
        u32::try_from(ready.count()).unwrap()
    }

    /// In flight and queued, over all.
    pub(crate) fn busy(&self) -> u32 {
        self.pods.iter().map(|pod| pod.busy()).sum()
    }
}

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders {
    pub(crate) desired: u32,
    /// Asked of the Deployment from now on.
    pub(crate) replicas: u32,
    /// Told to retire; all others are told not to.
    pub(crate) retire: BTreeSet<usize>,
    /// Deletion costs to be written, for pods whose cost is another.
    pub(crate) costs: BTreeMap<usize, i32>,
    /// Pods whose death was seen, and who were not chosen.
    pub(crate) wrong_victims: u32,
    /// Why, in a word.
    pub(crate) reason: &'static str,
    /// Why not otherwise, in a word.
    pub(crate) limited: &'static str,
    /// Enough of the pods are heard from.
    pub(crate) hears: bool,
}

impl Orders {
    /// So many pods, whoever goes.
    pub(crate) fn plain(desired: u32) -> Self {
        Self { desired, replicas: desired, hears: true, ..Self::default() }
    }
}

/// What happens to an autoscaler, of what scenarios do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    /// Fewest and most pods, from now on.
    Bounds(u32, u32),
    /// It forgets everything: another process does its work.
    Restart,
}

/// Decides how many pods there are.
pub(crate) trait Autoscaler {
    /// From one turn to the next.
    fn period(&self) -> Duration;

    fn look(&mut self, sight: &Sight) -> Orders;

    fn suffer(&mut self, fate: Fate);
}
