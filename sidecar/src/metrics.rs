//! Every metric of the sidecar, with its unit and its labels.
//!
//! What happens is counted as it happens ([`Metrics`]); how things stand is read at each scrape (`standing`). Labels
//! come from fixed sets, from the names of the policies and limits in force, and from those of a few loaded models: never
//! from a client or a key, nor from a model that only a client speaks of, so the number of series is bounded by the plan.
//!
//! | metric | unit | labels |
//! | --- | --- | --- |
//! | `corral_requests_total` | requests, each with exactly one outcome | `endpoint`: chat, generate, embed, metadata, none (no such endpoint, a head in doubt, or a preflight); `outcome`: see [`Outcome`] |
//! | `corral_request_duration_seconds` | from the end of the head to the end of the answer, or until the client left | `endpoint` |
//! | `corral_refusals_total` | requests refused by something other than a limit | `reason`: unavailable, unauthenticated, `bad_request`, `no_room` (for its body), or the bound of the queue: `client_queue_full`, `queue_full`, `wait_too_long`, `pushed_out`, `queue_timeout`, deadline |
//! | `corral_unauthenticated_total` | requests without a known API key, refused or not, where keys are known or needed | `key`: none, unknown |
//! | `corral_limit_decisions_total` | decisions of each limit in force | `policy`, `limit`; `decision`: admitted, refused, `would_refuse` (shadow), delayed, queued, deprioritized, exempt |
//! | `corral_limit_refusals_total` | requests refused in which a unit of a limit was exceeded | `policy`, `limit`, `unit` |
//! | `corral_limit_adaptive_ratio` | what is in force of a limit's numbers; 1 but for an adaptive limit | `policy`, `limit` |
//! | `corral_limit_wait_seconds` | from arrival to dispatch, of requests that a limit delayed, or asks again in the queue | |
//! | `corral_limit_overflow_total` | admissions counted in a bucket that several clients share | `policy`, `limit` |
//! | `corral_limit_keys` | buckets kept | `policy`, `limit` |
//! | `corral_queue_wait_seconds` | from arrival to the end of the wait, of requests that the queue let in | `band`: interactive, standard, batch, spare; `outcome`: started, limited, cancelled (its client left), or the bound of the queue as in `corral_refusals_total` |
//! | `corral_queue_depth` | requests waiting; in an activator, held | |
//! | `corral_queue_requests` | the same | `band` |
//! | `corral_queue_cost_seconds` | for how long those will hold their slots, as estimated; with `costModel: Tokens` 10 ms a token, of an answer 20 ms | `band` |
//! | `corral_queue_served_cost_seconds_total` | what requests have cost, in the same | `band` |
//! | `corral_queue_oldest_wait_seconds` | age of the oldest waiting request | |
//! | `corral_queue_predicted_wait_seconds` | how long one more request would wait, as estimated | |
//! | `corral_load_index` | smoothed load; at 1 the next request waits as long as any may, or is refused | |
//! | `corral_in_flight` | requests inside Ollama; of an activator, inside pods | |
//! | `corral_slots` | slots per loaded model | |
//! | `corral_model_slots` | slots of a model | `model`: at most 16 that are loaded, and `other` for all others together; `state`: busy, free, withheld (less is sent to Ollama than it has slots, see `corral_model_slot_limit`) |
//! | `corral_model_slot_limit` | slots of a model in force: as many as it has, but for a while after signs that this is too much | `model` |
//! | `corral_model_queue_depth` | requests waiting for a model | `model` |
//! | `corral_slot_seconds_total` | time slots were held | |
//! | `corral_upstream_first_byte_seconds` | from dispatch to Ollama's first byte | |
//! | `corral_upstream_failures_total` | failed exchanges with Ollama | `kind`: connect, `no_answer`, cut (ended before its end), busy (Ollama had no room for it), stalled (ended here: its runner, or Ollama, had stopped) |
//! | `corral_upstream_retries_total` | requests sent to Ollama once more | `kind`: connect (no connection), stale (a kept connection had ended before the request was written), busy (Ollama had no room for it) |
//! | `corral_breaker_state` | 1 for the state that holds, 0 for all others | `state`: closed, open (Ollama is sent nothing), `half_open` (one request, to see how it fares) |
//! | `corral_engine_stalls_total` | runners found to have stopped | `found`: unanswering, silent (streams said nothing for far too long) |
//! | `corral_models_off_gpu` | models loaded and not wholly on the GPU, where they belong there | |
//! | `corral_clients_gone_total` | clients that left before the end of their answer | |
//! | `corral_tokens_total` | tokens, as limits count them | `kind`: input, output; `phase`: reserved (at admission), settled (real, at the end), refunded (reserved and not needed), debt (real beyond what was reserved) |
//! | `corral_token_estimate_error_ratio` | estimate to Ollama's count, of answers that it counted | `kind` |
//! | `corral_token_counts_missing_total` | complete answers without Ollama's counts: charged as estimated | |
//! | `corral_connections` | open connections of clients | |
//! | `corral_plan_sequence` | the plan in force; 0: none | |
//! | `corral_plan_divisor` | D in force | |
//! | `corral_plan_errors_total` | plans not taken | `source`: secret, exchange, file, disk |
//! | `corral_state_write_errors_total` | failed writes of what must outlive a restart | |
//! | `corral_directives_total` | directives received | `result`: obeyed, behind, refused |
//! | `corral_readiness` | 1 for the reason that holds, 0 for all others | `reason`: Ready, Starting, `NoPlan`, … |
//! | `corral_readiness_transitions_total` | changes of readiness | `reason`: what they led to |
//! | `corral_build_info` | 1 | `version` |

