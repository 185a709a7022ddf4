//! Processes of a cluster: started so that they outlive the harness, found again by mark, ended without mistakes.
//!
//! A process is ours if it carries our mark in its environment (every one that we start does, and what it starts
//! inherits it) or lives in one of our cgroups (containers do). It is known by pid and start time together, and
//! signalled through a handle, so that a pid that was given to somebody else meanwhile is never hit.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::cgroups;
use super::instance::Instance;
use crate::machine::clock::Deadline;
use crate::machine::command::Cmd;

/// The environment variable whose value is the folder of the cluster that a process belongs to.
const MARK: &str = "CORRAL_E2E_CLUSTER";

/// One life of a process: the pid alone may be given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// The process that has this pid now. A zombie is none: it only waits to be forgotten.
    pub fn now(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parse_stat(&stat).map(|started| Self { pid, started })
    }

    /// Whether it still runs.
    pub fn alive(self) -> bool {
        Self::now(self.pid) == Some(self)
    }

    /// Stops it where it is, until what is given is dropped.
    #[must_use]
    pub fn freeze(self) -> Frozen {
        self.signal(Signal::STOP);
        Frozen(self)
    }

    /// Sends a signal to this life of the process and no other; gone already is fine.
    pub fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // The handle is of whoever has the pid now; only if that is still the same life is it signalled.
        if self.alive() {
            let _ = pidfd_send_signal(&handle, signal);
        }
    }
}

/// A process that is stopped. It runs on when this is dropped.
#[derive(Debug)]
pub struct Frozen(Process);

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

/// The start time of a process that is no zombie, from `/proc/PID/stat`. Its name may hold spaces and brackets.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    // Field 22 of the whole line; the state is field 3.
    let started = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(started)
}

/// Starts a component in the background: own process group, output to its log, our mark, a record on disk.
pub fn start(instance: &Instance, name: &str, command: &Cmd) -> Result<Process> {
    let log = instance.log(name);
    fs::create_dir_all(log.parent().context("a log lies in a folder")?)?;
    let out = OpenOptions::new().create(true).append(true).open(&log)?;
    let mut command = command.command()?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    command.env(MARK, &instance.root).process_group(0);
    let child = command.spawn().with_context(|| format!("starting {name}"))?;
    let pid = i32::try_from(child.id())?;
    let process = Process::now(pid).with_context(|| format!("{name} ended at once"))?;
    fs::create_dir_all(instance.path("run"))?;
    fs::write(instance.path("run").join(format!("{name}.json")), serde_json::to_vec(&process)?)?;
    Ok(process)
}

/// The recorded process of a component, running or not.
pub fn recorded(instance: &Instance, name: &str) -> Option<Process> {
    let bytes = fs::read(instance.path("run").join(format!("{name}.json"))).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Asks a component to end, and ends it after `grace`.
pub fn stop(instance: &Instance, name: &str, grace: Duration) -> Result<()> {
    let Some(process) = recorded(instance, name) else { return Ok(()) };
    process.signal(Signal::TERM);
    let gone = || if process.alive() { Err("it still runs".to_owned()) } else { Ok(()) };
    let pause = Duration::from_millis(20);
    if Deadline::after(grace).wait("it ends", pause, || Ok(gone())).is_err() {
        process.signal(Signal::KILL);
        Deadline::after(Duration::from_secs(10)).wait(&format!("{name} is gone"), pause, || Ok(gone()))?;
    }
    Ok(())
}

/// Every running process of the cluster.
pub fn all(instance: &Instance) -> BTreeSet<Process> {
    let mut found: BTreeSet<Process> = marked(&instance.root).into_iter().collect();
    found.extend(cgroups::processes(instance).into_iter().filter_map(Process::now));
    found
}

/// Ends every process of the cluster, whatever it is doing.
pub fn end_all(instance: &Instance, limit: Duration) -> Result<()> {
    Deadline::after(limit).wait("all processes are gone", Duration::from_millis(20), || {
        let left = all(instance);
        for process in &left {
            process.signal(Signal::KILL);
        }
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?} still run")) })
    })
}

fn marked(root: &Path) -> Vec<Process> {
    let mark = format!("{MARK}={}", root.display());
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own && carries(*pid, &mark)).filter_map(Process::now).collect()
}

fn carries(pid: i32, mark: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::settings::Settings;

    fn instance(name: &str) -> Instance {
        let base = std::env::temp_dir().join(format!("corral-process-{name}-{}", std::process::id()));
        let settings = Settings { cache: base.join("c"), state: base.join("s"), repository: base };
        Instance::new(&settings, name).unwrap()
    }

    #[test]
    fn a_name_with_brackets_does_not_hide_the_start_time() {
        let fields = "1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0";
        assert_eq!(parse_stat(&format!("42 (a) b) S {fields}")), Some(777));
        assert_eq!(parse_stat(&format!("42 (gone) Z {fields}")), None);
        assert_eq!(parse_stat("42 (short) S 1"), None);
    }

    #[test]
    fn a_pid_that_another_process_has_now_is_not_ours() {
        let own = Process::now(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.alive());
        let earlier = Process { started: own.started - 1, ..own };
        assert!(!earlier.alive());
        // Would end this test if it were taken for the process that has the pid now.
        earlier.signal(Signal::KILL);
    }

    #[test]
    fn what_a_process_starts_is_found_by_its_mark_and_ended() {
        let instance = instance("mark");
        start(&instance, "parent", &Cmd::words(["sh", "-c", "sleep 300 & sleep 300"])).unwrap();
        let both = || Ok(if all(&instance).len() >= 3 { Ok(()) } else { Err(String::new()) });
        Deadline::after(Duration::from_secs(10)).wait("all run", Duration::from_millis(5), both).unwrap();
        end_all(&instance, Duration::from_secs(10)).unwrap();
        assert!(all(&instance).is_empty());
        fs::remove_dir_all(instance.root.parent().unwrap().parent().unwrap().parent().unwrap()).unwrap();
    }

    #[test]
    fn a_frozen_process_runs_on_when_it_is_let_go() {
        let instance = instance("frozen");
        let process = start(&instance, "sleeper", &Cmd::words(["sleep", "300"])).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
        let becomes = |what: &'static str| {
            let ready = || Ok(if state().contains(what) { Ok(()) } else { Err(state()) });
            Deadline::after(Duration::from_secs(10)).wait(what, Duration::from_millis(1), ready).unwrap();
        };
        let frozen = process.freeze();
        becomes(") T ");
        drop(frozen);
        becomes(") S ");
        end_all(&instance, Duration::from_secs(10)).unwrap();
        fs::remove_dir_all(instance.root.parent().unwrap().parent().unwrap().parent().unwrap()).unwrap();
    }

    #[test]
    fn a_component_that_ignores_the_request_is_ended_after_its_grace() {
        let instance = instance("stop");
        let stubborn = Cmd::words(["sh", "-c", "trap '' TERM; while :; do sleep 0.01; done"]);
        let process = start(&instance, "stubborn", &stubborn).unwrap();
        stop(&instance, "stubborn", Duration::from_millis(100)).unwrap();
        assert!(!process.alive());
        end_all(&instance, Duration::from_secs(10)).unwrap();
        fs::remove_dir_all(instance.root.parent().unwrap().parent().unwrap().parent().unwrap()).unwrap();
    }
}
