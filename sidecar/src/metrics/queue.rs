//! Waits for a slot, by band and by how they ended.

use std::time::Duration;

use corral_limiter::queue::Band;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::long_times;
use super::words::{WaitEnd, Word, band_word};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWait {
    band: Word,
    outcome: Word,
}

/// Everything that is counted of waits.
#[derive(Debug, Clone)]
pub struct QueueMetrics {
    waits: Family<OfWait, Histogram, fn() -> Histogram>,
}

impl Default for QueueMetrics {
    fn default() -> Self {
        Self { waits: Family::new_with_constructor(long_times) }
    }
}

impl QueueMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "queue_wait_seconds",
            "Time from arrival to the end of the wait for a slot, of requests that the queue let in",
            self.waits.clone(),
        );
    }

    /// The wait of a request is over, after so long; at once for one that found a slot free.
    pub fn waited(&self, band: Band, end: WaitEnd, waited: Duration) {
        let of = OfWait { band: band_word(band), outcome: end.word() };
        self.waits.get_or_create(&of).observe(waited.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use corral_limiter::queue::ShedReason;

    use super::*;
    use crate::metrics::{Metrics, Standing};

    #[test]
    fn every_wait_is_counted_by_its_band_and_its_end() {
        let metrics = Metrics::new();
        let ends = [
            (Band::Interactive, WaitEnd::Started, "interactive", "started"),
            (Band::Standard, WaitEnd::Cancelled, "standard", "cancelled"),
            (Band::Batch, WaitEnd::Shed(ShedReason::PushedOut), "batch", "pushed_out"),
            (Band::Spare, WaitEnd::Limited, "spare", "limited"),
        ];
        for (band, end, ..) in ends {
            metrics.queue.waited(band, end, Duration::from_secs(2));
        }
        let text = metrics.render(&Standing::default());
        for (_, _, band, outcome) in ends {
            let of = format!("band=\"{band}\",outcome=\"{outcome}\"");
            let line = format!("corral_queue_wait_seconds_sum{{{of}}} 2.0\n");
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