mod models;
mod queue;
mod standing;
mod tokens;
mod words;

use std::fmt;
use std::time::Duration;

use corral_wire::EndpointClass;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use queue::QueueMetrics;
pub use standing::Standing;
pub use tokens::TokenMetrics;
pub use words::{DirectiveResult, Outcome, PlanSource, RefusedBy, Retried, Stall, UpstreamFailure, WaitEnd};
pub(crate) use words::{NO_ROOM, shed_word};

use words::Word;

use crate::proxy::NoClient;

macro_rules! labels {
    ($name:ident { $($field:ident),+ }) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($field: Word),+ }
    };
}

labels!(ByEndpoint { endpoint });
labels!(ByOutcome { endpoint, outcome });
labels!(ByReason { reason });
labels!(ByKey { key });
labels!(ByKind { kind });
labels!(BySource { source });
labels!(ByResult { result });
labels!(ByFound { found });

type NewHistogram = fn() -> Histogram;

/// Everything that is counted as it happens. Cheap: a hash of fixed words and one atomic or short lock each.
pub struct Metrics {
    registry: Registry,
    requests: Family<ByOutcome, Counter>,
    durations: Family<ByEndpoint, Histogram, NewHistogram>,
    refusals: Family<ByReason, Counter>,
    unauthenticated: Family<ByKey, Counter>,
    limit_wait: Histogram,
    first_byte: Histogram,
    upstream_failures: Family<ByKind, Counter>,
    upstream_retries: Family<ByKind, Counter>,
    clients_gone: Counter,
    connections: Gauge,
    plan_errors: Family<BySource, Counter>,
    state_write_errors: Counter,
    engine_stalls: Family<ByFound, Counter>,
    directives: Family<ByResult, Counter>,
    /// Tokens reserved, settled, given back and owed.
    pub tokens: TokenMetrics,
    /// Waits for a slot.
    pub queue: QueueMetrics,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut this = Self {
            registry: Registry::with_prefix("corral"),
            requests: Family::default(),
            durations: Family::new_with_constructor(long_times),
            refusals: Family::default(),
            unauthenticated: Family::default(),
            limit_wait: long_times(),
            first_byte: long_times(),
            upstream_failures: Family::default(),
            upstream_retries: Family::default(),
            clients_gone: Counter::default(),
            connections: Gauge::default(),
            plan_errors: Family::default(),
            state_write_errors: Counter::default(),
            engine_stalls: Family::default(),
            directives: Family::default(),
            tokens: TokenMetrics::default(),
            queue: QueueMetrics::default(),
        };
        this.register_traffic();
        this.register_control();
        this.tokens.register(&mut this.registry);
        this.queue.register(&mut this.registry);
        this
    }

    fn register_traffic(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Requests, by endpoint class and what came of them",
            self.requests.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Time from the end of a request's head to the end of its answer",
            self.durations.clone(),
        );
        registry.register(
            "refusals",
            "Requests refused by something other than a limit",
            self.refusals.clone(),
        );
        registry.register(
            "unauthenticated",
            "Requests without a known API key, refused or not, where keys are known or needed",
            self.unauthenticated.clone(),
        );
        registry.register(
            "limit_wait_seconds",
            "Time from arrival to dispatch of requests that a limit delayed, or asks again in the queue",
            self.limit_wait.clone(),
        );
        registry.register(
            "upstream_first_byte_seconds",
            "Time from dispatch to the first byte of Ollama's answer",
            self.first_byte.clone(),
        );
        registry.register(
            "upstream_failures",
            "Exchanges with Ollama that failed",
            self.upstream_failures.clone(),
        );
        registry.register(
            "upstream_retries",
            "Requests sent to Ollama once more, which cannot have begun to work on them",
            self.upstream_retries.clone(),
        );
        registry.register(
            "clients_gone",
            "Clients that left before the end of their answer",
            self.clients_gone.clone(),
        );
        registry.register("connections", "Open connections of clients", self.connections.clone());
    }

    fn register_control(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "plan_errors",
            "Plans that were not taken; the last good one stays",
            self.plan_errors.clone(),
        );
        registry.register(
            "state_write_errors",
            "Failed writes of the state that must outlive a restart",
            self.state_write_errors.clone(),
        );
        registry.register(
            "engine_stalls",
            "Runners of Ollama that were found to have stopped",
            self.engine_stalls.clone(),
        );
        registry.register("directives", "Directives of the operator received", self.directives.clone());
    }

    /// A client's connection was taken.
    pub fn connection_opened(&self) {
        self.connections.inc();
    }

    /// A client's connection has ended.
    pub fn connection_closed(&self) {
        self.connections.dec();
    }

    /// A request is over, `took` after its head was read; `class` is none where there is no such endpoint.
    pub fn ended(&self, class: Option<EndpointClass>, outcome: Outcome, took: Duration) {
        let endpoint = class.map_or("none", endpoint);
        self.requests.get_or_create(&ByOutcome { endpoint, outcome: outcome.word() }).inc();
        self.durations.get_or_create(&ByEndpoint { endpoint }).observe(took.as_secs_f64());
    }

    /// Something else than a limit refused a request.
    pub fn refused(&self, by: RefusedBy) {
        let reason = match by {
            RefusedBy::Shed(reason) => shed_word(reason),
            RefusedBy::NoRoom => NO_ROOM,
            RefusedBy::Unavailable => "unavailable",
            RefusedBy::Unauthenticated => "unauthenticated",
            RefusedBy::BadRequest => "bad_request",
        };
        self.refusals.get_or_create(&ByReason { reason }).inc();
    }

    /// A request came without a known API key, where keys are known or needed.
    pub(crate) fn unauthenticated(&self, why: NoClient) {
        let key = match why {
            NoClient::Keyless => "none",
            NoClient::UnknownKey => "unknown",
        };
        self.unauthenticated.get_or_create(&ByKey { key }).inc();
    }

    /// A request that a limit delayed, or asked again in the queue, was dispatched after waiting this long.
    pub fn limit_wait(&self, waited: Duration) {
        self.limit_wait.observe(waited.as_secs_f64());
    }

    /// Ollama's first byte came this long after the dispatch.
    pub fn upstream_first_byte(&self, took: Duration) {
        self.first_byte.observe(took.as_secs_f64());
    }

    /// An exchange with Ollama failed.
    pub fn upstream_failed(&self, how: UpstreamFailure) {
        let kind = match how {
            UpstreamFailure::Connect => "connect",
            UpstreamFailure::NoAnswer => "no_answer",
            UpstreamFailure::Cut => "cut",
            UpstreamFailure::Busy => "busy",
            UpstreamFailure::Stalled => "stalled",
        };
        self.upstream_failures.get_or_create(&ByKind { kind }).inc();
    }

    /// A request is sent to Ollama once more.
    pub fn upstream_retried(&self, why: Retried) {
        let kind = match why {
            Retried::Connect => "connect",
            Retried::Stale => "stale",
            Retried::Busy => "busy",
        };
        self.upstream_retries.get_or_create(&ByKind { kind }).inc();
    }

    /// A runner was found to have stopped.
    pub fn engine_stalled(&self, how: Stall) {
        let found = match how {
            Stall::Unanswering => "unanswering",
            Stall::Silent => "silent",
        };
        self.engine_stalls.get_or_create(&ByFound { found }).inc();
    }

    /// A client left before its answer was complete.
    pub fn client_gone(&self) {
        self.clients_gone.inc();
    }

    /// A plan was not taken.
    pub fn plan_refused(&self, source: PlanSource) {
        let source = match source {
            PlanSource::Secret => "secret",
            PlanSource::Exchange => "exchange",
            PlanSource::File => "file",
            PlanSource::Disk => "disk",
        };
        self.plan_errors.get_or_create(&BySource { source }).inc();
    }

    /// What must outlive a restart could not be written.
    pub fn state_not_written(&self) {
        self.state_write_errors.inc();
    }

    /// A directive came.
    pub fn directive(&self, result: DirectiveResult) {
        let result = match result {
            DirectiveResult::Obeyed => "obeyed",
            DirectiveResult::Behind => "behind",
            DirectiveResult::Refused => "refused",
        };
        self.directives.get_or_create(&ByResult { result }).inc();
    }

    /// All metrics as `OpenMetrics` text.
    pub fn render(&self, standing: &Standing) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a string does not fail.
        let _ = text::encode_registry(&mut text, &self.registry);
        let _ = text::encode_registry(&mut text, &standing.registry());
        let _ = text::encode_eof(&mut text);
        text
    }
}

