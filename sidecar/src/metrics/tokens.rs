//! Tokens: what was reserved for requests, what they cost, and how well it was estimated.

use corral_limiter::Usage;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPhase {
    kind: &'static str,
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

/// Everything that is counted of tokens.
#[derive(Debug, Clone)]
pub struct TokenMetrics {
    tokens: Family<OfPhase, Counter>,
    ratios: Family<OfKind, Histogram, fn() -> Histogram>,
    uncounted: Counter,
}

impl Default for TokenMetrics {
    fn default() -> Self {
        Self {
            tokens: Family::default(),
            ratios: Family::new_with_constructor(ratios),
            uncounted: Counter::default(),
        }
    }
}

impl TokenMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("tokens", "Tokens, by what became of them", self.tokens.clone());
        registry.register(
            "token_estimate_error_ratio",
            "Tokens as estimated before admission, to those that Ollama counted",
            self.ratios.clone(),
        );
        registry.register(
            "token_counts_missing",
            "Complete answers in which Ollama told no counts",
            self.uncounted.clone(),
        );
    }

    /// A request was admitted, and this was reserved for it.
    pub fn reserved(&self, estimate: Usage) {
        self.add("input", "reserved", estimate.input);
        self.add("output", "reserved", estimate.output);
    }

    /// It is over, and this is what it cost.
    pub fn settled(&self, reserved: Usage, cost: Usage) {
        for (kind, reserved, cost) in
            [("input", reserved.input, cost.input), ("output", reserved.output, cost.output)]
        {
            self.add(kind, "settled", cost);
            self.add(kind, "refunded", reserved.saturating_sub(cost));
            self.add(kind, "debt", cost.saturating_sub(reserved));
        }
    }

    /// Ollama counted so many tokens of a prompt, and of its answer, where another number was expected.
    pub fn estimated(&self, estimate: Usage, input: u64, output: u64) {
        for (kind, estimate, real) in [("input", estimate.input, input), ("output", estimate.output, output)]
        {
            if real > 0 {
                let of = |tokens: u64| f64::from(u32::try_from(tokens).unwrap_or(u32::MAX));
                self.ratios.get_or_create(&OfKind { kind }).observe(of(estimate) / of(real));
            }
        }
    }

    /// An answer was complete, and Ollama told no counts.
    pub fn uncounted(&self) {
        self.uncounted.inc();
    }

    fn add(&self, kind: &'static str, phase: &'static str, tokens: u64) {
        if tokens > 0 {
            self.tokens.get_or_create(&OfPhase { kind, phase }).inc_by(tokens);
        }
    }
}

/// From a tenth of what it was to ten times it.
fn ratios() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, Standing};

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input, output, ..Usage::default() }
    }

    #[test]
    fn every_reserved_token_is_settled_or_refunded() {
        let metrics = Metrics::new();
        for (reserved, cost) in [(usage(10, 100), usage(12, 40)), (usage(5, 5), usage(0, 0))] {
            metrics.tokens.reserved(reserved);
            metrics.tokens.settled(reserved, cost);
        }
        let text = metrics.render(&Standing::default());
        for (kind, phase, count) in [
            ("input", "reserved", 15),
            ("input", "settled", 12),
            ("input", "refunded", 5),
            ("input", "debt", 2),
            ("output", "reserved", 105),
            ("output", "settled", 40),
            ("output", "refunded", 65),
        ] {
            let line = format!("corral_tokens_total{{kind=\"{kind}\",phase=\"{phase}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
    }

    #[test]
    fn estimates_are_compared_with_what_ollama_counted() {
        let metrics = Metrics::new();
        metrics.tokens.estimated(usage(50, 256), 100, 0);
        metrics.tokens.uncounted();
        let text = metrics.render(&Standing::default());
        assert!(text.contains("corral_token_estimate_error_ratio_sum{kind=\"input\"} 0.5\n"), "{text}");
        assert!(!text.contains("corral_token_estimate_error_ratio_sum{kind=\"output\"}"), "{text}");
        assert!(text.contains("corral_token_counts_missing_total 1\n"), "{text}");
    }
}
