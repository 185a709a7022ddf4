//! Every metric of the operator. Labels are of small, fixed sets, and never a name of an object but for those that
//! `sizes` bounds.

mod sizes;

use std::fmt::Error;
use std::time::Duration;

use corral_scaler::Decision;
use corral_wire::PoolRef;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use sizes::Sizes;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    kind: &'static str,
    error: &'static str,
}

type Durations = Family<Kind, Histogram, fn() -> Histogram>;

/// The operator's metrics.
pub struct Metrics {
    registry: Registry,
    leader: Gauge,
    reconciles: Durations,
    failures: Family<Failure, Counter>,
    sizes: Sizes,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 8))
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("corral_operator");
        let leader = Gauge::default();
        let reconciles = Durations::new_with_constructor(durations);
        let failures = Family::default();
        registry.register("leader", "Whether this process leads: 1 or 0", leader.clone());
        registry.register_with_unit(
            "reconcile",
            "How long a reconcile took, failed ones too",
            Unit::Seconds,
            reconciles.clone(),
        );
        registry.register(
            "reconcile_failures",
            "Reconciles that failed, by kind and error",
            failures.clone(),
        );
        let sizes = Sizes::registered(&mut registry);
        Self { registry, leader, reconciles, failures, sizes }
    }

    /// Notes whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Notes a reconcile of a `pool` or a `policy`; `error` names what stopped it.
    pub fn reconciled(&self, kind: &'static str, took: Duration, error: Option<&'static str>) {
        self.reconciles.get_or_create(&Kind { kind }).observe(took.as_secs_f64());
        if let Some(error) = error {
            self.failures.get_or_create(&Failure { kind, error }).inc();
        }
    }

    /// Notes what was decided of a pool's size, and how long that took.
    pub fn sized(&self, pool: &PoolRef, decision: &Decision, took: Duration) {
        self.sizes.note(pool, decision, took);
    }

    /// Forgets pools that are gone.
    pub fn retain(&self, keep: impl Fn(&PoolRef) -> bool) {
        self.sizes.retain(keep);
    }

    /// All of them as text.
    pub fn text(&self) -> Result<String, Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_reconcile_is_counted_by_its_error() {
        let metrics = Metrics::new();
        metrics.reconciled("pool", Duration::from_millis(3), Some("api"));
        metrics.leads(true);
        let text = metrics.text().unwrap();
        assert!(
            text.contains("corral_operator_reconcile_failures_total{kind=\"pool\",error=\"api\"} 1"),
            "{text}"
        );
        assert!(text.contains("corral_operator_leader 1"), "{text}");
    }
}