/// Buckets from 5 ms to 5 min: an answer streams for as long as a model talks.
fn long_times() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0])
}

fn endpoint(class: EndpointClass) -> Word {
    match class {
        EndpointClass::Chat => "chat",
        EndpointClass::Generate => "generate",
        EndpointClass::Embed => "embed",
        EndpointClass::Metadata => "metadata",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(metrics: &Metrics) -> String {
        metrics.render(&Standing::default())
    }

    #[test]
    fn every_answer_is_counted_once_by_class_and_outcome() {
        let metrics = Metrics::new();
        for status in [200, 200, 429, 404, 503, 502] {
            let outcome = Outcome::of_status(status);
            metrics.ended(Some(EndpointClass::Chat), outcome, Duration::from_millis(30));
        }
        let text = rendered(&metrics);
        for (outcome, count) in
            [("served", 2), ("limited", 1), ("invalid", 1), ("unavailable", 1), ("failed", 1)]
        {
            let line = format!("corral_requests_total{{endpoint=\"chat\",outcome=\"{outcome}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains("corral_request_duration_seconds_count{endpoint=\"chat\"} 6\n"), "{text}");
    }

    #[test]
    fn connections_go_up_and_down() {
        let metrics = Metrics::new();
        metrics.connection_opened();
        metrics.connection_opened();
        metrics.connection_closed();
        assert!(rendered(&metrics).contains("corral_connections 1\n"));
    }

    #[test]
    fn what_happens_to_plans_is_counted() {
        let metrics = Metrics::new();
        metrics.plan_refused(PlanSource::File);
        metrics.directive(DirectiveResult::Behind);
        metrics.state_not_written();
        let text = rendered(&metrics);
        for line in [
            "corral_plan_errors_total{source=\"file\"} 1\n",
            "corral_directives_total{result=\"behind\"} 1\n",
            "corral_state_write_errors_total 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn the_text_ends_as_openmetrics_demands() {
        assert!(rendered(&Metrics::new()).ends_with("# EOF\n"));
    }
}
