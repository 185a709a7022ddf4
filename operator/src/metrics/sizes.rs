//! How large each pool is and should be, and what that was worked out from. The only metrics with names of objects: pools are
//! few, no more than [`MOST`] are counted, and those that are gone are dropped.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use corral_scaler::Decision;
use corral_wire::PoolRef;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The most pools that are counted; of more, those that come last are not.
const MOST: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
    pool: String,
}

type Whole = Family<Labels, Gauge>;
type Decimal = Family<Labels, Gauge<f64, AtomicU64>>;

pub(super) struct Sizes {
    counted: Mutex<HashSet<PoolRef>>,
    desired: Whole,
    asked: Whole,
    ready: Whole,
    queued: Whole,
    rate: Decimal,
    service: Decimal,
    drain: Decimal,
    took: Histogram,
    wrong_victims: Counter,
}

impl Sizes {
    /// All of them, in a registry.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let sizes = Self {
            counted: Mutex::default(),
            desired: Family::default(),
            asked: Family::default(),
            ready: Family::default(),
            queued: Family::default(),
            rate: Family::default(),
            service: Family::default(),
            drain: Family::default(),
            took: Histogram::new(exponential_buckets(0.000_01, 8.0, 7)),
            wrong_victims: Counter::default(),
        };
        sizes.register_pods(registry);
        sizes.register_load(registry);
        let looks = "How long it took to look at a pool and to decide its size";
        registry.register_with_unit("pool_size_decision", looks, Unit::Seconds, sizes.took.clone());
        let wrong = "Pods that went while a pool shrank and were not chosen to go";
        registry.register("scale_down_wrong_victim", wrong, sizes.wrong_victims.clone());
        sizes
    }

    fn register_pods(&self, registry: &mut Registry) {
        let desired = "Pods that a pool should have";
        registry.register("pool_desired_replicas", desired, self.desired.clone());
        let asked = "Pods that its Deployment is asked for: more while pods that shall go still work";
        registry.register("pool_asked_replicas", asked, self.asked.clone());
        registry.register("pool_ready_replicas", "Pods of a pool that are ready", self.ready.clone());
    }

    fn register_load(&self, registry: &mut Registry) {
        let queued = "Requests that wait for a slot of a pool";
        registry.register("pool_queued_requests", queued, self.queued.clone());
        let rate = "Requests that come to a pool each second";
        registry.register("pool_arrivals_per_second", rate, self.rate.clone());
        let service = "How long a request holds a slot of a pool";
        registry.register_with_unit("pool_service", service, Unit::Seconds, self.service.clone());
        let drain = "In what time that which waits for a pool should be worked off";
        registry.register_with_unit("pool_backlog_target", drain, Unit::Seconds, self.drain.clone());
    }

    pub(super) fn note(&self, pool: &PoolRef, decision: &Decision, took: Duration) {
        self.took.observe(took.as_secs_f64());
        self.wrong_victims.inc_by(u64::from(decision.wrong_victim));
        if !self.counts(pool) {
            return;
        }
        let (labels, numbers) = (labels(pool), &decision.numbers);
        self.desired.get_or_create(&labels).set(i64::from(decision.desired));
        self.asked.get_or_create(&labels).set(i64::from(decision.replicas));
        self.ready.get_or_create(&labels).set(i64::from(numbers.ready));
        self.queued.get_or_create(&labels).set(i64::try_from(numbers.backlog).unwrap_or(i64::MAX));
        self.rate.get_or_create(&labels).set(numbers.rate);
        self.service.get_or_create(&labels).set(numbers.service_seconds);
        self.drain.get_or_create(&labels).set(numbers.drain_seconds);
    }

    fn counts(&self, pool: &PoolRef) -> bool {
        let mut counted = self.counted.lock();
        counted.contains(pool) || (counted.len() < MOST && counted.insert(pool.clone()))
    }

    pub(super) fn retain(&self, keep: impl Fn(&PoolRef) -> bool) {
        let mut counted = self.counted.lock();
        let gone: Vec<PoolRef> = counted.iter().filter(|pool| !keep(pool)).cloned().collect();
        for pool in gone {
            counted.remove(&pool);
            self.drop(&labels(&pool));
        }
    }

    fn drop(&self, labels: &Labels) {
        for family in [&self.desired, &self.asked, &self.ready, &self.queued] {
            family.remove(labels);
        }
        for family in [&self.rate, &self.service, &self.drain] {
            family.remove(labels);
        }
    }
}

fn labels(pool: &PoolRef) -> Labels {
    Labels { namespace: pool.namespace.clone(), pool: pool.name.clone() }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn pool(name: &str) -> PoolRef {
        PoolRef { namespace: "llm".to_owned(), name: name.to_owned() }
    }

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_pool_is_counted_while_it_exists_and_no_more_pools_than_are_bounded() {
        let mut registry = Registry::with_prefix("corral_operator");
        let sizes = Sizes::registered(&mut registry);
        let decision = Decision { desired: 3, replicas: 4, wrong_victim: 2, ..Decision::default() };
        sizes.note(&pool("chat"), &decision, Duration::ZERO);
        let told = text(&registry);
        for line in [
            "corral_operator_pool_desired_replicas{namespace=\"llm\",pool=\"chat\"} 3",
            "corral_operator_pool_asked_replicas{namespace=\"llm\",pool=\"chat\"} 4",
            "corral_operator_scale_down_wrong_victim_total 2",
        ] {
            assert!(told.contains(line), "{line} in {told}");
        }
        (0..MOST + 5).for_each(|nth| sizes.note(&pool(&format!("p{nth}")), &decision, Duration::ZERO));
        assert_eq!(text(&registry).matches("pool_desired_replicas{").count(), MOST);
        sizes.retain(|kept| kept.name == "p7");
        assert_eq!(text(&registry).matches("pool_desired_replicas{").count(), 1);
    }
}
