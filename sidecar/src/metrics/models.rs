//! The queue by band, and slots by model, as they stand at a scrape.
//!
//! Models have names here only while they are loaded, and only so many of them: clients can name any number of models,
//! and Ollama loads only those that it has.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use corral_limiter::queue::{BandGauges, ModelGauges};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::words::{Word, band_word};

/// The most models that have a name of their own.
const MOST_NAMED: usize = 16;
/// All others together.
const OTHER: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBand {
    band: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfModel {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSlots {
    model: String,
    state: Word,
}

/// A cost in nanoseconds of a slot, in seconds.
fn seconds(cost: u64) -> f64 {
    std::time::Duration::from_nanos(cost).as_secs_f64()
}

pub(super) fn add_bands(registry: &mut Registry, bands: &[BandGauges]) {
    let requests = Family::<OfBand, Gauge>::default();
    let cost = Family::<OfBand, Gauge<f64, AtomicU64>>::default();
    let served = Family::<OfBand, Counter<f64, AtomicU64>>::default();
    for band in bands {
        let of = OfBand { band: band_word(band.band) };
        requests.get_or_create(&of).set(i64::from(band.waiting));
        cost.get_or_create(&of).set(seconds(band.cost));
        served.get_or_create(&of).inc_by(seconds(band.served));
    }
    registry.register("queue_requests", "Requests waiting for a slot, by band", requests);
    registry.register(
        "queue_cost_seconds",
        "For how long those who wait will hold their slots, as estimated",
        cost,
    );
    registry.register("queue_served_cost_seconds", "What requests have cost, by band", served);
}

/// What is told of one model, whatever options it is loaded with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    busy: u32,
    limit: u32,
    most: u32,
    waiting: u32,
}

pub(super) fn add_models(registry: &mut Registry, models: &[ModelGauges]) {
    let slots = Family::<OfSlots, Gauge>::default();
    let limits = Family::<OfModel, Gauge>::default();
    let waiting = Family::<OfModel, Gauge>::default();
    for (model, told) in told(models) {
        let named = model != OTHER;
        let states = [
            ("busy", told.busy),
            ("free", told.limit.saturating_sub(told.busy)),
            ("withheld", told.most.saturating_sub(told.limit)),
        ];
        for (state, count) in states.into_iter().filter(|(state, _)| named || *state == "busy") {
            slots.get_or_create(&OfSlots { model: model.to_owned(), state }).set(i64::from(count));
        }
        let of = OfModel { model: model.to_owned() };
        waiting.get_or_create(&of).set(i64::from(told.waiting));
        if named {
            limits.get_or_create(&of).set(i64::from(told.limit));
        }
    }
    registry.register("model_slots", "Slots of a model, by what they do", slots);
    registry.register("model_slot_limit", "Slots of a model that are in force", limits);
    registry.register("model_queue_depth", "Requests waiting for a model", waiting);
}

/// Those that are loaded, the busiest first while there are names; and all others as one.
fn told(models: &[ModelGauges]) -> BTreeMap<&str, Told> {
    let mut loaded: BTreeMap<&str, Told> = BTreeMap::new();
    for gauges in models.iter().filter(|gauges| gauges.is_loaded) {
        loaded.entry(gauges.model.as_str()).or_default();
    }
    let mut all: BTreeMap<&str, Told> = BTreeMap::from([(OTHER, Told::default())]);
    for gauges in models {
        let name = gauges.model.as_str();
        let told = match loaded.get_mut(name) {
            Some(told) => told,
            None => all.entry(OTHER).or_default(),
        };
        told.add(gauges);
    }
    let mut loaded: Vec<_> = loaded.into_iter().collect();
    loaded.sort_by_key(|(_, told)| std::cmp::Reverse(told.busy.saturating_add(told.waiting)));
    for (place, (name, told)) in loaded.into_iter().enumerate() {
        if place < MOST_NAMED && name != OTHER {
            all.insert(name, told);
        } else {
            all.entry(OTHER).or_default().join(&told);
        }
    }
    all
}

impl Told {
    fn add(&mut self, gauges: &ModelGauges) {
        let ModelGauges { slots, most_slots, in_flight, waiting, .. } = gauges;
        self.busy = self.busy.saturating_add(*in_flight);
        self.waiting = self.waiting.saturating_add(*waiting);
        (self.limit, self.most) = (*slots, *most_slots);
    }

    fn join(&mut self, other: &Self) {
        self.busy = self.busy.saturating_add(other.busy);
        self.waiting = self.waiting.saturating_add(other.waiting);
    }
}

#[cfg(test)]
mod tests {
    use corral_limiter::ModelName;
    use corral_limiter::queue::Band;

    use super::*;
    use crate::metrics::{Metrics, Standing};

    fn gauges(name: &str, in_flight: u32, is_loaded: bool) -> ModelGauges {
        let model = ModelName::parse(name).unwrap();
        ModelGauges { model, slots: 3, most_slots: 4, in_flight, waiting: 5, is_loaded }
    }

    fn rendered(standing: &Standing) -> String {
        Metrics::new().render(standing)
    }

    fn holds(text: &str, line: &str) -> bool {
        text.lines().any(|found| found == line)
    }

    #[test]
    fn a_band_tells_who_waits_and_what_it_has_cost() {
        let band = |band, waiting| BandGauges {
            band,
            waiting,
            cost: 1_500_000_000,
            in_flight: 1,
            outstanding: 7,
            served: 2_500_000_000,
            fair_share: 0,
            stands: false,
        };
        let bands = vec![band(Band::Interactive, 3), band(Band::Batch, 0)];
        let text = rendered(&Standing { bands, ..Standing::default() });
        for line in [
            "corral_queue_requests{band=\"interactive\"} 3",
            "corral_queue_requests{band=\"batch\"} 0",
            "corral_queue_cost_seconds{band=\"batch\"} 1.5",
            "corral_queue_served_cost_seconds_total{band=\"interactive\"} 2.5",
        ] {
            assert!(holds(&text, line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_loaded_model_tells_what_its_slots_do_whatever_it_is_loaded_with() {
        let models = vec![gauges("m", 1, true), gauges("m", 1, false), gauges("only-asked-for", 1, false)];
        let text = rendered(&Standing { models, ..Standing::default() });
        for line in [
            "corral_model_slots{model=\"m:latest\",state=\"busy\"} 2",
            "corral_model_slots{model=\"m:latest\",state=\"free\"} 1",
            "corral_model_slots{model=\"m:latest\",state=\"withheld\"} 1",
            "corral_model_slot_limit{model=\"m:latest\"} 3",
            "corral_model_queue_depth{model=\"m:latest\"} 10",
            "corral_model_slots{model=\"other\",state=\"busy\"} 1",
            "corral_model_queue_depth{model=\"other\"} 5",
        ] {
            assert!(holds(&text, line), "{line}\n{text}");
        }
        assert!(!text.contains("only-asked-for"), "{text}");
    }

    #[test]
    fn no_number_of_models_makes_more_than_so_many_series() {
        let models: Vec<_> =
            (0..100).map(|n| gauges(&format!("m{n:02}"), u32::from(n >= 90), n % 2 == 0)).collect();
        let told = told(&models);
        assert_eq!(told.len(), MOST_NAMED + 1);
        assert!(told.contains_key("m90:latest"), "the busy ones have names");
        assert_eq!(told.values().map(|told| told.busy).sum::<u32>(), 10, "and all are counted");
        assert_eq!(told.values().map(|told| told.waiting).sum::<u32>(), 500);
    }
}
