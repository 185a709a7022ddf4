//! Says what runs.

use anyhow::Result;

use super::instance::{Instance, boot_id};
use super::{down, processes};
use crate::machine::console::say;
use crate::machine::settings::Settings;

/// Prints one paragraph for each cluster of this user.
pub fn status(settings: &Settings) -> Result<()> {
    let clusters = Instance::all(settings)?;
    if clusters.is_empty() {
        say("No cluster is here. `cargo e2e up` starts one.");
    }
    clusters.iter().try_for_each(show)
}

fn show(instance: &Instance) -> Result<()> {
    let record = instance.record();
    let state = match &record {
        Some(record) if record.boot != boot_id()? => "from before this machine was booted",
        Some(record) if record.complete => "up",
        Some(_) => "being started, or cut off while it was",
        None => "debris",
    };
    say(format!("Cluster `{}`: {state}", instance.name));
    if let Some(record) = &record {
        let plan = record.addresses;
        say(format!("  nodes {}, pods {}, Services {}", plan.nodes(), plan.pods(), plan.services()));
    }
    for name in component_names(instance) {
        match processes::recorded(instance, &name).filter(|process| process.alive()) {
            Some(process) => say(format!("  {name}: pid {}", process.pid)),
            None => say(format!("  {name}: NOT RUNNING, see {}", instance.log(&name).display())),
        }
    }
    let parts = down::leftovers(instance)?.len();
    say(format!(
        "  {parts} processes, mounts, cgroups and folders in all; files in {}",
        instance.root.display()
    ));
    if record.is_some_and(|record| record.complete) {
        say(format!("  reach it by {}/kubectl", instance.path("bin").display()));
    }
    Ok(())
}

fn component_names(instance: &Instance) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(instance.path("run")) else { return Vec::new() };
    let files = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        files.filter_map(|file| file.strip_suffix(".json").map(str::to_owned)).collect();
    names.sort();
    names
}
