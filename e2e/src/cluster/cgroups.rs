//! The cgroups below which a node's pods live, in the hierarchies of version 1 and of version 2.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::addresses::NODES;
use super::instance::Instance;
use crate::machine::clock::Deadline;

const ROOT: &str = "/sys/fs/cgroup";

/// Makes a node's cgroup in every hierarchy.
pub fn create(instance: &Instance, node: usize) -> Result<()> {
    let name = instance.cgroup(node);
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        delegate(Path::new(ROOT))?;
    }
    for hierarchy in hierarchies(Path::new(ROOT)) {
        let own = hierarchy.join(&name);
        fs::create_dir_all(&own).with_context(|| format!("making the cgroup {}", own.display()))?;
        // Version 1 starts a cpuset empty, and nothing can run in an empty one.
        for set in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read_to_string(hierarchy.join(set)).as_deref().map(str::trim)
                && hierarchy.ends_with("cpuset")
            {
                fs::write(own.join(set), all).with_context(|| format!("filling {set}"))?;
            }
        }
    }
    Ok(())
}

/// Version 2: what the root does not hand down, no pod can be limited by. The kubelet asks for all of these.
fn delegate(root: &Path) -> Result<()> {
    let available = fs::read_to_string(root.join("cgroup.controllers"))?;
    let wanted = ["cpu", "cpuset", "memory", "pids", "hugetlb", "io"];
    for controller in available.split_whitespace().filter(|name| wanted.contains(name)) {
        fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("handing down the cgroup controller {controller}"))?;
    }
    Ok(())
}

/// One folder with version 2; with version 1 one for each hierarchy, links to a joint one left out.
fn hierarchies(root: &Path) -> Vec<PathBuf> {
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let folders =
        entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// The cluster's cgroups that exist.
pub fn existing(instance: &Instance) -> Vec<PathBuf> {
    let names: Vec<String> = (0..NODES).map(|node| instance.cgroup(node)).collect();
    let all = hierarchies(Path::new(ROOT));
    let paths = all.iter().flat_map(|hierarchy| names.iter().map(|name| hierarchy.join(name)));
    paths.filter(|path| path.exists()).collect()
}

/// Pids of all that lives below the cluster's cgroups.
pub fn processes(instance: &Instance) -> Vec<i32> {
    let mut pids = Vec::new();
    for cgroup in existing(instance) {
        visit(&cgroup, &mut |folder| {
            let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
        });
    }
    pids
}

/// Removes the cluster's cgroups, which have no process any more.
pub fn remove(instance: &Instance) -> Result<()> {
    // A process that was just ended may still be counted for a moment.
    Deadline::after(Duration::from_secs(20)).wait("cgroups are removed", Duration::from_millis(50), || {
        for cgroup in existing(instance) {
            visit(&cgroup, &mut |folder| drop(fs::remove_dir(folder)));
        }
        let left = existing(instance);
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are left")) })
    })
}

/// Calls `see` for every cgroup below and including this one, children first.
fn visit(cgroup: &Path, see: &mut impl FnMut(&Path)) {
    match fs::read_dir(cgroup) {
        Ok(entries) => {
            let children = entries.filter_map(Result::ok).map(|entry| entry.path());
            children.filter(|path| path.is_dir()).for_each(|path| visit(&path, see));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(_) => {}
    }
    see(cgroup);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str, files: &[&str]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("corral-cgroup-{name}-{}", std::process::id()));
        for file in files {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "").unwrap();
        }
        root
    }

    #[test]
    fn version_two_is_one_hierarchy() {
        let root = tree("v2", &["cgroup.controllers", "cgroup.procs", "user.slice/cgroup.procs"]);
        assert_eq!(hierarchies(&root), std::slice::from_ref(&root));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn version_one_has_many_and_links_do_not_count_twice() {
        let root = tree("v1", &["cpu,cpuacct/cgroup.procs", "memory/cgroup.procs", "notes/readme"]);
        std::os::unix::fs::symlink("cpu,cpuacct", root.join("cpu")).unwrap();
        let mut found = hierarchies(&root);
        found.sort();
        assert_eq!(found, [root.join("cpu,cpuacct"), root.join("memory")]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn children_are_visited_before_their_parents() {
        let root = tree("order", &["a/b/cgroup.procs"]);
        let mut seen = Vec::new();
        visit(&root, &mut |folder| seen.push(folder.to_owned()));
        assert_eq!(seen, [root.join("a/b"), root.join("a"), root.clone()]);
        fs::remove_dir_all(root).unwrap();
    }
}
