//! Takes a cluster down, or clears what a killed run has left: the same way for both, for it must always work.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::instance::Instance;
use super::{cgroups, mounts, namespaces, processes};
use crate::machine::cache;
use crate::machine::clock::{Stopwatch, seconds};
use crate::machine::console::say;
use crate::machine::preflight;
use crate::machine::settings::Settings;

const PROCESSES_LIMIT: Duration = Duration::from_mins(1);

/// Takes the cluster down and asserts that nothing of it is left.
pub fn down(settings: &Settings, name: &str) -> Result<()> {
    let watch = Stopwatch::start();
    let instance = Instance::new(settings, name)?;
    preflight::check()?;
    let _lock = instance.lock()?;
    let namespaces = namespaces::identities(&instance);
    if clean(&instance)? {
        say(format!("The cluster `{name}` is down after {}.", seconds(watch.elapsed())));
        report_visitors(&namespaces);
    } else {
        say(format!("There is no cluster `{name}`."));
    }
    Ok(())
}

/// Somebody's own shell, entered by hand: it is not ours to end, and keeps its namespace until it leaves.
fn report_visitors(namespaces: &[String]) {
    let visitors = namespaces::inhabitants(namespaces);
    if visitors.is_empty() {
        say("No process, mount, namespace, cgroup or file of it is left.");
    } else {
        say(format!(
            "No process, mount, cgroup or file of it is left; its network lives on in pids {visitors:?}."
        ));
    }
}

/// Removes everything that belongs to the cluster. Tells whether there was anything.
///
/// Nothing is asked of the cluster itself, which may be broken: all it has lives in its own namespaces and cgroups and
/// in one folder, and ends with its processes.
pub fn clean(instance: &Instance) -> Result<bool> {
    let found = !leftovers(instance)?.is_empty();
    processes::end_all(instance, PROCESSES_LIMIT)?;
    mounts::remove(&instance.root)?;
    cgroups::remove(instance)?;
    cache::remove(&instance.root)?;
    // The folders above it go with the last cluster; while another one is there they are not empty and stay.
    for folder in instance.root.ancestors().skip(1).take(2) {
        let _ = fs::remove_dir(folder);
    }
    let left = leftovers(instance)?;
    ensure!(
        left.is_empty(),
        "the cluster `{}` has left something behind: {}",
        instance.name,
        left.join(", ")
    );
    Ok(found)
}

/// Everything of the cluster that is there, in words.
pub fn leftovers(instance: &Instance) -> Result<Vec<String>> {
    let mut found: Vec<String> =
        processes::all(instance).iter().map(|process| format!("process {}", process.pid)).collect();
    found.extend(mounts::below(&instance.root)?.iter().map(|mount| format!("mount {}", mount.display())));
    found.extend(cgroups::existing(instance).iter().map(|cgroup| format!("cgroup {}", cgroup.display())));
    if fs::exists(&instance.root)? {
        found.push(format!("folder {}", instance.root.display()));
    }
    Ok(found)
}
