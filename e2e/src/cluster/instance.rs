//! One cluster's name, folders and record on disk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::addresses::AddressPlan;
use crate::machine::lock::Lock;
use crate::machine::settings::Settings;

/// A cluster's name and the folder that holds everything it has on disk.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The name, which no other cluster of this user has.
    pub name: String,
    /// The folder, below the state folder.
    pub root: PathBuf,
    /// Locks lie with the cache: a lock file that is removed while others wait for it is no lock.
    locks: PathBuf,
}

/// What a cluster remembers of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its addresses.
    pub addresses: AddressPlan,
    /// Set at the end of `up`: without it, what is there is the debris of a run that was cut off.
    pub complete: bool,
    /// The boot of the machine that it runs in: after another boot nothing of it runs.
    pub boot: String,
    /// Identities of the images that each node has loaded.
    #[serde(default)]
    pub images: Vec<String>,
}

impl Instance {
    /// The cluster of this name, whether it exists or not. 1 to 20 letters, digits and dashes.
    pub fn new(settings: &Settings, name: &str) -> Result<Self> {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            (1..=20).contains(&name.len()) && name.chars().all(word),
            "a cluster's name has 1 to 20 lower-case letters, digits and dashes, unlike `{name}`"
        );
        let root = settings.state.join("clusters").join(name);
        Ok(Self { name: name.to_owned(), root, locks: settings.cache.join("locks") })
    }

    /// Every cluster that has left something on disk.
    pub fn all(settings: &Settings) -> Result<Vec<Self>> {
        let Ok(entries) = fs::read_dir(settings.state.join("clusters")) else { return Ok(Vec::new()) };
        let mut names: Vec<_> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names.iter().map(|name| Self::new(settings, name)).collect()
    }

    /// Held by whoever changes this cluster.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.locks.join(format!("cluster-{}.lock", self.name));
        Lock::take(&path, &format!("the cluster `{}`", self.name))
    }

    /// Held while stories run on this cluster: two runs at once would share namespaces.
    pub fn lock_for_stories(&self) -> Result<Lock> {
        let path = self.locks.join(format!("stories-{}.lock", self.name));
        Lock::take(&path, &format!("the stories on `{}`", self.name))
    }

    /// The folder with what all clusters of this user have.
    pub fn all_clusters(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    /// A file or folder of this cluster.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// The folder of one node, which holds what is private to it.
    pub fn node(&self, node: usize) -> PathBuf {
        self.root.join(format!("node{node}"))
    }

    /// A component's log.
    pub fn log(&self, component: &str) -> PathBuf {
        self.root.join("logs").join(format!("{component}.log"))
    }

    /// The pin of a node's network namespace.
    pub fn network_namespace(&self, node: usize) -> PathBuf {
        self.root.join("ns").join(format!("net-{node}"))
    }

    /// The pin of a node's mount namespace.
    pub fn mount_namespace(&self, node: usize) -> PathBuf {
        self.root.join("ns").join(format!("mnt-{node}"))
    }

    /// The cgroup below which a node's pods live, in every hierarchy. A kubelet removes pod cgroups that it does not
    /// know, so no two may share one.
    pub fn cgroup(&self, node: usize) -> String {
        format!("corral-e2e-{}-node{node}", self.name)
    }

    /// The record, if there is a readable one.
    pub fn record(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.path("instance.json")).ok()?).ok()
    }

    /// Writes the record whole or not at all.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        fs::create_dir_all(&self.root)?;
        let draft = self.path("instance.json.new");
        fs::write(&draft, serde_json::to_vec_pretty(record)?)?;
        fs::rename(draft, self.path("instance.json")).context("writing the cluster's record")
    }

    /// Takes addresses that no other cluster has, and begins a record with them.
    pub fn claim_addresses(&self, settings: &Settings) -> Result<AddressPlan> {
        let _lock = Lock::take(&self.locks.join("addresses.lock"), "the list of address ranges")?;
        let others: Vec<_> =
            Self::all(settings)?.iter().filter_map(|other| Some(other.record()?.addresses)).collect();
        let addresses = AddressPlan::free(&others)?;
        let record = Record { addresses, complete: false, boot: boot_id()?, images: Vec::new() };
        self.write_record(&record)?;
        Ok(addresses)
    }
}

/// Names this boot of the machine.
pub fn boot_id() -> Result<String> {
    Ok(fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str) -> Settings {
        let base = std::env::temp_dir().join(format!("corral-instance-{name}-{}", std::process::id()));
        Settings { cache: base.join("cache"), state: base.join("state"), repository: base }
    }

    #[test]
    fn two_clusters_have_different_addresses_and_folders() {
        let settings = settings("two");
        let [a, b] = ["one", "two"].map(|name| Instance::new(&settings, name).unwrap());
        let addresses = [&a, &b].map(|instance| instance.claim_addresses(&settings).unwrap());
        assert_ne!(addresses[0], addresses[1]);
        assert_ne!((a.cgroup(0), a.path("x")), (b.cgroup(0), b.path("x")));
        fs::remove_dir_all(&settings.repository).unwrap();
    }

    #[test]
    fn a_cut_off_record_is_no_record() {
        let settings = settings("cut");
        let instance = Instance::new(&settings, "c").unwrap();
        instance.claim_addresses(&settings).unwrap();
        assert!(!instance.record().unwrap().complete);
        fs::write(instance.path("instance.json"), "{\"addr").unwrap();
        assert_eq!(instance.record(), None);
        fs::remove_dir_all(&settings.repository).unwrap();
    }

    #[test]
    fn a_name_that_could_leave_the_folder_is_refused() {
        let settings = settings("names");
        for name in ["", "..", "a/b", "Corral", "a-name-that-is-far-too-long"] {
            assert!(Instance::new(&settings, name).is_err(), "{name}");
        }
    }
}
