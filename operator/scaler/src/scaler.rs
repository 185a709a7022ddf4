//! What is remembered of one pool, and the decision.

use std::time::Duration;

use crate::load::{Load, Look};
use crate::range::Range;
use crate::rate::STABLE;
use crate::reports::Reports;
use crate::shrink::{Ask, Orders, Shrink};
use crate::size::{Needs, Size};
use crate::startup::Startup;
use crate::timeline::Timeline;
use crate::{Config, Decision, Holder, Limited, Observation, Reason, Scarce};

/// After so long without a look what was needed meanwhile is not known, or the clock has jumped.
const GAP: Duration = STABLE;
/// Pods that have had no place for so long get none soon: no more are asked for.
const PROVISIONING: Duration = Duration::from_mins(15);

/// For so long a node may be on its way, or about to be free: that alarms nobody.
const BRIEF: Duration = Duration::from_secs(10);

/// What is remembered of one pool. It needs nothing from before: what the Deployment is asked for is where it begins, and pods
/// tell what they have done.
#[derive(Debug, Clone)]
pub struct Scaler {
    time: Timeline,
    startup: Startup,
    load: Load,
    size: Option<Size>,
    shrink: Shrink,
    /// What the pool needs, held against what its owner allows.
    range: Range,
    /// Since when Kubernetes counts pods that are not seen.
    unseen_since: Option<Duration>,
}

impl Scaler {
    /// Begins to look at a pool.
    pub fn new(now: Duration) -> Self {
        Self {
            time: Timeline::new(now),
            startup: Startup::default(),
            load: Load::new(now),
            size: None,
            shrink: Shrink::default(),
            range: Range::default(),
            unseen_since: None,
        }
    }

    /// The same, by what the last who looked at it learned of L: how many seconds a pod takes to start.
    pub fn after(now: Duration, startup_seconds: f64) -> Self {
        Self { startup: Startup::after(startup_seconds), ..Self::new(now) }
    }

    /// What is to be done now. Asked again at the same moment with the same it says the same. It is called each 2 s and
    /// whenever something has changed; any other rhythm does no harm, but after a minute without a look it begins anew.
    pub fn decide(&mut self, config: &Config, seen: &Observation, now: Duration) -> Decision {
        let passed = self.time.step(now);
        let time = self.time.now();
        self.startup.look(seen, &self.time);
        let mut reports = Reports::of(seen, &self.startup, now, time);
        self.unseen_since = (reports.unseen > 0).then(|| self.unseen_since.unwrap_or(time));
        reports.miss_unseen(self.unseen_since.map_or(Duration::ZERO, |since| time.saturating_sub(since)));
        let are_used = self.load.take(seen, &self.startup, &self.time);

        let size = self.size.get_or_insert_with(|| Size::new(seen.replicas, time));
        if passed > GAP {
            size.resume(seen.replicas, time);
            self.range = Range::default();
        }
        let startup = self.startup.seconds();
        let look = Look { config, seen, reports: &reports, startup, current: size.desired(), now: time };
        let (needs, numbers) = self.load.needs(&look);
        let is_blind = is_blind(config, seen, &reports);
        let short_for = seen.shortage.map(|shortage| now.saturating_sub(shortage.since));
        let has_no_place = short_for.is_some_and(|since| since >= PROVISIONING);
        let needs = Needs { is_blind, has_no_place, rollout: seen.rollout, ..needs };
        size.idle.look(&seen.held, &reports, are_used, time);
        let before = size.desired();
        let (desired, reason) = size.decide(config, &needs, time);
        let lacks = size.idle.lacks();

        let ask = Ask {
            desired,
            replicas: seen.replicas,
            rollout: seen.rollout,
            is_blind: reports.are_partial(),
            drain_timeout: config.drain_timeout,
            now: time,
        };
        let orders = self.shrink.step(&ask, &reports);
        let waits_for_rollout =
            reason == Reason::RolloutInProgress || (seen.rollout && desired < seen.replicas);
        let held_in = self.range.look(config, &needs, time).or(lacks.then_some(Limited::NoActivator));
        Decision {
            desired,
            replicas: orders.replicas,
            reason: reason_of(reason, (before, &ask), &orders, waits_for_rollout),
            limited: limited((seen, now), held_in, (has_no_place, waits_for_rollout)),
            metrics_available: reports.suffice(),
            numbers,
            retire: orders.retire,
            costs: orders.costs,
            wrong_victim: orders.wrong,
        }
    }
}

/// Whether too little is known to go down: too many are silent, or nobody is there to tell.
fn is_blind(config: &Config, seen: &Observation, reports: &Reports) -> bool {
    let nobody_tells = reports.telling == 0 && seen.replicas > 0 && config.holder != Holder::Heard;
    !reports.suffice() || nobody_tells
}

/// A rise that is met by pods that were to go is no growth; a descent may have to wait.
fn reason_of(reason: Reason, (before, ask): (u32, &Ask), orders: &Orders, waits_for_rollout: bool) -> Reason {
    if ask.desired > before && ask.desired <= ask.replicas && orders.has_let_go {
        return Reason::Undrain;
    }
    if ask.desired == before && waits_for_rollout && reason == Reason::Steady {
        return Reason::RolloutInProgress;
    }
    reason
}

fn limited(
    (seen, now): (&Observation, Duration),
    held_in: Option<Limited>,
    (has_no_place, waits_for_rollout): (bool, bool),
) -> Option<Limited> {
    let is_scarce = seen.shortage.is_some_and(|shortage| {
        matches!(shortage.of, Scarce::Gpu | Scarce::Quota) && now.saturating_sub(shortage.since) >= BRIEF
    });
    [
        (has_no_place, Limited::ProvisioningTimeout),
        (is_scarce, Limited::InsufficientGpu),
        (held_in == Some(Limited::TooManyReplicas), Limited::TooManyReplicas),
        (waits_for_rollout, Limited::RolloutInProgress),
        (held_in == Some(Limited::TooFewReplicas), Limited::TooFewReplicas),
        (held_in == Some(Limited::NoActivator), Limited::NoActivator),
    ]
    .into_iter()
    .find_map(|(is_so, limit)| is_so.then_some(limit))
}
