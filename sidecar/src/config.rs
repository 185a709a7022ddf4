//! Settings: every flag and environment variable of the sidecar, read here and nowhere else.
//!
//! A sidecar runs in one of two modes. In a **pod** the operator sets the flags, plans come from the mounted Secret and
//! from the exchange, and the pod serves when it is told to. **Standalone** (`--policy`) it stands in front of any
//! Ollama, reads its policies from files, and serves at once.

mod activator;
mod commands;
mod flags;
mod memory;
mod mounts;
mod value;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use corral_limiter::queue::Slots;
use corral_wire::PoolRef;

use crate::explain::Ask;
use crate::health::overload::OverloadSettings;
use crate::proxy::ProxySettings;

pub use corral_telemetry::log::LogFormat;
pub use value::BadValue;

use flags::{Cli, Flags};

/// What the binary was asked to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// Serve until told to stop.
    Serve(Box<Settings>, LogSettings),
    /// Hold the requests of a pool until a pod is ready.
    Activate(Box<ActivatorSettings>, LogSettings),
    /// Check the binary against a scripted Ollama, in process.
    Selftest,
    /// Tell the sidecar running in this pod to begin its drain.
    Drain {
        /// [`PodSettings::state_dir`] of the running sidecar: its control socket is in there.
        state_dir: PathBuf,
    },
    /// Say what would become of a request.
    Explain {
        /// The request.
        ask: Box<Ask>,
        /// Policy files to go by; empty: the running sidecar is asked.
        policies: Vec<PathBuf>,
        /// As for [`Self::Drain`].
        state_dir: PathBuf,
        /// Print JSON, not text.
        json: bool,
    },
    /// Show the heaviest clients of this pod.
    Top {
        /// As for [`Self::Drain`].
        state_dir: PathBuf,
        /// How often to show them; none: once.
        every: Option<Duration>,
        /// The most to show.
        most: usize,
    },
}

/// Everything an activator must know before it starts.
#[derive(Debug, Clone)]
pub struct ActivatorSettings {
    /// Where clients connect. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where probes, metrics and the operator are answered. Port 0 picks a free one.
    pub admin_listen: SocketAddr,
    /// The pool whose requests it holds.
    pub pool: PoolRef,
    /// The UID of its pod: what the operator says to another is not obeyed.
    pub pod_uid: String,
    /// Its pod's name, for the log only.
    pub pod_name: String,
    /// The mounted plan.
    pub plan_file: PathBuf,
    /// The mounted pool keys, one file a key; the greatest file name signs.
    pub keys_dir: PathBuf,
    /// What is held.
    pub hold: HoldSettings,
    /// Every bound and time of connections and bodies.
    pub proxy: ProxySettings,
    /// How the end is reached.
    pub drain: DrainSettings,
}

/// How much an activator holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldSettings {
    /// The most requests. 1000 if nobody says; one client has a quarter, and at least one.
    pub max_requests: u32,
    /// The most bytes of their bodies. 64 MiB if nobody says; one client has a quarter, but always one request.
    pub max_bytes: u64,
    /// The most bytes of one of them: 1 MiB.
    pub max_body_bytes: u64,
    /// The longest that one is held. 10 min if nobody says.
    pub max_hold: Duration,
}

/// How the log is written.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// JSON or text.
    pub format: LogFormat,
    /// A `tracing` filter, such as `info` or `info,corral_sidecar=debug`.
    pub filter: String,
}

/// Everything a sidecar must know before it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where clients connect. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where probes, metrics and the exchange are answered. Port 0 picks a free one.
    pub admin_listen: SocketAddr,
    /// In a pod, or on its own.
    pub mode: Mode,
    /// How many requests run inside Ollama at one time.
    pub slots: SlotSettings,
    /// The most clients that one limit tells apart; beyond them some share a bucket.
    pub keys_per_limit: usize,
    /// How many bytes of memory the container may take, as far as known: told in the log, for it bounds
    /// bodies and connections in [`Self::proxy`] where no flag does.
    pub memory_limit_bytes: Option<u64>,
    /// Every bound and time of the data path, and where Ollama listens.
    pub proxy: ProxySettings,
    /// How Ollama's health is judged.
    pub health: HealthSettings,
    /// How load becomes readiness.
    pub overload: OverloadSettings,
    /// How the end is reached.
    pub drain: DrainSettings,
}

/// Where plans come from.
#[derive(Debug, Clone)]
pub enum Mode {
    /// A pod of an `OllamaPool`.
    Pod(Box<PodSettings>),
    /// One sidecar, files, no operator.
    Standalone(Policies),
}

