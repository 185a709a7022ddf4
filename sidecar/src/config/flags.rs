//! The flags as clap reads them, and how they become [`Settings`].

use std::io::IsTerminal;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use corral_telemetry::log::LogFormat;
use corral_wire::exchange::RETIRE_LEASE;
use corral_wire::{PoolRef, ports};

use super::commands::Sub;
use super::memory::{BodyBounds, Known};
use super::mounts::Mounts;
use super::value::{duration, listen, pool, upstream};
use super::{
    Command, DrainSettings, HealthSettings, LogSettings, Mode, PodSettings, Policies, Settings, SlotSettings,
    Stop,
};
use crate::health::overload::OverloadSettings;
use crate::proxy::{LOOK_INTERVAL, ProxySettings, StallBounds};

/// For answers that have left Ollama to reach their clients, once all else has ended.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
pub(super) const STATE_DIR: &str = "/var/lib/corral";

/// Fair use in front of one Ollama: limits, a bounded queue, honest answers.
#[derive(Debug, Parser)]
#[command(name = "corral-sidecar", version, args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    command: Option<Sub>,
    #[command(flatten)]
    flags: Flags,
}

/// Without a heading: what a person sets, on a laptop too.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Policy file of a standalone sidecar: YAML documents, `RateLimitPolicy` and at most one `OllamaPool`. May be
    /// given several times.
    #[arg(long, env = "CORRAL_POLICY", value_name = "FILE", conflicts_with = "pool")]
    policy: Vec<PathBuf>,
    /// Where clients connect [default: [::]:11434 in a pod, 127.0.0.1:11434 standalone].
    #[arg(long, env = "CORRAL_LISTEN", value_name = "ADDRESS:PORT", value_parser = listen)]
    listen: Option<SocketAddr>,
    /// Where probes, metrics and the exchange are answered [default: port 11436].
    #[arg(long, env = "CORRAL_ADMIN_LISTEN", value_name = "ADDRESS:PORT", value_parser = listen)]
    admin_listen: Option<SocketAddr>,
    /// Ollama's address; a name is resolved once, at the start.
    #[arg(long, env = "CORRAL_UPSTREAM", value_name = "URL", default_value = "http://127.0.0.1:11435", value_parser = upstream)]
    upstream: SocketAddr,
    /// Slots per loaded model: what Ollama has as `OLLAMA_NUM_PARALLEL` [default: the pool in the policy file, or 1].
    #[arg(long, env = "CORRAL_NUM_PARALLEL", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    num_parallel: Option<u32>,
    /// Models loaded at one time: what Ollama has as `OLLAMA_MAX_LOADED_MODELS`.
    #[arg(long, env = "CORRAL_MAX_LOADED_MODELS", value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=256))]
    max_loaded_models: u32,
    /// The most clients that one limit tells apart; each takes about 120 bytes of memory.
    #[arg(long, env = "CORRAL_KEYS_PER_LIMIT", value_name = "N", default_value = "50000", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys_per_limit: u32,
    /// How the log is written, to standard error [default: text for a standalone sidecar on a terminal, else json].
    #[arg(long, env = "CORRAL_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, env = "CORRAL_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    #[command(flatten)]
    pod: PodFlags,
    #[command(flatten)]
    bounds: BoundFlags,
    #[command(flatten)]
    times: TimeFlags,
}

/// Set by the operator in a pool pod.
#[derive(Debug, Args)]
#[command(next_help_heading = "In a pool pod, set by the operator")]
struct PodFlags {
    /// The pool this pod belongs to.
    #[arg(long, env = "CORRAL_POOL", value_name = "NAMESPACE/NAME", value_parser = pool, requires = "pod_uid")]
    pool: Option<PoolRef>,
    /// UID of this pod.
    #[arg(long, env = "CORRAL_POD_UID", value_name = "UID")]
    pod_uid: Option<String>,
    /// Name of this pod, for the log.
    #[arg(long, env = "CORRAL_POD_NAME", value_name = "NAME", default_value = "")]
    pod_name: String,
    #[command(flatten)]
    mounts: Mounts,
    /// Where the accepted plan is kept over a restart.
    #[arg(long, env = "CORRAL_STATE_DIR", value_name = "FOLDER", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// How long a newcomer that nobody directs waits before it serves.
    #[arg(long, env = "CORRAL_SERVE_WITHOUT_DIRECTIVE", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    serve_without_directive: Duration,
    /// Whether this pod has GPUs, so that a model which is not wholly on them is told of.
    #[arg(long, env = "CORRAL_EXPECT_GPU")]
    expect_gpu: bool,
    /// The memory limit of this container: connections get half of it, bodies a quarter.
    #[arg(long, env = "CORRAL_MEMORY_LIMIT_BYTES", value_name = "BYTES")]
    memory_limit_bytes: Option<u64>,
}

