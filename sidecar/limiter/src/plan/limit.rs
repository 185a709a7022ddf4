//! One limit of a plan: its numbers, and what becomes of what exceeds them.

use std::{fmt, num::NonZeroU32, sync::Arc};

use corral_wire::{Action, Algorithm, EndpointClass, KeyPart, Mode, Scope};

use super::{Rate, matching::Cover};
use crate::{HeadFacts, Nanos, Unit, calendar::Calendar};

/// What a refusal, a header or a metric says of a limit: its identity (policy and name) and the policy's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LimitInfo {
    /// `namespace/name` of the policy.
    pub policy: String,
    /// The limit's name in it.
    pub name: String,
    rates: Vec<(Unit, Rate)>,
    most: Vec<(Unit, NonZeroU32)>,
}

impl LimitInfo {
    /// A limit of requests over time and of concurrency.
    pub fn new(policy: &str, name: &str, requests: Option<Rate>, concurrency: Option<NonZeroU32>) -> Self {
        Self {
            policy: policy.to_owned(),
            name: name.to_owned(),
            rates: requests.map(|rate| (Unit::Requests, rate)).into_iter().collect(),
            most: concurrency.map(|most| (Unit::Concurrency, most)).into_iter().collect(),
        }
    }

    /// The same with a rate of another unit.
    #[must_use]
    pub fn with_rate(mut self, unit: Unit, rate: Rate) -> Self {
        self.rates.push((unit, rate));
        self
    }

    /// The same with a bound of another unit at one time.
    #[must_use]
    pub fn with_most(mut self, unit: Unit, most: NonZeroU32) -> Self {
        self.most.push((unit, most));
        self
    }

    /// What it lets through of a unit over time, for the whole scope; none when it bounds none.
    pub fn rate(&self, unit: Unit) -> Option<Rate> {
        self.rates.iter().find(|(of, _)| *of == unit).map(|(_, rate)| *rate)
    }

    /// What it lets be of a unit at one time, for the whole scope; none when it bounds none.
    pub fn most(&self, unit: Unit) -> Option<NonZeroU32> {
        self.most.iter().find(|(of, _)| *of == unit).map(|(_, most)| *most)
    }

    /// Every rate, in the order of units.
    pub fn rates(&self) -> &[(Unit, Rate)] {
        &self.rates
    }

    /// Every bound at one time, in the order of units.
    pub fn bounds_at_once(&self) -> &[(Unit, NonZeroU32)] {
        &self.most
    }

    /// Every unit that it bounds, rates first.
    pub fn units(&self) -> impl Iterator<Item = Unit> {
        self.rates.iter().map(|(unit, _)| *unit).chain(self.most.iter().map(|(unit, _)| *unit))
    }

    /// What orders limits and tells them apart.
    pub(crate) fn identity(&self) -> (&str, &str) {
        (&self.policy, &self.name)
    }
}

impl fmt::Display for LimitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.policy, self.name)
    }
}

/// What becomes of what exceeds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceed {
    pub(crate) action: Action,
    /// The longest that it lets a request wait; for a leaky bucket its pace says it.
    pub(crate) max_wait: Nanos,
    /// One that costs more than the limit can ever hold is refused for good.
    pub(crate) rejects_oversize: bool,
}

/// Clients whose tiers have the same scale: one store is for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scaled {
    /// In thousandths.
    pub(crate) milli: u32,
    /// Their tiers, sorted; clients without one have the scale 1000.
    pub(crate) tiers: Vec<String>,
}

/// One limit of a plan.
#[derive(Debug, Clone)]
pub struct Limit {
    pub(super) info: Arc<LimitInfo>,
    pub(super) mode: Mode,
    pub(super) cover: Cover,
    pub(super) per: Vec<KeyPart>,
    /// Which of the different `per` of the plan.
    pub(super) per_id: usize,
    pub(super) scope: Scope,
    pub(super) algorithm: Algorithm,
    /// When days begin; none but for fixed windows of a day.
    pub(super) day: Option<Calendar>,
    pub(super) exceed: Exceed,
    /// The least part of its numbers that is left when Ollama fares badly, in thousandths.
    pub(super) adaptive_min: Option<u32>,
    /// Never empty; one alone unless its buckets are each for one client or tier.
    pub(super) scales: Vec<Scaled>,
    /// Places of the exemptions that hold for it.
    pub(super) exemptions: Vec<usize>,
}

