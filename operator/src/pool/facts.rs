//! What the status of a pool is worked out from.

use std::time::Duration;

use super::apply::Applied;
use super::observe::PodsSeen;
use crate::exchange::Standing;
use crate::policy::record::Record;
use crate::scaling::Size;

/// All of it, as of one moment.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What the API server holds.
    pub applied: &'a Applied,
    /// How many pods there are asked for, and why.
    pub size: &'a Size,
    /// What is seen of the pods.
    pub pods: &'a PodsSeen,
    /// How the pods stand to the plan.
    pub standing: Option<&'a Standing>,
    /// What the plan came from.
    pub record: Option<&'a Record>,
    /// When this is, on the clock of the exchange.
    pub now: Duration,
}
