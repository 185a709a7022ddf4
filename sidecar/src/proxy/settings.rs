//! The bounds and times of the data path, in one place.

use std::net::SocketAddr;
use std::time::Duration;

pub use super::judge::Bounds as StallBounds;

/// How often Ollama is asked what it has loaded. A model stays for minutes, and a look costs a millisecond.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Every bound and time of the data path.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Where Ollama listens. Default 127.0.0.1:11435.
    pub upstream: SocketAddr,
    /// The most bytes of one request body. Default 32 MiB, less where memory is scarce; a longer one gets 413.
    pub max_body_bytes: usize,
    /// The most bytes of all request bodies held at one time. Default a quarter of the memory limit, at most 256 MiB; at
    /// the bound new ones get 429.
    pub body_budget_bytes: usize,
    /// The most client connections at one time. Default 10,000, less where memory is scarce; at the bound a new one is
    /// closed at once.
    pub max_connections: usize,
    /// The most of them from one address (of IPv6: one /64) that is no trusted proxy. Default all of them in a pod, a
    /// quarter in an activator; at the bound a new one is closed at once.
    pub max_connections_each: usize,
    /// How long a request head may take, from its first byte. Default 10 s.
    pub head_timeout: Duration,
    /// How long a connection may stay idle. Default 75 s: no common scrape or probe interval.
    pub idle_timeout: Duration,
    /// How long a request body may take. Default 120 s.
    pub body_timeout: Duration,
    /// How long the client may send nothing of its body, or read nothing of its answer. Default 30 s.
    pub stall_timeout: Duration,
    /// When a connection is asked to close with its next answer, ± 20 %. Default 60 s.
    pub max_connection_age: Duration,
    /// How long a connection to Ollama may take to open. Default 1 s.
    pub connect_timeout: Duration,
    /// How long an exchange whose client has left is held, before its first byte, when the model is loaded; while that
    /// is in doubt, how often it is looked into. A request must have reached Ollama's scheduler by then. Default 1 s.
    pub hold_loaded: Duration,
    /// The same while the model may still be loading. Default 10 min.
    pub hold_loading: Duration,
    /// When a runner from which nothing comes has stopped.
    pub stall: StallBounds,
    /// From one look at what Ollama has loaded to the next, while something is; 10 s.
    pub look_interval: Duration,
    /// Whether models belong on a GPU, so that one which is not wholly there is told of. Default no.
    pub expect_gpu: bool,
    /// How long requests in flight may take to end at shutdown. Default 30 s.
    pub shutdown_grace: Duration,
}

impl ProxySettings {
    /// The defaults, in front of the Ollama at `upstream`.
    pub fn new(upstream: SocketAddr) -> Self {
        Self {
            upstream,
            max_body_bytes: 32 << 20,
            body_budget_bytes: 256 << 20,
            max_connections: 10_000,
            max_connections_each: usize::MAX,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_mins(2),
            stall_timeout: Duration::from_secs(30),
            max_connection_age: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(1),
            hold_loaded: Duration::from_secs(1),
            hold_loading: Duration::from_mins(10),
            stall: StallBounds::default(),
            look_interval: LOOK_INTERVAL,
            expect_gpu: false,
            shutdown_grace: Duration::from_secs(30),
        }
    }
}
