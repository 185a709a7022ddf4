//! Mounts of a cluster on this machine: the pins of its namespaces, and full disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::Cluster;
use super::namespaces::on_node;
use crate::machine::clock::Deadline;
use crate::machine::command::Cmd;

/// Everything mounted at or below a folder, deepest first.
pub fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = parse(&fs::read_to_string("/proc/self/mounts")?, folder);
    found.reverse();
    Ok(found)
}

/// Unmounts everything at or below a folder.
pub fn remove(folder: &Path) -> Result<()> {
    Deadline::after(Duration::from_secs(20)).wait("mounts are gone", Duration::from_millis(100), || {
        for mount in below(folder)? {
            let done = Cmd::new("umount").arg(&mount).attempt()?;
            if !done.status.success() {
                Cmd::words(["umount", "--lazy"]).arg(&mount).attempt()?;
            }
        }
        let left = below(folder)?;
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are left")) })
    })
}

impl Cluster {
    /// Puts a disk on which nothing can be written over a folder of a node. Containers that start later see it; who
    /// removes the folder's pod removes it too.
    pub fn full_disk(&self, node: usize, folder: &str) -> Result<()> {
        // One inode, which the folder itself takes.
        let options = "size=4k,nr_inodes=1,mode=1777";
        let mount = Cmd::words(["mount", "-t", "tmpfs", "-o", options, "full", folder]);
        mount.behind(on_node(&self.instance, node)).run().map(drop)
    }
}

/// In the order of the table, in which a mount comes after the one that it lies on.
fn parse(table: &str, folder: &Path) -> Vec<PathBuf> {
    let place = |line: &str| Some(PathBuf::from(line.split(' ').nth(1)?));
    table.lines().filter_map(place).filter(|path| path.starts_with(folder)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_name_begins_alike_is_not_below() {
        let table = "a /s/corral/ns x rw 0 0\nb /s/corral/ns/net-0 nsfs rw 0 0\nc /s/corral2/ns x rw 0 0\n";
        let found = parse(table, Path::new("/s/corral"));
        assert_eq!(found, ["/s/corral/ns", "/s/corral/ns/net-0"].map(PathBuf::from));
    }
}