/// Bounds on clients.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bounds on clients")]
struct BoundFlags {
    /// The most open connections of clients [default: what half of the memory limit holds, at most 10000].
    #[arg(long, env = "CORRAL_MAX_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: Option<u32>,
    /// The most bytes of a request's body [default: 32 MiB, or the room for all bodies if that is less].
    #[arg(long, env = "CORRAL_MAX_BODY_BYTES", value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..))]
    max_body_bytes: Option<u32>,
    /// The most bytes of all bodies held at one time [default: a quarter of the memory limit, at least one body, at most
    /// 256 MiB].
    #[arg(long, env = "CORRAL_BODY_BUDGET_BYTES", value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..))]
    body_budget_bytes: Option<u32>,
}

/// How long things may take.
#[derive(Debug, Args)]
#[command(next_help_heading = "How long things may take")]
struct TimeFlags {
    /// For a request's head to arrive, from its first byte.
    #[arg(long, env = "CORRAL_HEAD_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    head_timeout: Duration,
    /// For a connection to lie idle. No common scrape or probe interval.
    #[arg(long, env = "CORRAL_IDLE_TIMEOUT", value_name = "DURATION", default_value = "75s", value_parser = duration)]
    idle_timeout: Duration,
    /// For a request's body to arrive.
    #[arg(long, env = "CORRAL_BODY_TIMEOUT", value_name = "DURATION", default_value = "120s", value_parser = duration)]
    body_timeout: Duration,
    /// For a client to send the next piece of its body, or to take the next of its answer.
    #[arg(long, env = "CORRAL_STALL_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    stall_timeout: Duration,
    /// For an exchange whose client has left to be held before its first byte, with the model loaded.
    #[arg(long, env = "CORRAL_HOLD_LOADED", value_name = "DURATION", default_value = "1s", value_parser = duration)]
    hold_loaded: Duration,
    /// The same while the model may still be loading.
    #[arg(long, env = "CORRAL_HOLD_LOADING", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    hold_loading: Duration,
    /// About the age at which a connection is closed with its next answer.
    #[arg(long, env = "CORRAL_MAX_CONNECTION_AGE", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    max_connection_age: Duration,
    /// For a connection to Ollama.
    #[arg(long, env = "CORRAL_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "1s", value_parser = duration)]
    connect_timeout: Duration,
    /// From one probe of Ollama to the next.
    #[arg(long, env = "CORRAL_PROBE_INTERVAL", value_name = "DURATION", default_value = "2s", value_parser = duration)]
    probe_interval: Duration,
    /// For one probe of Ollama.
    #[arg(long, env = "CORRAL_PROBE_TIMEOUT", value_name = "DURATION", default_value = "1s", value_parser = duration)]
    probe_timeout: Duration,
    /// For an Ollama that answered before to answer nothing, before its requests are ended and `/ollama/livez` fails.
    #[arg(long, env = "CORRAL_HUNG_AFTER", value_name = "DURATION", default_value = "15s", value_parser = duration)]
    hung_after: Duration,
    /// The same for an Ollama that starts.
    #[arg(long, env = "CORRAL_WEDGED_AFTER", value_name = "DURATION", default_value = "90s", value_parser = duration)]
    wedged_after: Duration,
    /// For a runner to send nothing to anybody, before Ollama is asked whether it lives; 0s: it is never asked.
    #[arg(long, env = "CORRAL_STALL_SUSPICION", value_name = "DURATION", default_value = "8s", value_parser = duration)]
    stall_suspicion: Duration,
    /// For Ollama to answer then, before the runner's requests are ended and the pod is Stalled.
    #[arg(long, env = "CORRAL_STALL_PATIENCE", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    stall_patience: Duration,
    /// For all streams of a runner to be silent, whatever Ollama answers; 0s: for ever. A tool call is silent until it is
    /// whole.
    #[arg(long, env = "CORRAL_STALL_LIMIT", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    stall_limit: Duration,
    /// For new requests after a drain began [default: 5s in a pod, 0s standalone].
    #[arg(long, env = "CORRAL_DRAIN_DELAY", value_name = "DURATION", value_parser = duration)]
    drain_delay: Option<Duration>,
    /// For running requests after a drain began [default: 300s in a pod, 10s standalone].
    #[arg(long, env = "CORRAL_DRAIN_TIMEOUT", value_name = "DURATION", value_parser = duration)]
    drain_timeout: Option<Duration>,
    /// For `/drain/wait` to see a drain begin.
    #[arg(long, env = "CORRAL_DRAIN_BEGIN_WAIT", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    drain_begin_wait: Duration,
}

