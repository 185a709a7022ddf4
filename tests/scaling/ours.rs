//! The real autoscaler, with what the operator does around it: pods and reports become an observation, and its decision
//! becomes orders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) use corral_scaler::Preset;
use corral_scaler::{
    Config, Decision, Heard, Holder, Limited, Observation, Phase, PodSeen, Scaler, Scarce, Shortage, Sizing,
    VICTIM_COST,
};

use crate::agenda::Time;
use crate::autoscaler::{Autoscaler, Fate, Orders, Sight};
use crate::pod::Pod;

/// The operator's clock began so long before the run.
const BEFORE: Duration = Duration::from_hours(1000);
/// The scheduler has said by then that it has no place.
const UNSCHEDULED: Duration = Duration::from_secs(1);

/// The operator's part for one pool.
pub(crate) struct Ours {
    scaler: Option<Scaler>,
    config: Config,
    /// What each pod said last.
    heard: BTreeMap<usize, Heard>,
}

impl Ours {
    pub(crate) fn new(preset: Preset, [min, max]: [u32; 2]) -> Self {
        let sizing = Sizing::Work { utilization_percent: 75, preset };
        let config = Config { min, max, sizing, slots_per_pod: 4, ..Config::default() };
        Self { scaler: None, config, heard: BTreeMap::new() }
    }

    pub(crate) fn with_trend(mut self) -> Self {
        self.config.trend = true;
        self
    }

    pub(crate) fn sleeping_after(mut self, idle: Duration) -> Self {
        (self.config.min, self.config.to_zero, self.config.holder) = (0, Some(idle), Holder::Heard);
        self
    }

    /// The exchange: every sidecar that runs and is not dark says how it is.
    fn listen(&mut self, sight: &Sight) {
        self.heard.retain(|number, _| sight.pods.iter().any(|pod| pod.number == *number));
        for pod in sight.pods.iter().filter(|pod| pod.runs.is_some() && !pod.dark) {
            let heard = Heard {
                at: BEFORE + sight.now,
                epoch: 1,
                counters: pod.counters,
                gauges: pod.gauges(sight.slots, sight.now),
                models: Vec::new(),
                retiring: pod.retires_until.is_some(),
                ready: pod.says_ready(),
            };
            self.heard.insert(pod.number, heard);
        }
    }

    fn observe(&self, sight: &Sight) -> Observation {
        let known =
            sight.pods.iter().filter(|pod| pod.created + sight.lag <= sight.now || pod.created == Time::ZERO);
        let old_enough = |since: &Time| *since + UNSCHEDULED <= sight.now;
        let shortage = sight.without_place.filter(old_enough);
        Observation {
            replicas: sight.replicas,
            pods: known.map(|pod| self.seen(pod, sight)).collect(),
            shortage: shortage.map(|since| Shortage { of: Scarce::Gpu, since: BEFORE + since }),
            held: sight.held,
            ..Observation::default()
        }
    }

    /// As the operator's watch has it.
    fn seen(&self, pod: &Pod, sight: &Sight) -> PodSeen {
        let (now, lag) = (sight.now, sight.lag);
        let heard_of =
            |since: Option<Time>| since.filter(|since| *since + lag <= now || *since == Time::ZERO);
        let ready = pod.ready.seen(now, lag);
        let scheduled = heard_of(pod.scheduled);
        PodSeen {
            uid: pod.name(),
            name: pod.name(),
            node: scheduled.map(|_| format!("node-{}", pod.node())),
            phase: if heard_of(pod.runs).is_some() { Phase::Running } else { Phase::Pending },
            ready,
            ready_since: ready.then(|| BEFORE + pod.ready.since()),
            restarts: pod.restarts,
            created: BEFORE + pod.created,
            scheduled: scheduled.map(|since| BEFORE + since),
            terminating: heard_of(pod.terminating).is_some(),
            deletion_cost: pod.cost.seen(now, lag),
            heard: self.heard.get(&pod.number).cloned(),
        }
    }
}

/// What is not as the decision wants it: costs to be written, and, for whoever is not to go any more, cleared.
fn costs(decision: &Decision, sight: &Sight, numbers: &BTreeMap<String, usize>) -> BTreeMap<usize, i32> {
    let wanted = decision.costs.iter().filter_map(|(uid, cost)| Some((*numbers.get(uid)?, *cost)));
    let mut wanted: BTreeMap<usize, i32> = wanted.collect();
    for pod in &sight.pods {
        let shown = pod.cost.seen(sight.now, sight.lag);
        let as_it_should_be = wanted.get(&pod.number).map_or(shown != VICTIM_COST, |cost| *cost == shown);
        if as_it_should_be || pod.terminating.is_some() {
            wanted.remove(&pod.number);
        } else {
            wanted.entry(pod.number).or_insert(0);
        }
    }
    wanted
}

impl Autoscaler for Ours {
    fn period(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn look(&mut self, sight: &Sight) -> Orders {
        self.listen(sight);
        let (now, seen) = (BEFORE + sight.now, self.observe(sight));
        let decision = self.scaler.get_or_insert_with(|| Scaler::new(now)).decide(&self.config, &seen, now);
        let numbers: BTreeMap<String, usize> =
            sight.pods.iter().map(|pod| (pod.name(), pod.number)).collect();
        let retire: BTreeSet<usize> =
            decision.retire.iter().filter_map(|uid| numbers.get(uid).copied()).collect();
        Orders {
            desired: decision.desired,
            replicas: decision.replicas,
            retire,
            costs: costs(&decision, sight, &numbers),
            wrong_victims: decision.wrong_victim,
            reason: decision.reason.as_str(),
            limited: decision.limited.map_or("", Limited::as_str),
            hears: decision.metrics_available,
        }
    }

    fn suffer(&mut self, fate: Fate) {
        match fate {
            Fate::Bounds(min, max) => (self.config.min, self.config.max) = (min, max),
            Fate::Restart => {
                self.scaler = None;
                self.heard.clear();
            }
        }
    }
}
