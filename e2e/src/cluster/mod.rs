//! One real Kubernetes cluster: two nodes, each with a network and file-system view of its own, on this machine.

pub mod addresses;
pub mod api;
pub mod audit;
pub mod certificates;
pub mod cgroups;
pub mod components;
pub mod corral;
pub mod down;
pub mod external_metrics;
pub mod http;
pub mod instance;
pub mod kubectl;
pub mod loading;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod processes;
pub mod render;
pub mod status;
pub mod up;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifacts::Parts;
use crate::machine::command::tail;

use addresses::AddressPlan;
use components::Component;
use instance::Instance;
use processes::Frozen;

/// Lines of a log that an error shows.
const LOG_TAIL: usize = 15;

/// A cluster that runs, or is being started.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name and folders.
    pub instance: Instance,
    /// Its addresses.
    pub addresses: AddressPlan,
    /// What it is made of.
    pub parts: Parts,
    components: Vec<Component>,
}

impl Cluster {
    fn new(instance: Instance, addresses: AddressPlan, parts: Parts) -> Self {
        let components = components::all(&instance, addresses, &parts);
        Self { instance, addresses, parts, components }
    }

    /// Starts a component that does not run: after [`Self::stop`], or for the first time.
    pub fn start(&self, component: &str) -> Result<()> {
        components::named(&self.components, component)?.start(&self.instance).map(drop)
    }

    /// Stops a component, as an outage would: `kube-apiserver`, `kubelet-1` and so on.
    pub fn stop(&self, component: &str) -> Result<()> {
        components::named(&self.components, component)?;
        processes::stop(&self.instance, component, Duration::from_secs(5))
    }

    /// Stops the clock for a component, until what is given is dropped.
    pub fn freeze(&self, component: &str) -> Result<Frozen> {
        let process = processes::recorded(&self.instance, component);
        Ok(process.with_context(|| format!("{component} does not run"))?.freeze())
    }

    /// Names of components that should run and do not.
    pub fn missing_components(&self) -> Vec<String> {
        let runs =
            |name: &str| processes::recorded(&self.instance, name).is_some_and(processes::Process::alive);
        self.components.iter().map(|component| component.name.clone()).filter(|name| !runs(name)).collect()
    }

    /// Adds to an error what the components in question last logged, and which ones have died.
    fn explain<T>(&self, result: Result<T>, components: &[&str]) -> Result<T> {
        result.with_context(|| {
            let logs = components.iter().map(|name| {
                let log = self.instance.log(name);
                let text = fs::read_to_string(&log).unwrap_or_default();
                format!("--- end of {}\n{}\n", log.display(), tail(&text, LOG_TAIL))
            });
            let logs: String = logs.collect();
            format!("{logs}--- not running: {:?}", self.missing_components())
        })
    }
}