impl Cli {
    pub(super) fn command(self) -> Result<Command, Stop> {
        if let Some(command) = self.command {
            return command.command();
        }
        let (asked, filter) = (self.flags.log_format, self.flags.log.clone());
        let settings = self.flags.settings()?;
        let format = log_format(asked, &settings.mode, std::io::stderr().is_terminal());
        Ok(Command::Serve(Box::new(settings), LogSettings { format, filter }))
    }
}

impl Flags {
    /// What the flags are when nobody sets one, listening on free ports of the loopback.
    pub(super) fn defaults() -> Self {
        let blank = || {
            let free = "127.0.0.1:0";
            let args = ["corral-sidecar", "--listen", free, "--admin-listen", free];
            Cli::try_parse_from(args).map(|cli| cli.flags)
        };
        #[expect(
            clippy::expect_used,
            reason = "constants, checked by every test that starts a sidecar in process"
        )]
        blank().expect("the defaults are valid")
    }

    fn settings(self) -> Result<Settings, Stop> {
        let mode = self.mode()?;
        let mut settings = self.shared(self.upstream);
        if matches!(mode, Mode::Pod(_)) {
            settings.listen = self.listen.unwrap_or_else(|| everybody(ports::CLIENT));
            settings.admin_listen = self.admin_listen.unwrap_or_else(|| everybody(ports::ADMIN));
            settings.drain.delay = self.times.drain_delay.unwrap_or(Duration::from_secs(5));
            settings.drain.timeout = self.times.drain_timeout.unwrap_or(Duration::from_mins(5));
        }
        settings.mode = mode;
        self.memory().bounds().check()?;
        not_itself("--listen", settings.listen, self.upstream)?;
        not_itself("--admin-listen", settings.admin_listen, self.upstream)?;
        Ok(settings)
    }

    fn mode(&self) -> Result<Mode, Stop> {
        let pod = &self.pod;
        match (&pod.pool, &pod.pod_uid) {
            (Some(pool), Some(uid)) => Ok(Mode::Pod(Box::new(PodSettings {
                pool: pool.clone(),
                pod_uid: uid.clone(),
                pod_name: pod.pod_name.clone(),
                plan_file: pod.mounts.plan_file.clone(),
                keys_dir: pod.mounts.keys_dir.clone(),
                state_dir: pod.state_dir.clone(),
                serve_without_directive: pod.serve_without_directive,
                retire_lease: RETIRE_LEASE,
            }))),
            _ if self.policy.is_empty() => {
                let line = "give --policy FILE to run standalone, or --pool NAMESPACE/NAME and --pod-uid UID in a pod";
                Err(Stop::Wrong(line.to_owned()))
            }
            _ => Ok(Mode::Standalone(Policies::Files(self.policy.clone()))),
        }
    }

    /// What both modes share, with the defaults of a standalone one.
    pub(super) fn shared(&self, upstream: SocketAddr) -> Settings {
        let times = &self.times;
        Settings {
            listen: self.listen.unwrap_or_else(|| loopback(ports::CLIENT)),
            admin_listen: self.admin_listen.unwrap_or_else(|| loopback(ports::ADMIN)),
            mode: Mode::Standalone(Policies::Files(self.policy.clone())),
            slots: SlotSettings {
                per_model: self.num_parallel.and_then(NonZeroU32::new),
                loaded_models: NonZeroU32::new(self.max_loaded_models).unwrap_or(NonZeroU32::MIN),
            },
            keys_per_limit: self.keys_per_limit as usize,
            memory_limit_bytes: self.pod.memory_limit_bytes,
            proxy: self.proxy(upstream),
            health: HealthSettings {
                probe_interval: times.probe_interval,
                probe_timeout: times.probe_timeout,
                hung_after: times.hung_after,
                wedged_after: times.wedged_after,
            },
            overload: OverloadSettings::default(),
            drain: DrainSettings {
                delay: times.drain_delay.unwrap_or(Duration::ZERO),
                timeout: times.drain_timeout.unwrap_or(Duration::from_secs(10)),
                begin_wait: times.drain_begin_wait,
            },
        }
    }

    fn memory(&self) -> Known {
        let said = |bytes: Option<u32>| bytes.map(|bytes| bytes as usize);
        let (budget, body) = (said(self.bounds.body_budget_bytes), said(self.bounds.max_body_bytes));
        Known { limit: self.pod.memory_limit_bytes, budget, body }
    }

    fn proxy(&self, upstream: SocketAddr) -> ProxySettings {
        let (times, memory) = (&self.times, self.memory());
        let BodyBounds { body, budget } = memory.bounds();
        let max_connections = self.bounds.max_connections.unwrap_or_else(|| memory.connections());
        ProxySettings {
            upstream,
            max_body_bytes: body,
            body_budget_bytes: budget,
            max_connections: max_connections as usize,
            max_connections_each: usize::MAX,
            head_timeout: times.head_timeout,
            idle_timeout: times.idle_timeout,
            body_timeout: times.body_timeout,
            stall_timeout: times.stall_timeout,
            max_connection_age: times.max_connection_age,
            connect_timeout: times.connect_timeout,
            hold_loaded: times.hold_loaded,
            hold_loading: times.hold_loading,
            stall: StallBounds {
                suspicion: times.stall_suspicion,
                patience: times.stall_patience,
                limit: times.stall_limit,
            },
            look_interval: LOOK_INTERVAL,
            expect_gpu: self.pod.expect_gpu,
            shutdown_grace: SHUTDOWN_GRACE,
        }
    }
}

