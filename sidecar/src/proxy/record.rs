//! What is logged and counted of one request: one line, once, when it is over, however it ends.
//!
//! Never a body, a header, a key or a query.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use corral_limiter::{KnownClient, ModelName, Nanos};
use http::Method;

use super::ending;
use super::route::Endpoint;
use super::tokens::Spent;
use crate::core::Core;
use crate::metrics::Outcome;

/// What becomes known of a request. Dropped: it is over.
pub(crate) struct Record {
    core: Arc<Core>,
    pub(crate) begun: Nanos,
    method: Method,
    pub(crate) id: String,
    pub(crate) client_ip: IpAddr,
    /// Whose API key it has, if the plan knows it.
    pub(crate) client: Option<Arc<KnownClient>>,
    /// None for a request that does not exist.
    pub(crate) endpoint: Option<&'static Endpoint>,
    pub(crate) model: Option<ModelName>,
    /// Whether a stream was asked for.
    pub(crate) stream: bool,
    /// It waits for its slot, or for a limit.
    pub(crate) queues: bool,
    /// How long it has; none where it came to no queue.
    pub(crate) waited: Option<Nanos>,
    /// None until it is answered.
    pub(crate) status: Option<u16>,
    /// How Ollama's answer ended, if before its end.
    pub(crate) fate: Option<Arc<OnceLock<ending::End>>>,
    /// What a refusal came to; none if it was not refused.
    pub(crate) refused: Option<Outcome>,
    /// The tokens that it was charged.
    pub(crate) spent: Arc<Spent>,
    sent: u64,
    end: End,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client left.
    Gone,
    /// It was cut by Ollama, or because Ollama had stopped.
    Cut,
    /// It was cut by this sidecar's shutdown.
    Drained,
    /// In order.
    Complete,
}

/// What nginx calls a request whose client left before it was answered.
const CLIENT_GONE: u16 = 499;

impl Record {
    pub(crate) fn begin(core: &Arc<Core>, id: String, client_ip: IpAddr, method: Method) -> Self {
        Self {
            core: Arc::clone(core),
            begun: core.clock().now(),
            method,
            id,
            client_ip,
            client: None,
            endpoint: None,
            model: None,
            stream: false,
            queues: false,
            waited: None,
            status: None,
            fate: None,
            refused: None,
            spent: Arc::default(),
            sent: 0,
            end: End::Gone,
        }
    }

    /// Bytes of the answer's body went out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The answer is complete.
    pub(crate) fn complete(&mut self) {
        if self.end == End::Gone {
            self.end = End::Complete;
        }
    }

    /// The answer was cut by Ollama.
    pub(crate) fn cut(&mut self) {
        self.end = End::Cut;
    }

    /// The shutdown came before the answer.
    pub(crate) fn drained(&mut self) {
        self.end = End::Drained;
    }

    /// As the log names who asked: a known client by its name, anybody else by the address.
    fn who(&self) -> &dyn std::fmt::Display {
        match &self.client {
            Some(client) => &client.name,
            None => &self.client_ip,
        }
    }

    fn outcome(&self, end: End, status: u16) -> Outcome {
        match end {
            End::Gone if self.queues => Outcome::Cancelled,
            End::Gone => Outcome::ClientGone,
            End::Cut => Outcome::Failed,
            End::Drained => Outcome::Drained,
            End::Complete => self.refused.unwrap_or_else(|| Outcome::of_status(status)),
        }
    }

    /// How it ended, all things known: an error event is the orderly end of an answer that was cut.
    fn end(&self) -> End {
        let fate = self.fate.as_ref().and_then(|fate| fate.get());
        match (self.end, fate) {
            (_, Some(ending::End::Drained)) => End::Drained,
            (End::Complete, Some(_)) => End::Cut,
            // Not its client's doing: the connection went down with this sidecar.
            (End::Gone, _) if self.core.health.is_cut() => End::Drained,
            (end, _) => end,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = Duration::from(self.core.clock().now().since(self.begun));
        let status = self.status.unwrap_or(CLIENT_GONE);
        let metrics = &self.core.metrics;
        let end = self.end();
        if end == End::Gone {
            metrics.client_gone();
        }
        let (tokens_in, tokens_out) = self.spent.get();
        metrics.ended(self.endpoint.map(|endpoint| endpoint.class), self.outcome(end, status), took);
        tracing::info!(
            id = %self.id,
            client = %self.who(),
            method = %self.method,
            path = self.endpoint.map_or("-", |endpoint| endpoint.path),
            model = self.model.as_ref().map_or("-", ModelName::as_str),
            stream = self.stream,
            status,
            bytes = self.sent,
            tokens_in,
            tokens_out,
            waited_ms = self.waited.unwrap_or_default().0 / 1_000_000,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            ?end,
            "request"
        );
    }
}
