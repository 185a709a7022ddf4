//! How things stand, read at each scrape and kept nowhere: what has gone leaves no series behind.

use std::sync::atomic::AtomicU64;

use corral_limiter::LimitStats;
use corral_limiter::queue::{BandGauges, ModelGauges};
use corral_wire::{Counters, Gauges};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::models;
use crate::health::{Circuit, Reason};

/// How things stand at the moment of a scrape.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Slots and queue.
    pub gauges: Gauges,
    /// Totals since the process began.
    pub counters: Counters,
    /// Sequence of the plan in force; 0 when there is none.
    pub plan_sequence: u64,
    /// D in force.
    pub divisor: u32,
    /// Why the sidecar is not ready.
    pub reason: Option<Reason>,
    /// Whether Ollama is sent anything.
    pub circuit: Circuit,
    /// How often readiness has changed to each reason.
    pub transitions: Vec<(Reason, u64)>,
    /// Models that are loaded and not wholly on the GPU that they belong on.
    pub models_off_gpu: usize,
    /// What each limit in force has done.
    pub limits: Vec<LimitStats>,
    /// The queue by band.
    pub bands: Vec<BandGauges>,
    /// Models that are loaded, run or are waited for.
    pub models: Vec<ModelGauges>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLimit {
    policy: String,
    limit: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDecision {
    policy: String,
    limit: String,
    decision: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfUnit {
    policy: String,
    limit: String,
    unit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

impl From<Reason> for OfReason {
    fn from(reason: Reason) -> Self {
        Self { reason: if reason == Reason::Ready { "Ready" } else { reason.word() } }
    }
}

impl Standing {
    pub(super) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("corral");
        self.add_load(&mut registry);
        models::add_bands(&mut registry, &self.bands);
        models::add_models(&mut registry, &self.models);
        self.add_plan(&mut registry);
        self.add_limits(&mut registry);
        self.add_readiness(&mut registry);
        registry.register(
            "build",
            "The build that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry
    }

    fn add_load(&self, registry: &mut Registry) {
        let Gauges { slots, in_flight, queued, oldest_wait_ms, predicted_wait_ms, load_permille, .. } =
            self.gauges;
        registry.register("slots", "Slots per loaded model", ConstGauge::new(i64::from(slots)));
        registry.register("in_flight", "Requests inside Ollama", ConstGauge::new(i64::from(in_flight)));
        registry.register("queue_depth", "Requests waiting for a slot", ConstGauge::new(i64::from(queued)));
        registry.register(
            "queue_oldest_wait_seconds",
            "Age of the oldest waiting request",
            ConstGauge::new(seconds(oldest_wait_ms)),
        );
        registry.register(
            "queue_predicted_wait_seconds",
            "How long one more request would wait, as estimated",
            ConstGauge::new(seconds(predicted_wait_ms)),
        );
        registry.register(
            "load_index",
            "Smoothed load: at 1 one more request would wait as long as any may, or be refused",
            ConstGauge::new(f64::from(load_permille) / 1000.0),
        );
        registry.register(
            "slot_seconds",
            "Time that slots were held, summed over slots",
            ConstCounter::new(seconds(self.counters.slot_millis)),
        );
    }

    fn add_plan(&self, registry: &mut Registry) {
        let sequence = i64::try_from(self.plan_sequence).unwrap_or(i64::MAX);
        registry.register(
            "plan_sequence",
            "Sequence of the plan in force; 0 for none",
            ConstGauge::new(sequence),
        );
        registry.register(
            "plan_divisor",
            "Among how many pods pool-wide limits are shared",
            ConstGauge::new(i64::from(self.divisor)),
        );
    }

    fn add_limits(&self, registry: &mut Registry) {
        let decisions = Family::<OfDecision, Counter>::default();
        let overflow = Family::<OfLimit, Counter>::default();
        let keys = Family::<OfLimit, Gauge>::default();
        let refusals = Family::<OfUnit, Counter>::default();
        let adaptive = Family::<OfLimit, Gauge<f64, AtomicU64>>::default();
        for stats in &self.limits {
            let (policy, limit) = (stats.limit.policy.clone(), stats.limit.name.clone());
            let counts = [
                ("admitted", stats.admitted),
                ("refused", stats.refused),
                ("would_refuse", stats.would_refuse),
                ("delayed", stats.delayed),
                ("queued", stats.queued),
                ("deprioritized", stats.deprioritized),
                ("exempt", stats.exempt),
            ];
            for (decision, count) in counts {
                let labels = OfDecision { policy: policy.clone(), limit: limit.clone(), decision };
                decisions.get_or_create(&labels).inc_by(count);
            }
            for units in &stats.units {
                let unit = units.unit.as_str();
                let labels = OfUnit { policy: policy.clone(), limit: limit.clone(), unit };
                refusals.get_or_create(&labels).inc_by(units.refused);
            }
            let labels = OfLimit { policy, limit };
            adaptive.get_or_create(&labels).set(f64::from(stats.adaptive_milli) / 1000.0);
            overflow.get_or_create(&labels).inc_by(stats.overflowed);
            keys.get_or_create(&labels).set(i64::try_from(stats.keys).unwrap_or(i64::MAX));
        }
        registry.register("limit_decisions", "Decisions of each limit in force", decisions);
        registry.register(
            "limit_refusals",
            "Requests refused in which a unit of a limit was exceeded",
            refusals,
        );
        registry.register("limit_adaptive_ratio", "What is in force of the numbers of a limit", adaptive);
        registry.register("limit_overflow", "Admissions counted in a bucket that clients share", overflow);
        registry.register("limit_keys", "Buckets kept for a limit", keys);
    }

    fn add_readiness(&self, registry: &mut Registry) {
        let readiness = Family::<OfReason, Gauge>::default();
        for reason in Reason::ALL {
            let holds = self.reason == Some(reason);
            readiness.get_or_create(&OfReason::from(reason)).set(i64::from(holds));
        }
        let off_gpu = i64::try_from(self.models_off_gpu).unwrap_or(i64::MAX);
        registry.register(
            "models_off_gpu",
            "Models that are loaded and not wholly on the GPU, in a pod that has one",
            ConstGauge::new(off_gpu),
        );
        let breaker = Family::<OfState, Gauge>::default();
        for circuit in Circuit::ALL {
            let state = OfState { state: circuit.word() };
            breaker.get_or_create(&state).set(i64::from(circuit == self.circuit));
        }
        registry.register("breaker_state", "1 for the state that the breaker before Ollama is in", breaker);
        registry.register("readiness", "1 for the reason that holds; Ready is the one to want", readiness);
        let transitions = Family::<OfReason, Counter>::default();
        for (reason, count) in &self.transitions {
            transitions.get_or_create(&OfReason::from(*reason)).inc_by(*count);
        }
        registry.register("readiness_transitions", "Changes of readiness, by what they led to", transitions);
    }
}

fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use corral_limiter::{LimitInfo, Unit, UnitStats};
    use corral_wire::Mode;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_limit_tells_what_it_decided_and_what_of_it_is_in_force() {
        let units = vec![UnitStats { unit: Unit::Tokens, refused: 4 }];
        let limit = Arc::new(LimitInfo::new("llm/fair-use", "tokens", None, None));
        let stats = LimitStats {
            limit,
            mode: Mode::Enforce,
            admitted: 1,
            refused: 4,
            would_refuse: 0,
            delayed: 2,
            queued: 3,
            deprioritized: 5,
            exempt: 6,
            overflowed: 7,
            keys: 8,
            adaptive_milli: 550,
            units,
        };
        let text = Metrics::new().render(&Standing { limits: vec![stats], ..Standing::default() });
        let of = "policy=\"llm/fair-use\",limit=\"tokens\"";
        for (metric, more, value) in [
            ("limit_decisions_total", ",decision=\"delayed\"", "2"),
            ("limit_decisions_total", ",decision=\"queued\"", "3"),
            ("limit_decisions_total", ",decision=\"deprioritized\"", "5"),
            ("limit_decisions_total", ",decision=\"exempt\"", "6"),
            ("limit_refusals_total", ",unit=\"tokens\"", "4"),
            ("limit_adaptive_ratio", "", "0.55"),
            ("limit_overflow_total", "", "7"),
            ("limit_keys", "", "8"),
        ] {
            let line = format!("corral_{metric}{{{of}{more}}} {value}");
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_scrape_shows_how_things_stand_now() {
        let standing = Standing {
            gauges: Gauges {
                slots: 4,
                in_flight: 3,
                queued: 2,
                queued_cost_ms: 9000,
                oldest_wait_ms: 1500,
                predicted_wait_ms: 2500,
                load_permille: 1250,
            },
            counters: Counters { slot_millis: 2500, ..Counters::default() },
            plan_sequence: 7,
            divisor: 2,
            reason: Some(Reason::OllamaDown),
            circuit: Circuit::HalfOpen,
            transitions: vec![(Reason::Ready, 3), (Reason::Overloaded, 2)],
            models_off_gpu: 2,
            ..Standing::default()
        };
        let text = Metrics::new().render(&standing);
        for line in [
            "corral_slots 4",
            "corral_in_flight 3",
            "corral_queue_depth 2",
            "corral_queue_oldest_wait_seconds 1.5",
            "corral_slot_seconds_total 2.5",
            "corral_plan_sequence 7",
            "corral_plan_divisor 2",
            "corral_queue_predicted_wait_seconds 2.5",
            "corral_load_index 1.25",
            "corral_readiness_transitions_total{reason=\"Overloaded\"} 2",
            "corral_readiness_transitions_total{reason=\"Ready\"} 3",
            "corral_models_off_gpu 2",
            "corral_breaker_state{state=\"half_open\"} 1",
            "corral_breaker_state{state=\"closed\"} 0",
            "corral_readiness{reason=\"OllamaDown\"} 1",
            "corral_readiness{reason=\"Ready\"} 0",
            concat!("corral_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