impl Limit {
    /// Its identity and its numbers.
    pub fn info(&self) -> &Arc<LimitInfo> {
        &self.info
    }

    /// Whether it refuses or only counts.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whom its numbers are for.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// How its rates are counted.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What is done with what exceeds it. A leaky bucket delays.
    pub fn action(&self) -> Action {
        self.exceed.action
    }

    /// The longest that it lets a request wait; none when it lets none wait, or when its burst says how many wait.
    pub fn max_wait(&self) -> Option<Nanos> {
        (self.exceed.max_wait > Nanos::ZERO).then_some(self.exceed.max_wait)
    }

    /// The least part of its numbers that is in force while Ollama fares badly, in thousandths; none: they stay.
    pub fn adaptive_min_milli(&self) -> Option<u32> {
        self.adaptive_min
    }

    /// What it keeps one bucket each for; sorted, no part twice.
    pub fn per(&self) -> &[KeyPart] {
        &self.per
    }

    /// The endpoint classes it covers; sorted, never empty.
    pub fn endpoints(&self) -> &[EndpointClass] {
        &self.cover.endpoints
    }

    /// The models it covers: names in normal form, and patterns; sorted. Empty: every model.
    pub fn models(&self) -> &[String] {
        &self.cover.model_texts
    }

    /// The tiers it covers; sorted. Empty: every client.
    pub fn tiers(&self) -> &[String] {
        &self.cover.tiers
    }

    /// The largest scale that a tier gives its numbers, in thousandths.
    pub fn largest_scale_milli(&self) -> u32 {
        self.scales.iter().map(|scaled| scaled.milli).max().unwrap_or(UNSCALED)
    }

    pub(crate) fn exceed(&self) -> Exceed {
        self.exceed
    }

    pub(crate) fn day(&self) -> Option<&Calendar> {
        self.day.as_ref()
    }

    pub(crate) fn per_id(&self) -> usize {
        self.per_id
    }

    pub(crate) fn scales(&self) -> &[Scaled] {
        &self.scales
    }

    /// Which of [`Self::scales`] a request of this scale is counted by.
    pub(crate) fn scale_place(&self, milli: u32) -> usize {
        if self.scales.len() <= 1 {
            return 0;
        }
        self.scales.iter().position(|scaled| scaled.milli == milli).unwrap_or(0)
    }

    /// Whether the bucket of a request is for its client alone.
    pub(crate) fn is_per_client(&self, head: &HeadFacts) -> bool {
        let tells = |part: &KeyPart| match part {
            KeyPart::Client | KeyPart::ClientIP => true,
            KeyPart::ApiKey => head.client.is_some(),
            _ => false,
        };
        self.per.iter().any(tells)
    }

    /// Whether the head of a request says all that this limit must know: whom it covers, and what it costs.
    pub(crate) fn is_decided_by_head(&self) -> bool {
        let costs_known = self.info.rates.iter().all(|(unit, _)| *unit == Unit::Requests);
        costs_known
            && self.info.most(Unit::QueuedTokens).is_none()
            && self.cover.models.is_empty()
            && !self.per.contains(&KeyPart::Model)
    }
}

/// The scale of a client in no tier, in thousandths.
pub(crate) const UNSCALED: u32 = 1000;

/// Whether the numbers of a limit with this `per` are scaled by tiers: only where it tells clients or tiers apart. What
/// clients of several tiers share, such as a value of a header, would else be there once for each scale.
pub(super) fn is_scaled(per: &[KeyPart]) -> bool {
    let tells = |part: &KeyPart| {
        matches!(part, KeyPart::Client | KeyPart::ApiKey | KeyPart::ClientIP | KeyPart::Tier)
    };
    per.iter().any(tells)
}