/// What only a pod knows.
#[derive(Debug, Clone)]
pub struct PodSettings {
    /// The pool it belongs to.
    pub pool: PoolRef,
    /// Its UID: a directive for another pod is not obeyed.
    pub pod_uid: String,
    /// Its name, for the log only.
    pub pod_name: String,
    /// The mounted plan; `divisor` stands beside it.
    pub plan_file: PathBuf,
    /// The mounted pool keys, one file a key; the greatest file name signs.
    pub keys_dir: PathBuf,
    /// Where what was accepted is kept over a restart of the container.
    pub state_dir: PathBuf,
    /// How long a newcomer waits for a directive before it serves on the mounted D.
    pub serve_without_directive: Duration,
    /// How long an order to retire holds from when it was heard; [`RETIRE_LEASE`](corral_wire::exchange::RETIRE_LEASE).
    pub retire_lease: Duration,
}

/// Where a standalone sidecar finds its policies, and at most one pool.
#[derive(Debug, Clone)]
pub enum Policies {
    /// In files, at least one; changes are followed.
    Files(Vec<PathBuf>),
    /// Here, for good.
    Text(String),
}

/// Slots: the requests that run inside Ollama at one time.
#[derive(Debug, Clone, Copy)]
pub struct SlotSettings {
    /// Per loaded model. `None`: what the pool in the policy file says, or 1.
    pub per_model: Option<NonZeroU32>,
    /// The most models loaded at one time; over all of them, slots are this many times [`Self::per_model`].
    pub loaded_models: NonZeroU32,
}

impl SlotSettings {
    /// The slots, given how many per model the pool in the policy file has, if there is one. A flag wins over it.
    pub fn bounds(self, in_file: Option<NonZeroU32>) -> Slots {
        let per_model = self.per_model.or(in_file).unwrap_or(NonZeroU32::MIN);
        Slots { per_model: per_model.get(), models: self.loaded_models.get() }
    }
}

/// How Ollama's health is judged.
#[derive(Debug, Clone, Copy)]
pub struct HealthSettings {
    /// From one probe to the next.
    pub probe_interval: Duration,
    /// The longest that one probe may take.
    pub probe_timeout: Duration,
    /// For how long an Ollama that has answered before may accept connections and answer none, nor go on with any answer,
    /// before its requests are ended and `/ollama/livez` fails. A restart that no probe saw is not killed by it: Kubernetes
    /// asks six more times, ten seconds apart.
    pub hung_after: Duration,
    /// The same for one that starts. Longer than its GPU discovery, which can take a minute, or a slow start would be
    /// killed for ever.
    pub wedged_after: Duration,
}

/// How the end is reached.
#[derive(Debug, Clone, Copy)]
pub struct DrainSettings {
    /// For how long after its drain began a sidecar still takes new requests, so that no endpoint list is outrun.
    pub delay: Duration,
    /// The longest that running and waiting requests get, counted from the beginning of the drain.
    pub timeout: Duration,
    /// The longest that `/drain/wait` waits for a drain to begin.
    pub begin_wait: Duration,
}

impl Command {
    /// Reads the process's arguments and environment. The error is what to print: help and version (exit 0), or one
    /// line that says what is wrong (exit 2).
    pub fn from_process() -> Result<Self, Stop> {
        Self::from_args(std::env::args_os())
    }

    /// Reads these arguments (the first is the program's name) over the process's environment.
    pub fn from_args<I, T>(args: I) -> Result<Self, Stop>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let cli = Cli::try_parse_from(args).map_err(|error| Stop::from_clap(&error))?;
        cli.command()
    }
}

impl ActivatorSettings {
    /// The defaults, on free ports of the loopback: what tests run. `keys_dir` holds the keys of `pool`.
    pub fn usual(pool: &PoolRef, pod_uid: &str, keys_dir: &std::path::Path) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let flags = activator::ActivatorFlags::defaults(pool, pod_uid);
        Self { listen: free, admin_listen: free, keys_dir: keys_dir.to_owned(), ..flags.settings() }
    }
}

impl Settings {
    /// A standalone sidecar in front of `upstream`, on free ports of the loopback: what tests and the self-test run.
    pub fn standalone(policies: Policies, upstream: SocketAddr) -> Self {
        let mut settings = Flags::defaults().shared(upstream);
        settings.mode = Mode::Standalone(policies);
        settings
    }

