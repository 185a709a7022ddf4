//! The operator as a process, and what it takes of the machine.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use corral_tests::scratch::Scratch;

/// The kernel tells CPU time in hundredths of a second, whatever its own clock.
const TICK: Duration = Duration::from_millis(10);
/// Where `utime` is among the fields behind the process' name; `stime` follows.
const UTIME: usize = 11;
/// Lines of its log that are shown when it has ended.
const SHOWN_LINES: usize = 20;

/// The process; it is gone when this is dropped.
pub(crate) struct Operator {
    process: Child,
    log: PathBuf,
    _scratch: Scratch,
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What it has taken so far.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    pub(crate) at: Instant,
    cpu: Duration,
    /// Memory in use.
    pub(crate) resident_kib: u64,
    /// The most that ever was.
    pub(crate) peak_kib: u64,
}

impl Usage {
    /// CPU time between two, as a share of one core.
    pub(crate) fn share(from: &Self, to: &Self) -> f64 {
        let (cpu, time) = (to.cpu.saturating_sub(from.cpu), to.at.saturating_duration_since(from.at));
        cpu.as_secs_f64() / time.as_secs_f64()
    }
}

impl Operator {
    /// Starts the binary that was built beside this one.
    pub(crate) fn start(kubeconfig: &str) -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        let binary =
            here.ancestors().nth(2).context("a bench lies in target/release/deps")?.join("corral-operator");
        ensure!(
            binary.is_file(),
            "no {}: build it first, with `cargo build --release -p corral-operator`",
            binary.display()
        );
        let scratch = Scratch::new()?;
        let kubeconfig = scratch.write("kubeconfig", kubeconfig)?;
        let log = scratch.path().join("log");
        let process = Command::new(binary)
            .args(["--sidecar-image=corral/sidecar:1", "--listen=127.0.0.1:0"])
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        Ok(Self { process, log, _scratch: scratch })
    }

    /// An error with the end of its log when it has ended.
    pub(crate) fn ensure_alive(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.process.try_wait()? else { return Ok(()) };
        let log = fs::read_to_string(&self.log)?;
        let lines: Vec<&str> = log.lines().rev().take(SHOWN_LINES).collect();
        let end: Vec<&str> = lines.into_iter().rev().collect();
        anyhow::bail!("the operator ended with {status}:\n{}", end.join("\n"))
    }

    /// What it has taken until now.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.process.id()));
        let stat = fs::read_to_string(folder.join("stat")).context("the operator is gone")?;
        let status = fs::read_to_string(folder.join("status"))?;
        Ok(Usage {
            at: Instant::now(),
            cpu: cpu(&stat)?,
            resident_kib: kib(&status, "VmRSS:")?,
            peak_kib: kib(&status, "VmHWM:")?,
        })
    }
}

/// Time that all its threads have run, in user space and in the kernel for it.
fn cpu(stat: &str) -> anyhow::Result<Duration> {
    let (_, behind) = stat.rsplit_once(") ").context("a process has a name")?;
    let times = behind.split(' ').skip(UTIME).take(2);
    let ticks: Vec<u32> = times.map(str::parse).collect::<Result<_, _>>()?;
    Ok(TICK.saturating_mul(ticks.iter().sum()))
}

fn kib(status: &str, field: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("it has a size")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