/// Whoever starts a sidecar by hand reads its log; of a pod, a collector does.
fn log_format(asked: Option<LogFormat>, mode: &Mode, terminal: bool) -> LogFormat {
    let by_hand = terminal && matches!(mode, Mode::Standalone(_));
    asked.unwrap_or(if by_hand { LogFormat::Text } else { LogFormat::Json })
}

/// A sidecar in front of itself would ask itself for ever.
fn not_itself(flag: &str, listen: SocketAddr, upstream: SocketAddr) -> Result<(), Stop> {
    let everywhere = listen.ip().is_unspecified() && upstream.ip().is_loopback();
    let same = everywhere || listen.ip() == upstream.ip() || upstream.ip().is_unspecified();
    if !same || listen.port() != upstream.port() {
        return Ok(());
    }
    Err(Stop::Wrong(format!(
        "--upstream http://{upstream} is where this sidecar itself listens ({flag} {listen}): give Ollama a port of its own, such as OLLAMA_HOST=127.0.0.1:11435, and name that with --upstream"
    )))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(super) fn everybody(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn help_tells_the_flags_of_a_pod_from_those_of_a_laptop() {
        let command = <Cli as CommandFactory>::command();
        let heading = |id: &str| {
            let flag = command.get_arguments().find(|flag| flag.get_id() == id).unwrap();
            flag.get_help_heading().unwrap_or_default()
        };
        for id in ["policy", "listen", "upstream", "num_parallel", "log", "log_format"] {
            assert_eq!(heading(id), "", "{id}");
        }
        for id in ["pool", "pod_uid", "plan_file", "keys_dir", "state_dir", "memory_limit_bytes"] {
            assert_eq!(heading(id), "In a pool pod, set by the operator", "{id}");
        }
        assert_eq!(heading("max_body_bytes"), "Bounds on clients");
        assert_eq!(heading("drain_timeout"), "How long things may take");
    }

    #[test]
    fn only_a_person_at_a_terminal_reads_text_unless_asked_for() {
        let standalone = Mode::Standalone(Policies::Files(Vec::new()));
        assert_eq!(log_format(None, &standalone, true), LogFormat::Text);
        assert_eq!(log_format(None, &standalone, false), LogFormat::Json);
        assert_eq!(log_format(Some(LogFormat::Json), &standalone, true), LogFormat::Json);
        assert_eq!(log_format(Some(LogFormat::Text), &standalone, false), LogFormat::Text);
    }
}