    /// A pod's sidecar in front of `upstream`, on free ports of the loopback: what tests run.
    pub fn pod(pod: PodSettings, upstream: SocketAddr) -> Self {
        let mut settings = Flags::defaults().shared(upstream);
        settings.mode = Mode::Pod(Box::new(pod));
        settings
    }
}

/// Why the process ends before it starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Help or the version was asked for: print it, exit with 0.
    #[error("{0}")]
    Asked(String),
    /// The flags are wrong: print this one line, exit with 2.
    #[error("corral-sidecar: {0} (try --help)")]
    Wrong(String),
}

impl Stop {
    fn from_clap(error: &clap::Error) -> Self {
        use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
        let text = error.render().to_string();
        if matches!(error.kind(), DisplayHelp | DisplayVersion) {
            return Self::Asked(text);
        }
        let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
        let told = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
        let line = told.collect::<Vec<_>>().join(" ");
        Self::Wrong(line.trim_start_matches("error: ").to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(args: &[&str]) -> Settings {
        match Command::from_args(std::iter::once(&"corral-sidecar").chain(args)).unwrap() {
            Command::Serve(settings, _) => *settings,
            other => panic!("{other:?}"),
        }
    }

    fn wrong(args: &[&str]) -> String {
        match Command::from_args(std::iter::once(&"corral-sidecar").chain(args)) {
            Err(Stop::Wrong(line)) => line,
            other => panic!("{other:?}"),
        }
    }

    const POD: [&str; 4] = ["--pool", "llm/chat", "--pod-uid", "u-1"];

    #[test]
    fn standalone_stays_on_the_loopback() {
        let settings = serve(&["--policy", "policy.yaml"]);
        assert_eq!(settings.listen, "127.0.0.1:11434".parse().unwrap());
        assert_eq!(settings.admin_listen, "127.0.0.1:11436".parse().unwrap());
        assert!(
            matches!(settings.mode, Mode::Standalone(Policies::Files(f)) if f == [PathBuf::from("policy.yaml")])
        );
        assert_eq!(settings.drain.delay, Duration::ZERO, "nobody watches an endpoint list on a laptop");
    }

    #[test]
    fn a_pod_listens_for_everybody() {
        let settings = serve(&POD);
        assert_eq!(settings.listen, "[::]:11434".parse().unwrap());
        assert_eq!(settings.admin_listen, "[::]:11436".parse().unwrap());
        let Mode::Pod(pod) = settings.mode else { panic!("not a pod") };
        assert_eq!(pod.pool, PoolRef { namespace: "llm".into(), name: "chat".into() });
        assert_eq!(pod.plan_file, PathBuf::from("/etc/corral/plan/plan.v1.json"));
    }

    #[test]
    fn the_memory_limit_bounds_what_clients_take_where_no_flag_does() {
        let room = |args: &[&str]| {
            let proxy = serve(&[&POD, args].concat()).proxy;
            (proxy.max_body_bytes >> 20, proxy.body_budget_bytes >> 20, proxy.max_connections)
        };
        let (mib_256, mib_64) = ("--memory-limit-bytes=268435456", "--memory-limit-bytes=67108864");
        assert_eq!(room(&[]), (32, 256, 10_000));
        assert_eq!(room(&[mib_256]), (32, 64, 1365));
        assert_eq!(room(&[mib_64]), (16, 16, 341));
        assert_eq!(room(&[mib_64, "--body-budget-bytes=104857600"]), (32, 100, 341));
        assert_eq!(room(&[mib_256, "--max-connections=5000"]), (32, 64, 5000));
    }

    #[test]
    fn a_wrong_flag_is_told_in_one_line_that_names_it() {
        for (args, told) in [
            (vec![], "--policy"),
            (vec!["--policy", "p.yaml", "--upstream", "http://nobody.invalid:1"], "nobody.invalid"),
            (vec!["--pool", "llm/chat"], "--pod-uid"),
            (vec!["--pool", "chat", "--pod-uid", "u"], "namespace/name"),
            (vec!["--policy", "p.yaml", "--pool", "a/b"], "cannot be used with"),
            (vec!["--policy", "p.yaml", "--listen", "here"], "--listen"),
            (vec!["--policy", "p.yaml", "--listen", ":11434"], "such as 127.0.0.1:11434"),
            (vec!["--policy", "p.yaml", "--admin-listen", "11436"], "--admin-listen"),
            (vec!["--policy", "p.yaml", "--upstream", "https://x"], "http://"),
            (vec!["--policy", "p.yaml", "--num-parallel", "0"], "--num-parallel"),
            (vec!["--policy", "p.yaml", "--drain-timeout", "10"], "30s"),
            (
                vec!["--policy", "p.yaml", "--body-budget-bytes=2048", "--max-body-bytes=4096"],
                "no room for one",
            ),
            (vec!["--polices", "p.yaml"], "--polices"),
            (vec!["--policy", "p.yaml", "--upstream", "http://127.0.0.1"], "http://HOST:PORT"),
            (vec!["--policy", "p.yaml", "--upstream", "http://localhost:11434"], "itself listens (--listen"),
            (vec!["--policy", "p.yaml", "--listen", "0.0.0.0:11435"], "itself listens (--listen"),
            (vec!["--policy", "p.yaml", "--upstream", "http://127.0.0.1:11436"], "(--admin-listen"),
        ] {
            let line = wrong(&args);
            assert!(line.contains(told), "{args:?}: {line}");
            assert_eq!(line.lines().count(), 1, "{line}");
        }
    }

    #[test]
    fn an_activator_is_told_whose_it_is_and_has_room_for_what_it_holds() {
        let activate = |args: &[&str]| {
            let args = [&["corral-sidecar", "activator"], args].concat();
            Command::from_args(args).map(|command| match command {
                Command::Activate(settings, _) => *settings,
                other => panic!("{other:?}"),
            })
        };
        let settings = activate(&POD).unwrap();
        assert_eq!(settings.listen, "[::]:11434".parse().unwrap());
        assert_eq!(settings.admin_listen, "[::]:11436".parse().unwrap());
        let usual = HoldSettings {
            max_requests: 1000,
            max_bytes: 64 << 20,
            max_body_bytes: 1 << 20,
            max_hold: Duration::from_mins(10),
        };
        assert_eq!(settings.hold, usual);
        let set = activate(&[&POD[..], &["--max-held-requests=5000", "--max-hold=30s"]].concat()).unwrap();
        assert_eq!((set.hold.max_requests, set.hold.max_hold), (5000, Duration::from_secs(30)));
        assert_eq!((set.proxy.max_connections, set.proxy.max_connections_each), (6000, 1500));
        assert_eq!(set.proxy.body_budget_bytes, 64 << 20, "what passes takes no room of what is held");
        for (args, told) in [
            (vec!["--pool", "llm/chat"], "--pod-uid"),
            (vec!["--pool", "llm/chat", "--pod-uid", "u", "--max-held-requests=0"], "--max-held-requests"),
            (vec!["--pool", "llm/chat", "--pod-uid", "u", "--policy=p.yaml"], "--policy"),
        ] {
            match activate(&args) {
                Err(Stop::Wrong(line)) => assert!(line.contains(told), "{line}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn help_is_no_error() {
        assert!(matches!(Command::from_args(["corral-sidecar", "--help"]), Err(Stop::Asked(_))));
    }

    #[test]
    fn subcommands_need_none_of_the_flags() {
        assert!(matches!(Command::from_args(["corral-sidecar", "selftest"]), Ok(Command::Selftest)));
        assert!(matches!(Command::from_args(["corral-sidecar", "drain"]), Ok(Command::Drain { .. })));
        let top = |args: &[&str]| match Command::from_args([&["corral-sidecar", "top"], args].concat()) {
            Ok(Command::Top { every, most, .. }) => (every, most),
            other => panic!("{other:?}"),
        };
        assert_eq!(top(&[]), (Some(Duration::from_secs(2)), 20));
        assert_eq!(top(&["--once", "--most=3"]), (None, 3));
    }

    #[test]
    fn a_request_to_explain_is_read_before_anybody_is_asked_and_its_key_is_not_repeated() {
        let explain = |args: &[&str]| Command::from_args([&["corral-sidecar", "explain"], args].concat());
        let request = "--request=POST /api/chat model=tiny";
        let asked = explain(&[request, "--api-key=secret", "--header=x-a: b", "--client-ip=10.0.0.9"]);
        assert!(!format!("{asked:?}").contains("secret"), "{asked:?}");
        let Ok(Command::Explain { ask, policies, json: false, .. }) = asked else { panic!("{asked:?}") };
        assert_eq!((ask.client_ip, policies), ("10.0.0.9".parse().unwrap(), Vec::<PathBuf>::new()));
        for (args, told) in [
            (vec![], "--request"),
            (vec!["--request=chat"], "POST /api/chat"),
            (vec![request, "--header=secret"], "Name: value"),
        ] {
            match explain(&args) {
                Err(Stop::Wrong(line)) => assert!(line.contains(told) && !line.contains("secret"), "{line}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
