//! The flags of `corral-sidecar activator`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use corral_wire::activation::{PASSING_BYTES, most_connections};
use corral_wire::{PoolRef, ports};

use super::flags::{Flags, everybody};
use super::memory::{BodyBounds, Known};
use super::mounts::Mounts;
use super::value::{duration, listen, pool};
use super::{ActivatorSettings, Command, DrainSettings, HoldSettings, LogFormat, LogSettings};
use crate::proxy::ProxySettings;

/// The longest body that is held: it is kept until a pod has answered.
const MAX_HELD_BODY: u64 = 1 << 20;

/// One address has at most one in so many of the connections, as one client of what is held, unless it is a trusted proxy.
const CLIENT_SHARE: usize = 4;

/// All set by the operator.
#[derive(Debug, Args)]
pub(super) struct ActivatorFlags {
    /// The pool whose requests are held.
    #[arg(long, env = "CORRAL_POOL", value_name = "NAMESPACE/NAME", value_parser = pool)]
    pool: PoolRef,
    /// UID of this pod.
    #[arg(long, env = "CORRAL_POD_UID", value_name = "UID")]
    pod_uid: String,
    /// Name of this pod, for the log.
    #[arg(long, env = "CORRAL_POD_NAME", value_name = "NAME", default_value = "")]
    pod_name: String,
    #[command(flatten)]
    mounts: Mounts,
    /// Where clients connect [default: [::]:11434].
    #[arg(long, env = "CORRAL_LISTEN", value_name = "ADDRESS:PORT", value_parser = listen)]
    listen: Option<SocketAddr>,
    /// Where probes, metrics and the operator are answered [default: [::]:11436].
    #[arg(long, env = "CORRAL_ADMIN_LISTEN", value_name = "ADDRESS:PORT", value_parser = listen)]
    admin_listen: Option<SocketAddr>,
    /// The most requests held at one time; one client has a quarter of them.
    #[arg(long, env = "CORRAL_MAX_HELD_REQUESTS", value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_held_requests: u32,
    /// The most bytes of their bodies; one client has a quarter of them.
    #[arg(long, env = "CORRAL_MAX_HELD_BYTES", value_name = "BYTES", default_value = "67108864", value_parser = clap::value_parser!(u64).range(1024..=1 << 40))]
    max_held_bytes: u64,
    /// The longest that a request is held.
    #[arg(long, env = "CORRAL_MAX_HOLD", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    max_hold: Duration,
    /// The memory limit of this container: what is held and passes has its room first, and connections the rest.
    #[arg(long, env = "CORRAL_MEMORY_LIMIT_BYTES", value_name = "BYTES")]
    memory_limit_bytes: Option<u64>,
    /// For new requests after a drain began.
    #[arg(long, env = "CORRAL_DRAIN_DELAY", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    drain_delay: Duration,
    /// For what is held, and for answers, after a drain began.
    #[arg(long, env = "CORRAL_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    drain_timeout: Duration,
    /// How the log is written, to standard error.
    #[arg(long, env = "CORRAL_LOG_FORMAT", value_enum, default_value = "json")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, env = "CORRAL_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

impl ActivatorFlags {
    /// What the flags are when nobody sets one.
    pub(super) fn defaults(pool: &PoolRef, pod_uid: &str) -> Self {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            flags: ActivatorFlags,
        }
        let pool = format!("{}/{}", pool.namespace, pool.name);
        let args = ["activator", "--pool", &pool, "--pod-uid", pod_uid];
        #[expect(clippy::expect_used, reason = "constants, checked by every test that starts an activator")]
        <Alone as clap::Parser>::try_parse_from(args).expect("the defaults are valid").flags
    }

    pub(super) fn command(self) -> Command {
        let log = LogSettings { format: self.log_format, filter: self.log.clone() };
        Command::Activate(Box::new(self.settings()), log)
    }

    pub(super) fn settings(self) -> ActivatorSettings {
        let proxy = self.proxy();
        ActivatorSettings {
            listen: self.listen.unwrap_or_else(|| everybody(ports::CLIENT)),
            admin_listen: self.admin_listen.unwrap_or_else(|| everybody(ports::ADMIN)),
            pool: self.pool,
            pod_uid: self.pod_uid,
            pod_name: self.pod_name,
            plan_file: self.mounts.plan_file,
            keys_dir: self.mounts.keys_dir,
            hold: HoldSettings {
                max_requests: self.max_held_requests,
                max_bytes: self.max_held_bytes,
                max_body_bytes: MAX_HELD_BODY,
                max_hold: self.max_hold,
            },
            proxy,
            drain: DrainSettings {
                delay: self.drain_delay,
                timeout: self.drain_timeout,
                begin_wait: Duration::ZERO,
            },
        }
    }

    /// As in a pod, but for what passes: bodies that are held have room of their own.
    fn proxy(&self) -> ProxySettings {
        let limit = self.memory_limit_bytes.filter(|limit| *limit > 0);
        let BodyBounds { body, budget } = Known { limit, budget: None, body: None }.bounds();
        let mut proxy = Flags::defaults().shared(([127, 0, 0, 1], ports::OLLAMA).into()).proxy;
        proxy.body_budget_bytes = budget.min(usize::try_from(PASSING_BYTES).unwrap_or(usize::MAX));
        proxy.max_body_bytes = body;
        let connections = most_connections(self.max_held_requests, self.max_held_bytes, limit);
        proxy.max_connections = usize::try_from(connections).unwrap_or(usize::MAX);
        proxy.max_connections_each = (proxy.max_connections / CLIENT_SHARE).max(1);
        proxy
    }
}
